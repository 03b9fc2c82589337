//! Shows each checker at work on histories written by hand, both good ones and ones that break a guarantee.

use coupon_core::{AccountId, CampaignId};
use uuid::Uuid;

use super::*;
use crate::rows::Stock;

const CAMPAIGN: u64 = 7;

fn claim(account: u64) -> ClaimKey {
    ClaimKey { campaign_id: CampaignId(CAMPAIGN), account_id: AccountId(account) }
}

fn coupon(number: u128) -> CouponId {
    CouponId(Uuid::from_u128(number))
}

fn seconds(seconds: u64) -> Micros {
    seconds * 1_000_000
}

/// A request of an account at this second, which takes half a second.
fn operation(request: Request, account: u64, at: u64, answer: Answer) -> Operation {
    let begun = seconds(at);
    Operation { claim: claim(account), request, instance: 0, begun, ended: begun + 500_000, answer }
}

/// A campaign with this many coupons, in which these accounts hold the coupons with these numbers.
fn evidence(coupons: u64, held: &[(u64, u128)], operations: &[Operation]) -> Evidence {
    let held: Vec<(ClaimKey, CouponId)> =
        held.iter().map(|&(account, number)| (claim(account), coupon(number))).collect();
    let stock = Stock { coupons, rows: coupons, issued: held.len() as u64 };
    Evidence {
        operations: operations.to_vec(),
        restocks: vec![Restock { campaign: CAMPAIGN, begun: 0, ended: 0, coupons }],
        rows: Rows { held, stocks: BTreeMap::from([(CAMPAIGN, stock)]), wrong: Vec::new() },
    }
}

fn restocked(mut evidence: Evidence, at: u64, coupons: u64) -> Evidence {
    let (begun, ended) = (seconds(at), seconds(at) + 1);
    evidence.restocks.push(Restock { campaign: CAMPAIGN, begun, ended, coupons });
    if let Some(stock) = evidence.rows.stocks.get_mut(&CAMPAIGN) {
        *stock = Stock { coupons: stock.coupons + coupons, rows: stock.rows + coupons, ..*stock };
    }
    evidence
}

/// The names of the checks that find something.
fn broken(evidence: &Evidence) -> Vec<&'static str> {
    all(evidence).iter().filter(|check| check.broken > 0).map(|check| check.name).collect()
}

use Request::{Ask, Claim};

#[test]
fn a_good_history_breaks_nothing() {
    let history = [
        operation(Claim, 1, 1, Answer::Accepted),
        operation(Ask, 1, 2, Answer::Issued(coupon(1))),
        operation(Claim, 1, 3, Answer::Accepted),
        operation(Claim, 2, 4, Answer::Silence),
        operation(Ask, 2, 5, Answer::SoldOut),
    ];

    assert_eq!(broken(&evidence(1, &[(1, 1)], &history)), [""; 0]);
}

#[test]
fn a_coupon_that_was_told_and_is_not_there_is_lost() {
    let told = [operation(Claim, 1, 1, Answer::Issued(coupon(1)))];

    assert_eq!(broken(&evidence(5, &[], &told)), ["lost"]);
    assert_eq!(broken(&evidence(5, &[(1, 2)], &told)), ["lost"]);
}

#[test]
fn an_accepted_claim_without_a_coupon_is_lost_while_some_are_free() {
    let accepted = [operation(Claim, 1, 1, Answer::Accepted)];

    assert_eq!(broken(&evidence(1, &[], &accepted)), ["lost"]);
    assert_eq!(broken(&evidence(0, &[], &accepted)), [""; 0], "none was there");
    assert_eq!(broken(&restocked(evidence(0, &[], &accepted), 9, 1)), [""; 0], "it was added too late");
    assert_eq!(broken(&restocked(evidence(0, &[], &accepted), 0, 1)), ["lost"], "it was added before");
}

#[test]
fn a_claim_without_a_certain_answer_may_have_come_to_anything() {
    let unknown = [operation(Claim, 1, 1, Answer::Failed(503))];

    assert_eq!(broken(&evidence(1, &[], &unknown)), [""; 0]);
    assert_eq!(broken(&evidence(1, &[(1, 1)], &unknown)), [""; 0]);
}

