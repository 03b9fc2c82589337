//! After the last coupon. Goal: winners keep getting theirs, losers are answered at once, and a restock is seen.

use std::time::Duration;

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::eventually;

use crate::system::{System, count_coupons};

each_way![
    a_winner_who_asks_again_gets_the_coupon,
    a_loser_is_answered_at_once,
    a_restock_is_seen,
    no_claim_reaches_mysql_once_the_sell_out_is_known,
];

pub async fn a_winner_who_asks_again_gets_the_coupon(system: &System) {
    let campaign = system.space.campaign(20).await;
    let outcomes = system.api.claim_all(campaign, 1..=60).await;
    until_known_to_be_sold_out(system, campaign).await;

    for (account, outcome) in outcomes {
        assert_eq!(system.api.claim(campaign, account).await, outcome, "account {account} asked again");
        let answer = system.api.post_claim(campaign, account).await;
        assert_eq!(answer.status, if outcome == Outcome::SoldOut { 409 } else { 200 }, "{answer:?}");
    }
}

pub async fn a_loser_is_answered_at_once(system: &System) {
    let campaign = system.space.campaign(1).await;
    system.api.claim(campaign, 1).await;
    until_known_to_be_sold_out(system, campaign).await;

    let post = system.api.post_claim(campaign, 2).await;
    let get = system.api.get_claim(campaign, 2, Duration::ZERO).await;

    assert_eq!((post.status, post.code()), (409, "sold_out"));
    assert_eq!((get.status, get.outcome()), (200, Outcome::SoldOut));
}

async fn a_restock_is_seen(system: &System) {
    let campaign = system.space.campaign(5).await;
    let before = system.api.claim_all(campaign, 1..=10).await;
    until_known_to_be_sold_out(system, campaign).await;

    system.space.restock(campaign, 3).await;

    eventually("the restock is seen", async || !is_known_to_be_sold_out(system, campaign).await).await;
    let losers = before.iter().filter(|(_, outcome)| *outcome == Outcome::SoldOut).map(|(account, _)| *account);
    let after = losers_until_sold_out(system, campaign, losers).await;
    assert_eq!(count_coupons(&after), 3);
    assert_eq!(system.space.issued(campaign).await, 8);
}

/// The consumers' own proof of "sold out" may be half a second older than the API's, so the first loser asks until it
/// has a coupon; then all of them claim.
async fn losers_until_sold_out(
    system: &System,
    campaign: CampaignId,
    losers: impl Iterator<Item = u64>,
) -> Vec<(u64, Outcome)> {
    let losers: Vec<u64> = losers.collect();
    let first = losers[0];
    eventually("a loser gets a coupon", async || {
        let answer = system.api.post_claim(campaign, first).await;
        if answer.status == 202 {
            let answer = system.api.get_claim(campaign, first, Duration::from_secs(10)).await;
            return matches!(answer.outcome(), Outcome::Issued { .. });
        }
        matches!(answer.status, 200 | 201)
    })
    .await;
    system.api.claim_all(campaign, losers).await
}

async fn no_claim_reaches_mysql_once_the_sell_out_is_known(system: &System) {
    let campaign = system.space.campaign(1).await;
    system.api.claim(campaign, 1).await;
    until_known_to_be_sold_out(system, campaign).await;

    // With the tables locked, an answer that needs them would not come. What the API remembers may be too old at first.
    eventually("a claim is answered from memory", async || {
        let locks = system.space.lock_tables().await;
        let answer = system.api.post_claim(campaign, 2).await;
        locks.disconnect().await.unwrap();
        (answer.status, answer.code()) == (409, "sold_out")
    })
    .await;
}

async fn is_known_to_be_sold_out(system: &System, campaign: CampaignId) -> bool {
    // No test claims for this account, so its outcome is either pending or sold out.
    system.api.get_claim(campaign, 999_999_999, Duration::ZERO).await.outcome() == Outcome::SoldOut
}

async fn until_known_to_be_sold_out(system: &System, campaign: CampaignId) {
    eventually("the API knows of the sell-out", async || is_known_to_be_sold_out(system, campaign).await).await;
}
