//! The window of a campaign. Goal: nobody gets a coupon outside it, and a claim that is refused leaves nothing behind.

use coupon_core::{CampaignId, Outcome};
use time::{Duration, OffsetDateTime};

use crate::system::System;

both_ways![
    before_it_opens_claims_are_refused,
    after_it_has_closed_claims_are_refused,
    while_it_is_open_claims_are_accepted,
    an_unknown_campaign_is_not_found,
    a_campaign_that_is_created_later_is_found,
];

async fn before_it_opens_claims_are_refused(system: &System) {
    let opens_at = OffsetDateTime::now_utc() + Duration::HOUR;
    let campaign = system.space.campaign_between(Some(opens_at), None, 3).await;

    refused(system, campaign, "campaign_not_open").await;
}

async fn after_it_has_closed_claims_are_refused(system: &System) {
    let now = OffsetDateTime::now_utc();
    let campaign = system.space.campaign_between(Some(now - Duration::HOUR), Some(now - Duration::SECOND), 3).await;

    refused(system, campaign, "campaign_closed").await;
}

async fn refused(system: &System, campaign: CampaignId, code: &str) {
    for account in 1..=5 {
        let answer = system.api.post_claim(campaign, account).await;
        assert_eq!((answer.status, answer.code()), (403, code), "{answer:?}");
    }
    assert_eq!(system.space.issued(campaign).await, 0);
    assert_eq!(system.space.queues.waiting().await, 0, "nothing was put into the queue");
}

async fn while_it_is_open_claims_are_accepted(system: &System) {
    let now = OffsetDateTime::now_utc();
    let window = (Some(now - Duration::HOUR), Some(now + Duration::HOUR));
    let campaign = system.space.campaign_between(window.0, window.1, 1).await;

    let outcome = system.api.claim(campaign, 1).await;

    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
}

async fn an_unknown_campaign_is_not_found(system: &System) {
    for answer in [
        system.api.post_claim(CampaignId(404), 1).await,
        system.api.get("/v1/campaigns/404").await,
        system.api.get("/v1/campaigns/404/claims/1?wait=30s").await,
    ] {
        assert_eq!((answer.status, answer.code()), (404, "campaign_not_found"), "{answer:?}");
        assert_eq!(answer.json["field"], "campaign_id");
    }
}

async fn a_campaign_that_is_created_later_is_found(system: &System) {
    assert_eq!(system.api.get("/v1/campaigns/1").await.status, 404);

    let campaign = system.space.campaign(1).await;

    let found = async || system.api.get(&format!("/v1/campaigns/{campaign}")).await.status == 200;
    coupon_testkit::eventually("the campaign is found", found).await;
    assert!(matches!(system.api.claim(campaign, 1).await, Outcome::Issued { .. }));
}
