//! The protocol of the queue without one of its guards. Goal: each guard is needed for the property named here. Method:
//! the property holds in a small model and breaks in the same model without the guard; the shortest path to the
//! violation is asserted in words.

use coupon_model::guards::Guard;
use coupon_model::properties::{
    FEW_ROUNDS, HOLDERS_ARE_KNOWN, KEEPS_ITS_ACCOUNT, NO_ID_TWICE, ONE_EACH, ONE_REFILLS, SETTLED_IN_THE_END,
    SOLD_OUT_IS_TRUE,
};
use coupon_model::search::shortest_path;
use coupon_model::world::Queue;

const BEGINS: &str = "asks for the refill lock, looks at the list, reads where the last refill ended";
const FROM_THE_BEGINNING: &str = "reads free rows from the beginning";
const AFTER_THAT: &str = "reads free rows behind that";
const FILLS: &str = "fills the list, notes where its refill ended, frees the refill lock";
const UNLOCKS: &str = "frees the refill lock";
const LOOKS_UP: &str = "looks up what the accounts hold";

/// Checks that the property holds with the guard, and that this is the shortest path to a violation without it.
fn breaks(property: &'static str, without: Guard, model: Queue, path: &[String]) {
    let with = Queue { only: Some(property), ..model };

    assert_eq!(shortest_path(with.clone()), None, "with {without}");
    let found = shortest_path(Queue { without: Some(without), ..with });
    assert_eq!(found.as_deref(), Some(path), "without {without}");
}

#[test]
fn an_update_without_its_condition_gives_a_coupon_away_twice() {
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!("consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids"),
        // The only row stays free in MySQL while its id is in flight.
        format!("consumer 2 takes a claim, pops ids, {BEGINS}, {AFTER_THAT}, {FROM_THE_BEGINNING}"),
        "consumer 1 issues".into(),
        format!("consumer 2 {FILLS}, pops ids, issues"),
    ];
    breaks(KEEPS_ITS_ACCOUNT, Guard::ConditionalUpdate, Queue::default(), &path);
}

#[test]
fn without_the_unique_key_an_account_that_claims_twice_gets_two() {
    let model = Queue { accounts: vec![1, 1], coupons: 2, ..Queue::default() };
    let path = [
        "account 1 claims".into(),
        "account 1 claims".into(),
        format!("consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids, issues"),
        format!("consumer 2 takes a claim, pops ids, {BEGINS}, {AFTER_THAT}, {FILLS}, pops ids, issues"),
    ];
    breaks(ONE_EACH, Guard::UniqueKey, model, &path);
}

#[test]
fn an_acknowledgement_before_the_outcome_loses_a_claim() {
    let model = Queue { accounts: vec![1], faults: 1, ..Queue::default() };
    let path = ["account 1 claims".into(), "consumer 1 takes a claim, is killed".into()];
    breaks(SETTLED_IN_THE_END, Guard::AckAfterOutcome, model, &path);
}

#[test]
fn nothing_free_after_the_last_refill_proves_nothing() {
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!("consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids"),
        format!("consumer 2 takes a claim, pops ids, {BEGINS}, {AFTER_THAT}, {UNLOCKS}, {LOOKS_UP}"),
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::ReadFromTheBeginning, Queue::default(), &path);
}

#[test]
fn a_lookup_before_the_proof_misses_what_was_issued_in_between() {
    let model = Queue { accounts: vec![1, 1], ..Queue::default() };
    let path = [
        "account 1 claims".into(),
        "account 1 claims".into(),
        format!(
            "consumer 1 takes a claim, looks up too early what the accounts hold, \
             pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids"
        ),
        "consumer 2 takes a claim, looks up too early what the accounts hold".into(),
        "consumer 1 issues".into(),
        format!("consumer 2 pops ids, {BEGINS}, {AFTER_THAT}, {FROM_THE_BEGINNING}, {UNLOCKS}, answers by that"),
    ];
    breaks(HOLDERS_ARE_KNOWN, Guard::ProofBeforeLookup, model, &path);
}

#[test]
fn a_proof_that_is_older_than_the_claim_misses_a_restock() {
    let model = Queue { consumers: 1, accounts: vec![1, 2, 3], restocks: 1, ..Queue::default() };
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!(
            "consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids, issues, acknowledges, \
             takes a claim, pops ids, {BEGINS}, {AFTER_THAT}, {FROM_THE_BEGINNING}, {UNLOCKS}, {LOOKS_UP}, acknowledges"
        ),
        "an operator adds a coupon".into(),
        "account 3 claims".into(),
        format!("consumer 1 takes a claim, {LOOKS_UP}"),
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::ProofAfterClaim, model, &path);
}

