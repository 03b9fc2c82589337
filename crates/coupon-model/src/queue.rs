//! The queue way: accounts claim, the broker delivers claims, consumers settle them ([`crate::consumer`]), and anything
//! may fail at any moment.
//!
//! Invariant: an action is one round trip to one server, together with everything that follows from its answer without
//! another round trip.

use coupon_core::{AccountId, Claim, CouponId};
use stateright::{Model, Property};

use crate::consumer::{Consumer, Step};
use crate::guards::Guard;
use crate::mysql::{CAMPAIGN, Mysql};
use crate::properties;
use crate::said::Judged;

/// The size of the model, and the guard left out of it.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The number of consumers.
    pub consumers: usize,
    /// The accounts that claim, in this order; one may claim again.
    pub accounts: Vec<u64>,
    /// Coupons at the start.
    pub coupons: u8,
    /// The most claims in a batch.
    pub batch_max: usize,
    /// The most ids in a refill.
    pub refill_max: usize,
    /// The number of faults that may happen in a run.
    pub faults: u8,
    /// Coupons that may be added in a run.
    pub restocks: u8,
    /// The guard that is left out.
    pub without: Option<Guard>,
    /// The only property to check; otherwise all that must hold whatever fails.
    pub only: Option<&'static str>,
}

/// The state of everything at one moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// The servers and claims that consumers work with.
    pub world: World,
    /// The claims in the queue, by their place in [`World::claims`].
    pub waiting: Vec<usize>,
    /// The consumers.
    pub consumers: Vec<Consumer>,
    faults: u8,
    restocks: u8,
}

/// The servers and claims that consumers work with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct World {
    /// The source of truth.
    pub mysql: Mysql,
    /// The hints, which may be stale or lost.
    pub redis: Redis,
    /// The claims that the broker has confirmed, in this order, and what the judge knows about each.
    pub claims: Vec<(Claim, Judged)>,
    /// Advances only when the difference could be observed.
    clock: u64,
}

/// The keys of the campaign. The records of outcomes are not among them: no consumer reads them ([`crate::answers`]).
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Redis {
    /// Ids of free coupons.
    pub list: Vec<CouponId>,
    /// The last id that was put into the list.
    pub refilled_to: Option<CouponId>,
    /// The refill lock, if it is held.
    pub lock: Option<Holder>,
}

/// The holder of the refill lock.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Holder {
    /// This consumer.
    Consumer(usize),
    /// A consumer that has died, or has given up its refill.
    Nobody,
}

/// An event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// An account claims, and the broker confirms it.
    Claim(AccountId),
    /// A consumer takes this many claims.
    Take(usize, usize),
    /// A consumer does its next step.
    Do(usize, Step),
    /// A consumer is killed; the broker requeues its claims.
    Crash(usize),
    /// A consumer loses its connection to the broker, and notices only when it acknowledges.
    Disconnect(usize),
    /// A server answers a consumer with an error; it settles its batch again from the start.
    Fail(usize),
    /// The refill lock expires.
    Expire,
    /// Redis loses everything.
    Empty,
    /// Redis comes back as it was long ago: every id is in the list, including those already issued.
    Restore,
    /// An operator adds a coupon.
    Restock,
}

impl Default for Queue {
    /// The smallest model worth searching: two consumers, two accounts and one coupon, and nothing fails.
    fn default() -> Self {
        Self {
            consumers: 2,
            accounts: vec![1, 2],
            coupons: 1,
            batch_max: 1,
            refill_max: 1,
            faults: 0,
            restocks: 0,
            without: None,
            only: None,
        }
    }
}

