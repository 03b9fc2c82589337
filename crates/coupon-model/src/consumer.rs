//! A consumer, with the same steps as `queue_consumer::settle`, `reserve` and `refill`: pop ids, refill the list under
//! a lock, issue, look up, give back, acknowledge.
//!
//! Invariant: its decisions are made by the consumer's real code, [`Batch`], [`take_new`] and [`proven_for`]; only the
//! order of its steps is modelled here.

use coupon_core::{Claim, ClaimKey, CouponId};
use queue_consumer::batch::Batch;
use queue_consumer::reserve::{Reserved, proven_for, take_new};
use queue_consumer::settle::STALE_ROUNDS;

use crate::guards::Guard;
use crate::mysql::CAMPAIGN;
use crate::world::{Holder, Queue, World};

/// A consumer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Consumer {
    /// The next thing it does.
    pub step: Step,
    /// The claims in hand, by their place in [`World::claims`].
    pub delivered: Vec<usize>,
    /// Whether the broker still waits for their ack.
    pub is_awaited: bool,
    /// The round of the batch; the first is 1.
    pub round: usize,
    /// The ids popped in this round, until they are assigned to rows.
    pub ids: Vec<CouponId>,
    /// The rows to issue: each claim with its id.
    pub rows: Vec<(ClaimKey, CouponId)>,
    /// Whether the refill lock expired, or was lost with Redis, in the middle of its refill.
    pub has_lost_lock: bool,
    batch: Batch,
    refill: Refill,
    /// Whether it has asked Redis for ids in this round.
    has_asked: bool,
    /// When the last proof of "sold out" began. Remembered forever here; for half a second in the real consumer.
    proven_at: Option<u64>,
    /// The coupons looked up too early, without [`Guard::ProofBeforeLookup`].
    looked_up: Vec<(ClaimKey, CouponId)>,
}

/// The state of a consumer in the middle of a refill.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Refill {
    began_at: u64,
    after: Option<CouponId>,
    read: Vec<CouponId>,
    is_proof: bool,
}

/// The next step of a consumer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Step {
    /// Waits for claims.
    Idle,
    /// LPOP of the missing ids.
    Pop,
    /// SET NX of the lock; while another holds it, waits until the list has ids.
    Lock,
    /// LLEN, under the lock.
    Check,
    /// GET of the last id that was put into the list.
    ReadMark,
    /// SELECT of free ids after that one.
    ReadOn,
    /// SELECT of free ids from the beginning.
    ReadAll,
    /// RPUSH.
    Push,
    /// SET of the last id that was put into the list.
    Mark,
    /// Compare and delete.
    Unlock,
    /// The conditional UPDATE.
    Issue,
    /// SELECT of the coupons that the accounts hold.
    LookUp,
    /// LPUSHX of the ids that were not needed.
    GiveBack,
    /// UNLINK.
    Drop,
    /// The ack.
    Ack,
    /// The lookup in its wrong place, without [`Guard::ProofBeforeLookup`].
    LookUpTooEarly,
    /// The step that then takes the place of the lookup.
    Answer,
}

impl Default for Consumer {
    fn default() -> Self {
        Self {
            step: Step::Idle,
            delivered: Vec::new(),
            is_awaited: false,
            round: 0,
            ids: Vec::new(),
            rows: Vec::new(),
            has_lost_lock: false,
            batch: Batch::new(&[]),
            refill: Refill::default(),
            has_asked: false,
            proven_at: None,
            looked_up: Vec::new(),
        }
    }
}

impl Consumer {
    /// Whether it is between taking the refill lock and freeing it.
    pub fn is_refilling(&self) -> bool {
        use Step::{Check, Mark, Push, ReadAll, ReadMark, ReadOn, Unlock};
        matches!(self.step, Check | ReadMark | ReadOn | ReadAll | Push | Mark | Unlock)
    }

    /// The ids that it has popped and not yet tried to issue.
    pub fn reserved(&self) -> impl Iterator<Item = CouponId> {
        let rows = self.rows.iter().filter(|_| self.step == Step::Issue);
        self.ids.iter().copied().chain(rows.map(|(_, id)| *id))
    }

    /// Whether it treats the campaign as sold out without having asked Redis in this round.
    pub fn answers_from_memory(&self) -> bool {
        self.step == Step::LookUp && self.round == 1 && self.proven_at.is_some() && !self.has_asked
    }

