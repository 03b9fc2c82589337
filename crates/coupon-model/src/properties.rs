//! The properties that must hold in every state, and the events that must happen in some: a search that never meets a
//! refused UPDATE proves little.
//!
//! Invariant: the safety of a claim is judged by MySQL and by the answers given ([`crate::said`]), never by what a
//! consumer believes.

use stateright::{Model, Property};

use crate::answers::{self, Answers};
use crate::consumer::{Consumer, Step};
use crate::queue::{Queue, State};
use crate::said::{Judged, Said};
use crate::skiplock::{self, Skiplock};

/// A coupon has at most one account, and once set it never changes.
pub const KEEPS_ITS_ACCOUNT: &str = "a coupon never changes hands";
/// An account has at most one coupon.
pub const ONE_EACH: &str = "an account gets one coupon at most";
/// A coupon reported as issued is in MySQL.
pub const ISSUED_AS_SAID: &str = "a coupon that was said to be issued is the account's";
/// "Sold out" is answered only if no row was free at some moment since the claim.
pub const SOLD_OUT_IS_TRUE: &str = "sold out is said only if none was free";
/// A repeated claim gets the same outcome.
pub const HOLDERS_ARE_KNOWN: &str = "sold out is never said to an account that holds a coupon";
/// Whenever there is no work left, each claim has its outcome. This stands in for "each claim eventually gets its
/// outcome", which this checker cannot decide where paths rejoin.
pub const SETTLED_IN_THE_END: &str = "when all is quiet, every claim has its outcome";
/// No batch loops for many rounds.
pub const FEW_ROUNDS: &str = "a batch takes 6 rounds at most";
/// Matters only for cost, in runs in which nothing fails.
pub const NO_ID_TWICE: &str = "no id is with two consumers at once";
/// Matters only for cost, whatever fails.
pub const ONE_REFILLS: &str = "two refill at once only if one has lost its lock";

/// This case is left to the client, which claims again.
pub const STAYS_PENDING: &str = "a claim that was settled as sold out stays pending after a restock";

const ROUNDS: usize = 6;

/// The property with this name, or all but those that hold only in special runs.
pub fn chosen<M: Model>(all: Vec<Property<M>>, special: Vec<Property<M>>, only: Option<&str>) -> Vec<Property<M>> {
    match only {
        None => all,
        Some(name) => all.into_iter().chain(special).filter(|property| property.name == name).collect(),
    }
}

/// The properties of the queue way.
pub fn of_queue() -> Vec<Property<Queue>> {
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
pub fn of_calm_queue() -> Vec<Property<Queue>> {
    vec![Property::always(NO_ID_TWICE, |_, state: &State| !has_an_id_twice(state))]
}

/// The properties of the skiplock way.
pub fn of_skiplock() -> Vec<Property<Skiplock>> {
    vec![
        Property::always(KEEPS_ITS_ACCOUNT, |_, state: &skiplock::State| !state.mysql.has_changed_hands),
        Property::always(ONE_EACH, |_, state: &skiplock::State| !state.mysql.has_an_account_twice()),
        Property::always(ISSUED_AS_SAID, |_, state: &skiplock::State| {
            // A statement in progress counts as not committed.
            state.claims.iter().all(|judged| judged.is_issued_as_said(&state.mysql))
        }),
        Property::always(SOLD_OUT_IS_TRUE, |_, state: &skiplock::State| {
            !any_said(&state.claims, Said::SoldOutWhileFree)
        }),
        Property::always(HOLDERS_ARE_KNOWN, |_, state: &skiplock::State| {
            !any_said(&state.claims, Said::SoldOutToAHolder)
        }),
        Property::always(SETTLED_IN_THE_END, |model: &Skiplock, state: &skiplock::State| {
            let mut work = Vec::new();
            model.work(state, &mut work);
            !work.is_empty() || state.claims.iter().all(|judged| judged.said.is_some())
        }),
        Property::sometimes("all coupons are issued", |_, state: &skiplock::State| state.mysql.is_sold_out()),
        Property::sometimes("sold out is said", |_, state: &skiplock::State| any_said(&state.claims, Said::SoldOut)),
        Property::sometimes("all rows are locked while one is free", |_, state: &skiplock::State| {
            let free = state.mysql.free(None);
            !free.is_empty() && free.iter().all(|id| state.locks.contains_key(id))
        }),
        Property::sometimes("a claim without a row tries again", |_, state: &skiplock::State| {
            state.workers.iter().any(skiplock::Worker::finds_a_row_free)
        }),
        Property::sometimes("a row that was read ahead is taken", |_, state: &skiplock::State| {
            state.workers.iter().any(|worker| worker.step == skiplock::Step::LookUp)
        }),
        Property::sometimes("a restocked coupon is issued", |_, state: &skiplock::State| {
            state.mysql.restocked_to().is_some()
        }),
    ]
}

/// The properties of an API's answers.
pub fn of_answers() -> Vec<Property<Answers>> {
    vec![
        Property::always(ISSUED_AS_SAID, |_, state: &answers::State| {
            state.told.iter().all(|judged| judged.is_issued_as_said(&state.mysql))
        }),
        Property::always(SOLD_OUT_IS_TRUE, |_, state: &answers::State| !any_said(&state.told, Said::SoldOutWhileFree)),
        Property::always(HOLDERS_ARE_KNOWN, |_, state: &answers::State| !any_said(&state.told, Said::SoldOutToAHolder)),
        Property::sometimes("sold out is said", |_, state: &answers::State| any_said(&state.told, Said::SoldOut)),
        Property::sometimes(STAYS_PENDING, |_, state: &answers::State| state.has_to_claim_again()),
    ]
}

fn any_said(claims: &[Judged], word: Said) -> bool {
    claims.iter().any(|judged| judged.said == Some(word))
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