impl Model for Queue {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (mysql, redis) = (Mysql::with_stock(self.coupons), Redis::default());
        vec![State {
            world: World { mysql, redis, claims: Vec::new(), clock: 1 },
            waiting: Vec::new(),
            consumers: vec![Consumer::default(); self.consumers],
            faults: self.faults,
            restocks: self.restocks,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.work(state, actions);
        if state.restocks > 0 {
            actions.push(Action::Restock);
        }
        if state.faults > 0 {
            state.possible_faults(actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Claim(account) => next.accept(account),
            Action::Take(n, count) => next.take(n, count, self),
            Action::Do(n, _) => {
                let State { world, consumers, .. } = &mut next;
                consumers.get_mut(n)?.act(n, world, self);
            }
            Action::Restock => {
                next.restocks -= 1;
                next.world.mysql.restock();
            }
            Action::Expire if state.world.redis.lock == Some(Holder::Nobody) => next.world.redis.lock = None,
            fault => {
                next.faults -= 1;
                next.fail(fault, self)?;
            }
        }
        let World { mysql, claims, .. } = &mut next.world;
        for (_, judged) in claims {
            judged.watch(mysql);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::chosen(properties::of_queue(), properties::of_calm_queue(), self.only)
    }
}

impl Queue {
    /// The actions possible while there is work and nothing fails: claims, consumers' steps, and the expiry of a lock
    /// that nobody will free.
    pub fn work(&self, state: &State, actions: &mut Vec<Action>) {
        let World { redis, claims, .. } = &state.world;
        if let Some(&account) = self.accounts.get(claims.len()) {
            actions.push(Action::Claim(AccountId(account)));
        }
        for (n, consumer) in state.consumers.iter().enumerate() {
            match consumer.step {
                // Of several identical consumers, one is enough.
                Step::Idle if state.consumers.iter().take(n).any(|other| other == consumer) => {}
                Step::Idle => {
                    let count = state.waiting.len().min(self.batch_max);
                    actions.extend((1..=count).map(|count| Action::Take(n, count)));
                }
                Step::Lock if self.must_wait(redis) => {}
                _ => actions.push(Action::Do(n, consumer.next(self))),
            }
        }
        if redis.lock == Some(Holder::Nobody) {
            actions.push(Action::Expire);
        }
    }

    fn must_wait(&self, redis: &Redis) -> bool {
        redis.lock.is_some() && redis.list.is_empty() && self.without != Some(Guard::RefillLock)
    }
}

impl State {
    fn accept(&mut self, account: AccountId) {
        let World { mysql, claims, clock, .. } = &mut self.world;
        self.waiting.push(claims.len());
        let claim = Claim { campaign_id: CAMPAIGN, account_id: account, accepted_at_ms: *clock };
        claims.push((claim, Judged::new(account, mysql)));
    }

    fn take(&mut self, n: usize, count: usize, model: &Queue) {
        let Self { world, waiting, consumers, .. } = self;
        if let Some(consumer) = consumers.get_mut(n) {
            consumer.take(waiting.drain(..count).collect(), world, model);
        }
    }

    fn possible_faults(&self, actions: &mut Vec<Action>) {
        let Redis { list, refilled_to, lock } = &self.world.redis;
        for (n, consumer) in self.consumers.iter().enumerate().filter(|(_, consumer)| consumer.step != Step::Idle) {
            actions.extend([Action::Crash(n), Action::Fail(n)]);
            if consumer.is_awaited {
                actions.push(Action::Disconnect(n));
            }
        }
        if matches!(lock, Some(Holder::Consumer(_))) {
            actions.push(Action::Expire);
        }
        if !list.is_empty() || refilled_to.is_some() || lock.is_some() {
            actions.push(Action::Empty);
        }
        actions.push(Action::Restore);
    }

    fn fail(&mut self, fault: Action, model: &Queue) -> Option<()> {
        let Self { world, waiting, consumers, .. } = self;
        match fault {
            Action::Crash(n) => {
                let consumer = std::mem::take(consumers.get_mut(n)?);
                world.redis.abandon(n);
                if consumer.is_awaited {
                    waiting.splice(0..0, consumer.delivered);
                }
            }
            Action::Disconnect(n) => {
                let consumer = consumers.get_mut(n)?;
                consumer.is_awaited = false;
                waiting.splice(0..0, consumer.delivered.iter().copied());
            }
            Action::Fail(n) => {
                world.redis.abandon(n);
                consumers.get_mut(n)?.begin(world, model);
            }
            Action::Expire => world.redis.lose_lock(consumers),
            Action::Empty => {
                world.redis.lose_lock(consumers);
                world.redis = Redis::default();
            }
            Action::Restore => {
                world.redis.lose_lock(consumers);
                world.redis = Redis { list: world.mysql.ids(), ..Redis::default() };
            }
            Action::Claim(_) | Action::Take(..) | Action::Do(..) | Action::Restock => return None,
        }
        Some(())
    }
}

impl World {
    /// The claims in these places.
    pub fn claims(&self, places: &[usize]) -> Vec<Claim> {
        places.iter().filter_map(|place| self.claims.get(*place)).map(|(claim, _)| *claim).collect()
    }

    /// A timestamp later than those of all claims so far, and not later than those of any claims to come.
    pub fn now(&mut self) -> u64 {
        if self.claims.last().is_some_and(|(claim, _)| claim.accepted_at_ms == self.clock) {
            self.clock += 1;
        }
        self.clock
    }
}

impl Redis {
    /// Marks the lock of a consumer that will no longer free it.
    fn abandon(&mut self, n: usize) {
        if self.lock == Some(Holder::Consumer(n)) {
            self.lock = Some(Holder::Nobody);
        }
    }

    /// Removes the lock while its holder believes that it still holds it.
    fn lose_lock(&mut self, consumers: &mut [Consumer]) {
        if let Some(Holder::Consumer(n)) = self.lock.take()
            && let Some(consumer) = consumers.get_mut(n)
        {
            consumer.has_lost_lock = true;
        }
    }
}