    /// Takes claims from the queue.
    pub fn take(&mut self, delivered: Vec<usize>, world: &World, model: &Queue) {
        self.delivered = delivered;
        self.is_awaited = model.without != Some(Guard::AckAfterOutcome);
        self.begin(world, model);
    }

    /// Settles its batch from the start.
    pub fn begin(&mut self, world: &World, model: &Queue) {
        self.batch = Batch::new(&world.claims(&self.delivered));
        self.round = 0;
        self.begin_round(world, model);
    }

    fn begin_round(&mut self, world: &World, model: &Queue) {
        self.round += 1;
        self.refill = Refill::default();
        (self.has_lost_lock, self.has_asked) = (false, false);
        self.ids.clear();
        self.rows.clear();
        self.batch.prove_sold_out(self.proven_for(&world.claims(&self.delivered), model));
        self.step = match self.missing() {
            _ if model.without == Some(Guard::ProofBeforeLookup) => Step::LookUpTooEarly,
            0 => Step::LookUp,
            _ => Step::Pop,
        };
    }

    fn proven_for(&self, claims: &[Claim], model: &Queue) -> Vec<coupon_core::CampaignId> {
        if model.without == Some(Guard::ProofAfterClaim) {
            return self.proven_at.map(|_| CAMPAIGN).into_iter().collect();
        }
        proven_for(claims, |_| self.proven_at).into_iter().collect()
    }

    /// How many ids it still wants.
    fn missing(&self) -> usize {
        let wanted: usize = self.batch.wanted().iter().map(|(_, count)| count).sum();
        wanted.saturating_sub(self.ids.len())
    }

    /// Its next step, as named in a path.
    pub fn next(&self, model: &Queue) -> Step {
        match (self.step, model.without) {
            (Step::LookUp, Some(Guard::ProofBeforeLookup)) => Step::Answer,
            (step, _) => step,
        }
    }

    /// Does its next step. `n` is the number of this consumer.
    pub fn act(&mut self, n: usize, world: &mut World, model: &Queue) {
        match self.step {
            Step::Idle => {}
            Step::Pop => self.pop(world),
            Step::Lock => self.lock(n, world, model),
            Step::Check => self.step = if world.redis.list.is_empty() { Step::ReadMark } else { Step::Unlock },
            Step::ReadMark => self.read_mark(world, model),
            Step::ReadOn | Step::ReadAll => self.read(world, model),
            Step::Push => {
                world.redis.list.extend(&self.refill.read);
                self.step = Step::Mark;
            }
            Step::Mark => {
                world.redis.refilled_to = self.refill.read.last().copied();
                self.step = Step::Unlock;
            }
            Step::Unlock => self.unlock(n, world, model),
            Step::Issue => self.issue(world, model),
            Step::LookUp | Step::Answer => self.look_up(world, model),
            Step::LookUpTooEarly => {
                self.looked_up = world.mysql.held(self.batch.open()).into_iter().collect();
                self.looked_up.sort_unstable();
                self.step = if self.missing() == 0 { Step::LookUp } else { Step::Pop };
            }
            Step::GiveBack => self.give_back(world, model),
            Step::Drop => {
                world.redis.list.clear();
                self.begin_round(world, model);
            }
            Step::Ack => *self = Self { proven_at: self.proven_at, ..Self::default() },
        }
    }

    fn pop(&mut self, world: &mut World) {
        self.has_asked = true;
        let list = &mut world.redis.list;
        let count = self.missing().min(list.len());
        let popped: Vec<CouponId> = list.drain(..count).collect();
        let may_find_more = take_new(&mut self.ids, &popped);
        if self.missing() == 0 || !may_find_more { self.assign() } else { self.step = Step::Lock }
    }

    /// Goes back to popping after a wait, because another consumer may have filled the list.
    fn lock(&mut self, n: usize, world: &mut World, model: &Queue) {
        if world.redis.lock.is_some() && model.without != Some(Guard::RefillLock) {
            self.step = Step::Pop;
            return;
        }
        world.redis.lock = Some(Holder::Consumer(n));
        self.has_lost_lock = false;
        self.refill = Refill { began_at: world.now(), ..Refill::default() };
        self.step = Step::Check;
    }

