//! Operators change a campaign while accounts claim from it. Goal: both APIs notice, and nobody loses a coupon or an
//! outcome that was promised. Method: the real command next to the running system.

use std::time::Duration;

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, TestSpace, eventually};

use crate::programs::couponctl;
use crate::system::{System, start_consumer, start_producer_api};

both_ways![
    a_paused_campaign_accepts_no_claims_until_it_is_resumed,
    a_winner_sees_the_coupon_while_the_campaign_is_paused,
    a_closed_campaign_accepts_no_claims,
    a_moved_window_is_noticed,
    after_a_reset_a_claim_gets_a_coupon_that_exists,
];

audited![an_accepted_claim_is_settled_while_the_campaign_is_paused,];

/// Claims for account 1, again and again, until the API answers with this status and code.
async fn until_claims_are_answered(system: &System, campaign: CampaignId, status: u16, code: &str) -> Answer {
    let mut last = None;
    eventually(&format!("claims are answered with {code}"), async || {
        let answer = system.api.post_claim(campaign, 1).await;
        let is_expected = answer.status == status && answer.code() == code;
        last = Some(answer);
        is_expected
    })
    .await;
    last.expect("an answer")
}

async fn a_paused_campaign_accepts_no_claims_until_it_is_resumed(system: &System) {
    let campaign = system.space.campaign(3).await;
    assert!(matches!(system.api.claim(campaign, 1).await, Outcome::Issued { .. }));

    couponctl(&system.space, &format!("campaign pause --id {campaign}")).await;
    until_claims_are_answered(system, campaign, 403, "campaign_paused").await;
    for account in 2..=5 {
        let answer = system.api.post_claim(campaign, account).await;
        assert_eq!((answer.status, answer.code()), (403, "campaign_paused"), "{answer:?}");
    }
    assert_eq!(system.space.issued(campaign).await, 1);

    couponctl(&system.space, &format!("campaign resume --id {campaign}")).await;
    eventually("claims are accepted again", async || system.api.post_claim(campaign, 2).await.status != 403).await;
    assert!(matches!(system.api.settled(campaign, 2).await, Outcome::Issued { .. }));
}

async fn a_winner_sees_the_coupon_while_the_campaign_is_paused(system: &System) {
    let campaign = system.space.campaign(3).await;
    let outcome = system.api.claim(campaign, 1).await;

    couponctl(&system.space, &format!("campaign pause --id {campaign}")).await;
    until_claims_are_answered(system, campaign, 403, "campaign_paused").await;

    let answer = system.api.get_claim(campaign, 1, Duration::from_secs(10)).await;
    assert_eq!((answer.status, answer.outcome()), (200, outcome));
    assert_eq!(system.api.get(&format!("/v1/campaigns/{campaign}")).await.status, 200);
}

async fn a_closed_campaign_accepts_no_claims(system: &System) {
    let campaign = system.space.campaign(3).await;
    let outcome = system.api.claim(campaign, 1).await;

    couponctl(&system.space, &format!("campaign close --id {campaign}")).await;

    until_claims_are_answered(system, campaign, 403, "campaign_closed").await;
    assert_eq!(system.api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), outcome);
}

async fn a_moved_window_is_noticed(system: &System) {
    let opens_at = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    let campaign = system.space.campaign_between(Some(opens_at), None, 3).await;
    until_claims_are_answered(system, campaign, 403, "campaign_not_open").await;

    couponctl(&system.space, &format!("campaign update --id {campaign} --no-opens-at")).await;
    eventually("claims are accepted", async || system.api.post_claim(campaign, 1).await.status != 403).await;
    assert!(matches!(system.api.settled(campaign, 1).await, Outcome::Issued { .. }));

    couponctl(&system.space, &format!("campaign update --id {campaign} --opens-at 2999-01-01T00:00:00Z")).await;
    until_claims_are_answered(system, campaign, 403, "campaign_not_open").await;
}

async fn an_accepted_claim_is_settled_while_the_campaign_is_paused(space: &TestSpace) {
    let campaign = space.campaign(3).await;
    let api = start_producer_api(space, &[]).await;
    assert_eq!(api.post_claim(campaign, 1).await.status, 202);

    couponctl(space, &format!("campaign pause --id {campaign}")).await;
    eventually("the pause is noticed", async || api.post_claim(campaign, 2).await.code() == "campaign_paused").await;
    start_consumer(space, &[]).await;

    assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
}

/// The installation is emptied, and a campaign is created under the same id while the services still remember the old
/// one.
async fn after_a_reset_a_claim_gets_a_coupon_that_exists(system: &System) {
    let (space, api) = (&system.space, &system.api);
    let campaign = space.campaign(3).await;
    let before = api.post_claim_preferring("wait=20", campaign, 1).await.outcome();
    assert!(matches!(before, Outcome::Issued { .. }), "{before:?}");

    couponctl(space, "reset --yes").await;
    couponctl(space, &format!("campaign create --id {campaign} --coupons 3")).await;
    let path = format!("/v1/campaigns/{campaign}");
    eventually("the new campaign is noticed", async || api.get(&path).await.json["free"] == 3).await;
    let after = api.claim(campaign, 1).await;

    assert!(matches!(after, Outcome::Issued { .. }), "{after:?}");
    assert_ne!(after, before);
}
