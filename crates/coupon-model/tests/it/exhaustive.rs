//! Searches of all states. Goal: every property holds in every state, and every event that should happen does. Method:
//! the number of states is asserted, so that any change of a model shows; a changed number is updated here once it is
//! understood.

use std::collections::BTreeSet;

use coupon_model::answers::Answers;
use coupon_model::guards::Guard;
use coupon_model::properties::{ONE_REFILLS, STAYS_PENDING};
use coupon_model::search::{Searched, all_states, shortest_path};
use coupon_model::skiplock::Skiplock;
use coupon_model::world::Queue;

/// Several times as many steps as any search here takes.
const STEPS_MAX: usize = 5_000_000;

/// A queue in which one thing fails and an operator adds a coupon.
fn eventful() -> Queue {
    Queue { batch_max: 2, faults: 1, restocks: 1, ..Queue::default() }
}

#[test]
fn the_queue_way_keeps_its_promises() {
    let sizes = [
        (
            "an account claims twice",
            Queue { accounts: vec![1, 2, 1], batch_max: 2, faults: 1, ..Queue::default() },
            220_241,
        ),
        (
            "three accounts, two coupons",
            Queue { accounts: vec![1, 2, 3], coupons: 2, restocks: 0, ..eventful() },
            408_816,
        ),
        ("a restock", eventful(), 88_617),
        ("two faults", Queue { faults: 2, ..Queue::default() }, 111_382),
        ("three consumers", Queue { consumers: 3, faults: 1, ..Queue::default() }, 41_440),
    ];
    all_hold("queue", &sizes.map(|(size, model, states)| (size, states, all_states(model, STEPS_MAX, |_| {}))));
}

#[test]
fn the_skiplock_way_keeps_its_promises() {
    let eventful = Skiplock { group_max: 2, faults: 1, restocks: 1, ..Skiplock::default() };
    let sizes = [
        ("an account claims twice", Skiplock { accounts: vec![1, 2, 1], ..eventful.clone() }, 14_524),
        ("four claims, two coupons", Skiplock { accounts: vec![1, 2, 3, 1], coupons: 2, ..eventful.clone() }, 164_426),
        ("three workers", Skiplock { workers: 3, accounts: vec![1, 2, 1], coupons: 2, ..eventful }, 59_570),
    ];
    all_hold("skiplock", &sizes.map(|(size, model, states)| (size, states, all_states(model, STEPS_MAX, |_| {}))));
}

#[test]
fn answers_are_true() {
    let sizes = [("two accounts", Answers::default(), 38_809)];
    all_hold("answers", &sizes.map(|(size, model, states)| (size, states, all_states(model, STEPS_MAX, |_| {}))));
}

/// Correctness never depends on a lock, nor on which ids a list holds: see docs/decisions.
#[test]
fn without_the_refill_lock_only_work_is_done_twice() {
    for (guard, broken) in [
        (Guard::RefillLock, BTreeSet::from([ONE_REFILLS])),
        (Guard::CompareBeforeUnlock, BTreeSet::from([ONE_REFILLS])),
        (Guard::ResumeAfterTheLast, BTreeSet::new()),
    ] {
        let searched = all_states(Queue { without: Some(guard), ..eventful() }, STEPS_MAX, |_| {});

        assert!(searched.is_complete, "{guard}: {searched:?}");
        assert_eq!(searched.broken, broken, "without {guard}");
    }
}

/// A restock may come between an outcome and the request for it. Nobody is answered "sold out" then, and a claim that
/// was settled as sold out stays pending until the account claims again, as docs/API.md advises clients to do.
#[test]
fn a_restock_may_leave_a_claim_pending() {
    let path = shortest_path(Answers { only: Some(STAYS_PENDING), ..Answers::default() });

    assert_eq!(
        path.unwrap(),
        [
            "the API reads whether a row is free",
            "account 1 claims",
            "the claim of account 1 is settled and recorded",
            "account 2 claims",
            "the claim of account 2 is settled and recorded",
            "an operator adds a coupon",
        ]
    );
}

fn all_hold<const N: usize>(model: &str, searches: &[(&str, usize, Searched); N]) {
    let mut missed: Option<BTreeSet<&str>> = None;
    let mut counts = Vec::new();
    for (size, states, searched) in searches {
        assert!(searched.is_complete, "{model}, {size}: {searched:?}");
        assert_eq!(searched.broken, BTreeSet::new(), "{model}, {size}");
        counts.push((*size, *states, searched.states));
        let others = missed.unwrap_or_else(|| searched.missed.clone());
        missed = Some(others.intersection(&searched.missed).copied().collect());
    }
    let changed: Vec<_> = counts.into_iter().filter(|(_, states, counted)| states != counted).collect();
    assert!(changed.is_empty(), "{model}: size, expected and actual number of states: {changed:?}");
    assert_eq!(missed, Some(BTreeSet::new()), "{model}: events that happen in none of these sizes");
}