    fn read_mark(&mut self, world: &World, model: &Queue) {
        self.refill.after = world.redis.refilled_to.filter(|_| model.without != Some(Guard::ResumeAfterTheLast));
        self.step = if self.refill.after.is_some() { Step::ReadOn } else { Step::ReadAll };
    }

    fn read(&mut self, world: &World, model: &Queue) {
        let after = self.refill.after.take();
        let mut free = match model.without {
            Some(Guard::ReadFromThePrimary) if after.is_none() => world.mysql.free_on_a_replica(),
            _ => world.mysql.free(after),
        };
        free.truncate(model.refill_max);
        self.step = match (free.is_empty(), after) {
            (false, _) => Step::Push,
            (true, Some(_)) if model.without != Some(Guard::ReadFromTheBeginning) => Step::ReadAll,
            (true, _) => Step::Unlock,
        };
        self.refill.is_proof = self.step == Step::Unlock;
        self.refill.read = free;
    }

    fn unlock(&mut self, n: usize, world: &mut World, model: &Queue) {
        let is_ours = world.redis.lock == Some(Holder::Consumer(n));
        if is_ours || model.without == Some(Guard::CompareBeforeUnlock) {
            world.redis.lock = None;
        }
        if self.refill.is_proof {
            self.proven_at = Some(self.refill.began_at);
            self.assign();
        } else {
            self.step = Step::Pop;
        }
    }

    fn assign(&mut self) {
        let ids = [(CAMPAIGN, std::mem::take(&mut self.ids))].into();
        let sold_out = self.refill.is_proof.then_some(CAMPAIGN).into_iter().collect();
        self.rows = self.batch.assign(Reserved { ids, sold_out, unknown: Vec::new() });
        self.refill = Refill::default();
        self.step = if self.rows.is_empty() { Step::LookUp } else { Step::Issue };
    }

    fn issue(&mut self, world: &mut World, model: &Queue) {
        self.step = Step::LookUp;
        if world.mysql.issue(&self.rows, model.without) {
            self.batch.issued(&self.rows);
            self.rows.clear();
            self.say(world);
            if self.batch.open().is_empty() {
                self.end_round(world, model);
            }
        }
    }

    fn look_up(&mut self, world: &mut World, model: &Queue) {
        let held = if model.without == Some(Guard::ProofBeforeLookup) {
            std::mem::take(&mut self.looked_up).into_iter().collect()
        } else {
            world.mysql.held(self.batch.open())
        };
        self.batch.looked_up(&held);
        self.say(world);
        if self.unused(model).is_empty() { self.end_round(world, model) } else { self.step = Step::GiveBack }
    }

    fn unused(&self, model: &Queue) -> Vec<CouponId> {
        if model.without == Some(Guard::GiveBackWhenCertain) {
            let outcomes = &self.batch.settled().outcomes;
            let is_used = |(claim, id): &(ClaimKey, CouponId)| {
                outcomes.get(claim) == Some(&coupon_core::Outcome::Issued { coupon_id: *id })
            };
            return self.rows.iter().filter(|row| !is_used(row)).map(|(_, id)| *id).collect();
        }
        self.batch.unused(&self.rows).into_iter().map(|(_, id)| id).collect()
    }

    /// Only onto an existing list.
    fn give_back(&mut self, world: &mut World, model: &Queue) {
        for id in self.unused(model) {
            if !world.redis.list.is_empty() {
                world.redis.list.insert(0, id);
            }
        }
        self.end_round(world, model);
    }

    fn end_round(&mut self, world: &World, model: &Queue) {
        self.rows.clear();
        if self.batch.open().is_empty() {
            self.step = Step::Ack;
        } else if self.round.is_multiple_of(STALE_ROUNDS) && model.without != Some(Guard::DropStaleLists) {
            self.step = Step::Drop;
        } else {
            self.begin_round(world, model);
        }
    }

    /// Records the outcomes that clients may be told from now on.
    fn say(&self, world: &mut World) {
        for place in &self.delivered {
            if let Some((claim, judged)) = world.claims.get_mut(*place)
                && let Some(outcome) = self.batch.settled().outcomes.get(&claim.key())
            {
                judged.say(*outcome, &world.mysql);
            }
        }
    }
}
