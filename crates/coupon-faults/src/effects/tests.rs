//! Effects computed from faults and claims written by hand.

use coupon_core::{AccountId, CampaignId, CouponId};
use uuid::Uuid;

use super::*;
use crate::schedule::{Fault, Kind};

fn played(began: u64, healed: u64) -> Played {
    let fault = Fault { at_ms: 0, kind: Kind::KillServer, target: String::from("mysql"), hold_ms: 0, chance: 0 };
    Played { fault, began: began * SECOND, healed: healed * SECOND, error: None }
}

fn claim(account: u64, begun_ms: u64, ended_ms: u64, answer: Answer) -> Operation {
    let claim = ClaimKey { campaign_id: CampaignId(1), account_id: AccountId(account) };
    let (begun, ended) = (begun_ms * 1_000, ended_ms * 1_000);
    Operation { claim, request: Request::Claim, instance: 0, begun, ended, answer }
}

fn issued(account: u64) -> Answer {
    Answer::Issued(CouponId(Uuid::from_u128(account.into())))
}

fn effect(faults: &[Played], operations: &[Operation]) -> Effect {
    effects(faults, operations, &visits(operations), &[]).swap_remove(0)
}

fn broken(faults: &[Played], operations: &[Operation], end: u64) -> Vec<&'static str> {
    let effects = effects(faults, operations, &visits(operations), &[]);
    let checks = liveness(&effects, operations, end * SECOND);
    checks.iter().filter(|check| check.broken > 0).map(|check| check.name).collect()
}

#[test]
fn a_fault_that_touched_no_claim_is_missed() {
    let fault = [played(10, 12)];

    assert!(!effect(&fault, &[claim(1, 9_000, 9_900, issued(1)), claim(2, 12_100, 12_200, issued(2))]).bit);
    assert!(effect(&fault, &[claim(1, 9_900, 10_100, issued(1))]).bit, "it was on its way");
    assert!(!effect(&fault, &[claim(1, 10_100, 10_200, issued(1))]).bit, "it noticed nothing");
    assert!(effect(&fault, &[claim(1, 10_100, 10_900, issued(1))]).bit, "it was held up");
    assert!(effect(&fault, &[claim(1, 10_100, 10_200, Answer::Silence)]).bit, "it had no answer");
}

#[test]
fn a_success_without_an_answer_is_recovered() {
    let mut found = claim(1, 12_100, 12_200, issued(1));
    found.request = Request::Ask;
    let lost = claim(1, 10_100, 11_000, Answer::Silence);

    assert_eq!(effect(&[played(10, 12)], &[lost, found]).recovered, 1);
    assert_eq!(effect(&[played(10, 12)], &[lost, claim(1, 12_100, 12_200, issued(1))]).recovered, 0, "made again");
}

#[test]
fn a_heal_is_over_with_the_first_success() {
    let operations = [claim(1, 12_100, 12_200, Answer::Failed(503)), claim(2, 12_300, 12_500, issued(2))];

    assert_eq!(effect(&[played(10, 12)], &operations).heal, Some(SECOND / 2));
    assert_eq!(effect(&[played(10, 12), played(11, 15)], &operations).heal, None, "another fault is on");
    assert_eq!(broken(&[played(10, 12)], &operations, 20), [""; 0]);
    let late = [claim(2, 17_300, 17_500, issued(2))];
    assert_eq!(broken(&[played(10, 12)], &late, 20), ["first success"]);
}

#[test]
fn an_error_long_after_a_fault_is_found() {
    let success = claim(1, 12_000, 12_100, issued(1));
    let error = |at| broken(&[played(10, 12)], &[success, claim(2, at, at + 100, Answer::Failed(503))], 40);

    assert_eq!(error(21_000), [""; 0]);
    assert_eq!(error(22_100), ["no errors"]);
}

#[test]
fn an_accepted_claim_that_stays_open_is_found() {
    let success = claim(1, 12_000, 12_100, issued(1));
    let open = [success, claim(2, 13_000, 13_100, Answer::Accepted)];

    assert_eq!(broken(&[played(10, 12)], &open, 40), [""; 0], "the run was too short to tell");
    assert_eq!(broken(&[played(10, 12)], &open, 60), ["settled"]);
    let faults = [played(10, 12), played(30, 31)];
    let again = [open.as_slice(), &[claim(3, 31_000, 31_100, issued(3))]].concat();
    assert_eq!(broken(&faults, &again, 60), [""; 0], "a fault was on in between");
}

#[test]
fn the_bound_is_the_known_one() {
    for (bad, of, bound) in [(0, 20, 0.139), (0, 300, 0.00994), (1, 20, 0.216), (20, 20, 1.0), (0, 0, 1.0)] {
        let found = upper_bound(bad, of);
        assert!((found - bound).abs() < 0.001, "{bad} of {of}: {found} instead of {bound}");
    }
}
