//! The protocol of skiplock without one of its guards. The goal and the method are those of `queue`.

use coupon_model::guards::Guard;
use coupon_model::properties::{HOLDERS_ARE_KNOWN, ISSUED_AS_SAID, KEEPS_ITS_ACCOUNT, ONE_EACH, SOLD_OUT_IS_TRUE};
use coupon_model::search::shortest_path;
use coupon_model::skiplock::Skiplock;

/// Checks that the property holds with the guard, and that this is the shortest path to a violation without it.
fn breaks(property: &'static str, without: Guard, model: Skiplock, path: &[&str]) {
    let with = Skiplock { only: Some(property), ..model };

    assert_eq!(shortest_path(with.clone()), None, "with {without}");
    let found = shortest_path(Skiplock { without: Some(without), ..with });
    assert_eq!(found.unwrap_or_default(), path, "without {without}");
}

#[test]
fn an_update_without_its_condition_gives_a_coupon_away_twice() {
    let path = [
        "account 1 claims",
        "account 2 claims",
        "worker 1 takes a claim, reads ids ahead",
        "worker 2 takes a claim, reads ids ahead",
        "worker 1 locks its rows, commits",
        "worker 2 locks its rows, commits",
    ];
    breaks(KEEPS_ITS_ACCOUNT, Guard::ConditionalUpdate, Skiplock::default(), &path);
}

#[test]
fn without_the_unique_key_an_account_that_claims_twice_gets_two() {
    let path = [
        "account 1 claims",
        "account 1 claims",
        "worker 1 takes a claim, reads ids ahead, locks its rows, commits, takes a claim, locks its rows, commits",
    ];
    let model = Skiplock { accounts: vec![1, 1], coupons: 2, ..Skiplock::default() };
    breaks(ONE_EACH, Guard::UniqueKey, model, &path);
}

#[test]
fn no_row_with_skip_locked_does_not_mean_that_none_is_free() {
    let path = [
        "account 1 claims",
        "account 2 claims",
        "worker 1 takes a claim, reads ids ahead, locks its rows",
        // The row is free until worker 1 commits, which it may never do.
        "worker 2 takes a claim, reads ids ahead, looks up what the accounts without a row hold",
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::ReadCommittedRows, Skiplock::default(), &path);
}

#[test]
fn a_lookup_before_the_proof_misses_what_was_issued_in_between() {
    let path = [
        "account 1 claims",
        "account 1 claims",
        "worker 1 takes a claim, reads ids ahead, locks its rows",
        "worker 2 takes a claim, reads ids ahead, looks up what the accounts without a row hold",
        "worker 1 commits",
        "worker 2 reads whether a row is free",
    ];
    let model = Skiplock { accounts: vec![1, 1], ..Skiplock::default() };
    breaks(HOLDERS_ARE_KNOWN, Guard::ProofBeforeLookup, model, &path);
}

#[test]
fn an_answer_before_the_commit_may_be_rolled_back() {
    let path = ["account 1 claims", "worker 1 takes a claim, reads ids ahead, locks its rows"];
    breaks(ISSUED_AS_SAID, Guard::AnswerAfterCommit, Skiplock::default(), &path);
}
