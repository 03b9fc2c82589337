//! The answers of an API without one of its guards. The goal and the method are those of `queue`.

use coupon_model::answers::Answers;
use coupon_model::guards::Guard;
use coupon_model::properties::{HOLDERS_ARE_KNOWN, SOLD_OUT_IS_TRUE};
use coupon_model::search::shortest_path;

/// Checks that the property holds with the guard, and that this is the shortest path to a violation without it.
fn breaks(property: &'static str, without: Guard, path: &[&str]) {
    let with = Answers { only: Some(property), ..Answers::default() };

    assert_eq!(shortest_path(with.clone()), None, "with {without}");
    let found = shortest_path(Answers { without: Some(without), ..with });
    assert_eq!(found.unwrap_or_default(), path, "without {without}");
}

#[test]
fn holders_read_before_the_sell_out_lack_the_last_one() {
    let path = [
        "the API reads who holds a coupon",
        "the API reads whether a row is free",
        "account 1 claims",
        "the API reads who holds a coupon",
        "the claim of account 1 is settled and recorded",
        "the API reads whether a row is free",
        "account 1 claims",
    ];
    breaks(HOLDERS_ARE_KNOWN, Guard::HoldersAfterSellOut, &path);
}

#[test]
fn a_lookup_before_the_proof_misses_what_was_issued_in_between() {
    let path = [
        "the API reads whether a row is free",
        "account 1 claims",
        "account 1 asks",
        "the claim of account 1 is settled and recorded",
        "the API reads whether a row is free",
        "the API reads who holds a coupon",
        "the API looks up MySQL and answers",
    ];
    breaks(HOLDERS_ARE_KNOWN, Guard::ProofBeforeLookup, &path);
}

#[test]
fn memory_without_an_age_limit_misses_a_restock() {
    let path = [
        "the API reads whether a row is free",
        "account 1 claims",
        "the claim of account 1 is settled and recorded",
        "the API reads whether a row is free",
        "the API reads who holds a coupon",
        "an operator adds a coupon",
        "1.5 s pass",
        "account 2 claims",
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::AgeLimit, &path);
}

#[test]
fn a_record_that_is_taken_at_its_word_misses_a_restock() {
    let path = [
        "the API reads whether a row is free",
        "account 1 claims",
        "the claim of account 1 is settled and recorded",
        "account 2 claims",
        "the claim of account 2 is settled and recorded",
        "an operator adds a coupon",
        "1.5 s pass",
        "the API reads whether a row is free",
        "account 2 asks",
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::RecordIsAHint, &path);
}

#[test]
fn a_replica_that_lags_behind_misses_a_restock() {
    let path = [
        "the API reads whether a row is free",
        "account 1 claims",
        "the claim of account 1 is settled and recorded",
        "an operator adds a coupon",
        "1.5 s pass",
        "the API reads whether a row is free",
        "the API reads who holds a coupon",
        "account 2 claims",
    ];
    breaks(SOLD_OUT_IS_TRUE, Guard::ReadFromThePrimary, &path);
}
