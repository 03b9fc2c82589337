//! The queue way: accounts claim, the broker delivers claims, consumers settle them ([`crate::consumer`]), and anything
//! may fail at any moment.
//!
//! Invariant: an action is one round trip to one server, together with everything that follows from its answer without
//! another round trip.

use coupon_core::{AccountId, Claim};
use stateright::{Model, Property};

use crate::consumer::{Consumer, Step};
use crate::guards::Guard;
use crate::mysql::{CAMPAIGN, Mysql};
use crate::properties::{
    FEW_ROUNDS, HOLDERS_ARE_KNOWN, ISSUED_AS_SAID, KEEPS_ITS_ACCOUNT, NO_ID_TWICE, ONE_EACH, ONE_REFILLS,
    SETTLED_IN_THE_END, SOLD_OUT_IS_TRUE, chosen,
};
use crate::said::{Judged, Said};
use crate::world::{Holder, Queue, Redis, World};

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
        chosen(properties(), calm_properties(), self.only)
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
            Action::Expire => self.lose_lock(),
            Action::Empty => {
                self.lose_lock();
                self.world.redis = Redis::default();
            }
            Action::Restore => {
                self.lose_lock();
                self.world.redis = Redis { list: self.world.mysql.ids(), ..Redis::default() };
            }
            Action::Claim(_) | Action::Take(..) | Action::Do(..) | Action::Restock => return None,
        }
        Some(())
    }

    /// Removes the lock while its holder believes that it still holds it.
    fn lose_lock(&mut self) {
        if let Some(Holder::Consumer(n)) = self.world.redis.lock.take()
            && let Some(consumer) = self.consumers.get_mut(n)
        {
            consumer.has_lost_lock = true;
        }
    }
}

/// The rounds that a batch may take.
const ROUNDS: usize = 6;

/// The properties of the queue way.
fn properties() -> Vec<Property<Queue>> {
    vec![
        Property::always(KEEPS_ITS_ACCOUNT, |_, state: &State| !state.world.mysql.has_changed_hands),
        Property::always(ONE_EACH, |_, state: &State| !state.world.mysql.has_an_account_twice()),
        Property::always(ISSUED_AS_SAID, |_, state: &State| {
            state.world.claims.iter().all(|(_, judged)| judged.is_issued_as_said(&state.world.mysql))
        }),
        Property::always(SOLD_OUT_IS_TRUE, |_, state: &State| !has_said(state, |said| said == Said::SoldOutWhileFree)),
        Property::always(HOLDERS_ARE_KNOWN, |_, state: &State| !has_said(state, |said| said == Said::SoldOutToAHolder)),
        Property::always(SETTLED_IN_THE_END, |queue, state: &State| {
            let mut work = Vec::new();
            queue.work(state, &mut work);
            !work.is_empty() || state.world.claims.iter().all(|(_, judged)| judged.said.is_some())
        }),
        Property::always(FEW_ROUNDS, |_, state: &State| {
            state.consumers.iter().all(|consumer| consumer.round <= ROUNDS)
        }),
        Property::always(ONE_REFILLS, |_, state: &State| {
            state.consumers.iter().filter(|consumer| consumer.is_refilling() && !consumer.has_lost_lock).count() <= 1
        }),
        Property::sometimes("all coupons are issued", |_, state: &State| state.world.mysql.is_sold_out()),
        Property::sometimes("sold out is said", |_, state: &State| has_said(state, |said| said == Said::SoldOut)),
        Property::sometimes("a restocked coupon is issued to an account that claimed before", |_, state: &State| {
            let restocked = state.world.mysql.restocked_to();
            state.world.claims.first().is_some_and(|(claim, _)| restocked == Some(claim.account_id))
        }),
        Property::sometimes("two consumers hold one claim", |_, state: &State| {
            pairs(state).any(|(a, b)| a.delivered.iter().any(|claim| b.delivered.contains(claim)))
        }),
        Property::sometimes("two consumers hold one id", |_, state: &State| has_an_id_twice(state)),
        Property::sometimes("two consumers refill at once", |_, state: &State| {
            pairs(state).any(|(a, b)| a.is_refilling() && b.is_refilling())
        }),
        Property::sometimes("an UPDATE is refused", |_, state: &State| state.consumers.iter().any(|it| it.round > 1)),
        Property::sometimes("a list of stale ids is dropped", |_, state: &State| {
            state.consumers.iter().any(|consumer| consumer.step == Step::Drop)
        }),
        Property::sometimes("ids go back", |_, state: &State| {
            state.consumers.iter().any(|consumer| consumer.step == Step::GiveBack)
        }),
        Property::sometimes("a remembered proof answers", |_, state: &State| {
            state.consumers.iter().any(Consumer::answers_from_memory)
        }),
    ]
}

/// The properties of the queue way in runs in which nothing fails and every account gets a coupon. They show the work
/// that the mark of the last refill spares MySQL.
fn calm_properties() -> Vec<Property<Queue>> {
    vec![Property::always(NO_ID_TWICE, |_, state: &State| !has_an_id_twice(state))]
}

fn has_said(state: &State, is_it: impl Fn(Said) -> bool) -> bool {
    state.world.claims.iter().any(|(_, judged)| judged.said.is_some_and(&is_it))
}

fn has_an_id_twice(state: &State) -> bool {
    pairs(state).any(|(a, b)| a.reserved().any(|id| b.reserved().any(|other| other == id)))
}

fn pairs(state: &State) -> impl Iterator<Item = (&Consumer, &Consumer)> {
    let consumers = &state.consumers;
    consumers.iter().enumerate().flat_map(|(n, one)| consumers.iter().skip(n + 1).map(move |other| (one, other)))
}