#[test]
fn a_replica_that_lags_behind_misses_a_restock() {
    let model = Queue { consumers: 1, restocks: 1, ..Queue::default() };
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!("consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids"),
        "an operator adds a coupon".into(),
        format!(
            "consumer 1 issues, acknowledges, \
             takes a claim, pops ids, {BEGINS}, {AFTER_THAT}, {FROM_THE_BEGINNING}, {UNLOCKS}, {LOOKS_UP}"
        ),
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::ReadFromThePrimary, model, &path);
}

#[test]
fn stale_ids_that_are_given_back_circulate() {
    let model = Queue { batch_max: 2, faults: 1, restocks: 1, ..Queue::default() };
    let again = format!("{BEGINS}, {AFTER_THAT}, {FROM_THE_BEGINNING}");
    let refused = format!("pops ids, issues, {LOOKS_UP}, gives ids back");
    let from_there = format!("notes where its refill ended, {UNLOCKS}");
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!("consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids"),
        format!("consumer 2 takes a claim, pops ids, {again}"),
        "consumer 1 issues, acknowledges".into(),
        // It pushes and pops the id of a row that was free when it read.
        format!("consumer 2 {FILLS}, pops ids, issues, {LOOKS_UP}"),
        "an operator adds a coupon".into(),
        "consumer 2 loses the broker".into(),
        format!("consumer 1 takes a claim, pops ids, {again}, {FILLS}"),
        format!("consumer 2 gives ids back, {refused}"),
        format!("consumer 1 pops ids, issues, {LOOKS_UP}"),
        format!("consumer 2 drops the list, pops ids, {again}, fills the list"),
        "consumer 1 gives ids back".into(),
        format!("consumer 2 {from_there}, {refused}, {refused}"),
        format!("consumer 1 pops ids, issues, {LOOKS_UP}"),
        format!("consumer 2 drops the list, pops ids, {again}, fills the list"),
        "consumer 1 gives ids back".into(),
        format!("consumer 2 {from_there}, {refused}, {refused}, drops the list"),
    ];
    breaks(FEW_ROUNDS, Guard::GiveBackWhenCertain, model, &path);
}

#[test]
fn a_list_full_of_stale_ids_is_tried_one_by_one() {
    let model = Queue {
        consumers: 1,
        accounts: (1..=7).collect(),
        coupons: 7,
        batch_max: 6,
        refill_max: 7,
        faults: 1,
        ..Queue::default()
    };
    let refused = format!("pops ids, issues, {LOOKS_UP}");
    let mut path: Vec<String> = (1..=7).map(|account| format!("account {account} claims")).collect();
    path.extend([
        format!(
            "consumer 1 takes 6 claims, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, \
             pops ids, issues, acknowledges, takes a claim"
        ),
        "Redis comes back with all ids".into(),
        format!("consumer 1 {}", [refused.as_str(); 6].join(", ")),
    ]);
    breaks(FEW_ROUNDS, Guard::DropStaleLists, model, &path);
}

#[test]
fn without_the_lock_two_consumers_refill_at_once() {
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        "consumer 1 takes a claim, pops ids, asks for the refill lock".into(),
        "consumer 2 takes a claim, pops ids, asks for the refill lock".into(),
    ];
    breaks(ONE_REFILLS, Guard::RefillLock, Queue::default(), &path);
}

#[test]
fn a_consumer_that_has_lost_its_lock_frees_the_lock_of_another() {
    let model = Queue { faults: 1, ..Queue::default() };
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!(
            "consumer 1 takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, \
             fills the list, notes where its refill ended"
        ),
        "consumer 2 takes a claim".into(),
        "Redis loses everything".into(),
        "consumer 2 pops ids, asks for the refill lock".into(),
        format!("consumer 1 {UNLOCKS}, pops ids, asks for the refill lock"),
    ];
    breaks(ONE_REFILLS, Guard::CompareBeforeUnlock, model, &path);
}

/// Both accounts can get a coupon, and nothing fails. Otherwise two consumers may hold one id at any time, and often
/// do.
#[test]
fn a_refill_from_the_beginning_offers_ids_in_flight() {
    let model = Queue { coupons: 2, ..Queue::default() };
    let refilled = format!("takes a claim, pops ids, {BEGINS}, {FROM_THE_BEGINNING}, {FILLS}, pops ids");
    let path = [
        "account 1 claims".into(),
        "account 2 claims".into(),
        format!("consumer 1 {refilled}"),
        format!("consumer 2 {refilled}"),
    ];
    breaks(NO_ID_TWICE, Guard::ResumeAfterTheLast, model, &path);
}
