//! What operators do to a campaign while it runs. Goal: both APIs see it within about a second, and nobody loses what
//! was promised. Method: the real command next to the running system.

use std::time::Duration;

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, TestSpace, eventually};

use crate::programs::couponctl;
use crate::system::{System, start_consumer, start_producer_api};

each_way![
    a_paused_campaign_takes_no_claims_until_it_is_resumed,
    a_winner_sees_the_coupon_while_the_campaign_is_paused,
    a_campaign_that_was_closed_takes_no_claims,
    a_window_that_was_moved_is_seen,
];

both_ways![after_a_reset_a_claim_gets_a_coupon_that_is_there];

audited![a_claim_that_was_accepted_is_settled_while_the_campaign_is_paused,];

/// Claims for one account after another until the API answers as wanted.
async fn until_claims_are_answered(system: &System, campaign: CampaignId, status: u16, code: &str) -> Answer {
    let mut last = None;
    eventually(code, async || {
        let answer = system.api.post_claim(campaign, 1).await;
        let is_wanted = answer.status == status && answer.code() == code;
        last = Some(answer);
        is_wanted
    })
    .await;
    last.expect("an answer")
}

async fn a_paused_campaign_takes_no_claims_until_it_is_resumed(system: &System) {
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
    eventually("claims are taken again", async || system.api.post_claim(campaign, 2).await.status != 403).await;
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

async fn a_campaign_that_was_closed_takes_no_claims(system: &System) {
    let campaign = system.space.campaign(3).await;
    let outcome = system.api.claim(campaign, 1).await;

    couponctl(&system.space, &format!("campaign close --id {campaign}")).await;

    until_claims_are_answered(system, campaign, 403, "campaign_closed").await;
    assert_eq!(system.api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), outcome);
}

async fn a_window_that_was_moved_is_seen(system: &System) {
    let opens_at = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    let campaign = system.space.campaign_between(Some(opens_at), None, 3).await;
    until_claims_are_answered(system, campaign, 403, "campaign_not_open").await;

    couponctl(&system.space, &format!("campaign update --id {campaign} --no-opens-at")).await;
    eventually("claims are taken", async || system.api.post_claim(campaign, 1).await.status != 403).await;
    assert!(matches!(system.api.settled(campaign, 1).await, Outcome::Issued { .. }));

    couponctl(&system.space, &format!("campaign update --id {campaign} --opens-at 2999-01-01T00:00:00Z")).await;
    until_claims_are_answered(system, campaign, 403, "campaign_not_open").await;
}

async fn a_claim_that_was_accepted_is_settled_while_the_campaign_is_paused(space: &TestSpace) {
    let campaign = space.campaign(3).await;
    let api = start_producer_api(space, &[]).await;
    assert_eq!(api.post_claim(campaign, 1).await.status, 202);

    couponctl(space, &format!("campaign pause --id {campaign}")).await;
    eventually("it is seen", async || api.post_claim(campaign, 2).await.code() == "campaign_paused").await;
    start_consumer(space, &[]).await;

    assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
}

/// An installation is emptied, and the same campaign made anew: what the services remember is of the one before.
async fn after_a_reset_a_claim_gets_a_coupon_that_is_there(system: &System) {
    let (space, api) = (&system.space, &system.api);
    let campaign = space.campaign(3).await;
    let before = api.post_claim_preferring("wait=20", campaign, 1).await.outcome();
    assert!(matches!(before, Outcome::Issued { .. }), "{before:?}");

    couponctl(space, "reset --yes").await;
    couponctl(space, &format!("campaign create --id {campaign} --coupons 3")).await;
    let path = format!("/v1/campaigns/{campaign}");
    eventually("the new one is seen", async || api.get(&path).await.json["free"] == 3).await;
    let after = api.claim(campaign, 1).await;

    assert!(matches!(after, Outcome::Issued { .. }), "{after:?}");
    assert_ne!(after, before);
}