#[test]
fn a_coupon_of_an_account_that_never_claimed_is_unexpected() {
    assert_eq!(broken(&evidence(1, &[(1, 1)], &[])), ["unexpected"]);
    assert_eq!(broken(&evidence(1, &[(1, 1)], &[operation(Ask, 1, 1, Answer::Pending)])), ["unexpected"]);
}

#[test]
fn an_account_with_two_coupons_and_a_coupon_with_two_accounts_are_duplicated() {
    let both = [operation(Claim, 1, 1, Answer::Silence), operation(Claim, 2, 1, Answer::Silence)];

    assert_eq!(broken(&evidence(3, &[(1, 1), (1, 2)], &both)), ["duplicated"]);
    assert_eq!(broken(&evidence(3, &[(1, 1), (2, 1)], &both)), ["duplicated"]);
    let told = [operation(Claim, 1, 1, Answer::Issued(coupon(1))), operation(Claim, 2, 1, Answer::Issued(coupon(1)))];
    assert_eq!(broken(&evidence(1, &[(1, 1)], &told)), ["lost", "duplicated"]);
}

#[test]
fn an_answer_that_changes_is_unstable() {
    let issued = operation(Claim, 1, 1, Answer::Issued(coupon(1)));
    let then = |answer| evidence(1, &[(1, 1)], &[issued, operation(Ask, 1, 3, answer)]);

    assert_eq!(broken(&then(Answer::Issued(coupon(1)))), [""; 0]);
    assert_eq!(broken(&then(Answer::Pending)), ["unstable answer"]);
    assert_eq!(broken(&then(Answer::Failed(503))), [""; 0]);
    assert_eq!(broken(&then(Answer::SoldOut)), ["unstable answer"]);
    assert_eq!(broken(&restocked(then(Answer::SoldOut), 2, 0)), [""; 0], "a restock that an API has not seen");
    assert_eq!(broken(&restocked(then(Answer::SoldOut), 1, 0)), ["unstable answer"], "one that it must have seen");
}

#[test]
fn answers_at_the_same_time_are_not_one_after_the_other() {
    let issued = operation(Claim, 1, 1, Answer::Issued(coupon(1)));
    let mut asked = operation(Ask, 1, 1, Answer::Pending);
    asked.begun += 1;

    assert_eq!(broken(&evidence(1, &[(1, 1)], &[issued, asked])), [""; 0]);
}

#[test]
fn sold_out_holds_until_coupons_are_added() {
    let history = [
        operation(Claim, 2, 1, Answer::Issued(coupon(2))),
        operation(Claim, 1, 3, Answer::SoldOut),
        operation(Claim, 1, 9, Answer::Issued(coupon(1))),
    ];
    let held = [(1, 1), (2, 2)];

    assert_eq!(broken(&evidence(2, &held, &history)), ["unstable answer"]);
    assert_eq!(broken(&restocked(evidence(1, &held, &history), 6, 1)), [""; 0]);
}

#[test]
fn sold_out_with_coupons_left_is_undersold() {
    let told = [operation(Claim, 1, 5, Answer::SoldOut)];

    assert_eq!(broken(&evidence(1, &[], &told)), ["undersold"]);
    assert_eq!(broken(&evidence(0, &[], &told)), [""; 0]);
    assert_eq!(broken(&restocked(evidence(0, &[], &told), 4, 1)), [""; 0], "a second ago");
    assert_eq!(broken(&restocked(evidence(0, &[], &told), 3, 1)), ["undersold"], "two seconds ago");
}

#[test]
fn stock_that_was_not_put_in_or_is_gone_is_found() {
    let mut more = evidence(2, &[], &[]);
    more.rows.stocks.get_mut(&CAMPAIGN).unwrap().rows = 3;
    let mut wrong = evidence(2, &[], &[]);
    wrong.rows.wrong = vec![("coupons without a campaign", 1)];

    assert_eq!(broken(&more), ["stock conserved"]);
    assert_eq!(broken(&wrong), ["stock conserved"]);
}

#[test]
fn a_refusal_and_an_answer_500_are_mistakes() {
    assert_eq!(broken(&evidence(0, &[], &[operation(Claim, 1, 1, Answer::Refused(404))])), ["refused"]);
    assert_eq!(broken(&evidence(0, &[], &[operation(Claim, 1, 1, Answer::Failed(500))])), ["refused"]);
}
