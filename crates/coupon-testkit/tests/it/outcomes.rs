//! Clients ask for the outcome of a claim, and for the state of a campaign. Goal: every answer is true, and a client
//! that waits gets it as soon as it is known.

use std::time::Duration;

use coupon_core::Outcome;
use coupon_testkit::eventually;
use serde_json::json;
use time::macros::datetime;

use crate::system::System;

each_way![
    a_claim_that_was_never_made_is_pending,
    a_waiting_client_is_answered_when_the_coupon_is_issued,
    many_waiting_clients_are_answered,
    every_instance_says_sold_out_once_one_has_said_it,
    a_campaign_shows_its_window_and_counts,
];

both_ways![a_client_that_waits_learns_that_the_campaign_was_deleted];

pub async fn a_claim_that_was_never_made_is_pending(system: &System) {
    let campaign = system.space.campaign(1).await;

    for wait in [Duration::ZERO, Duration::from_millis(50)] {
        let answer = system.api.get_claim(campaign, 1, wait).await;
        assert_eq!((answer.status, answer.json), (200, json!({"status": "pending"})));
    }
}

async fn a_client_that_waits_learns_that_the_campaign_was_deleted(system: &System) {
    let campaign = system.space.campaign(1).await;
    assert_eq!(system.api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), Outcome::Pending);
    let waiting = tokio::spawn({
        let api = system.api.clone();
        async move { api.get_claim(campaign, 1, Duration::from_secs(3)).await }
    });
    system.space.sql("DELETE FROM coupon").await;
    system.space.sql("DELETE FROM campaign").await;

    let answer = waiting.await.unwrap();

    assert_eq!((answer.status, answer.json["code"].as_str()), (404, Some("campaign_not_found")));
}

async fn a_waiting_client_is_answered_when_the_coupon_is_issued(system: &System) {
    let campaign = system.space.campaign(1).await;
    let other = system.another_api().await;
    let waiting = tokio::spawn({
        let api = system.api.clone();
        async move { api.get_claim(campaign, 5, Duration::from_secs(30)).await }
    });

    let issued = other.claim(campaign, 5).await;

    assert_eq!(waiting.await.unwrap().outcome(), issued);
}

pub async fn many_waiting_clients_are_answered(system: &System) {
    let campaign = system.space.campaign(20).await;
    let waiting: Vec<_> = (1..=40)
        .map(|account| {
            let api = system.api.clone();
            tokio::spawn(async move { (account, api.get_claim(campaign, account, Duration::from_secs(30)).await) })
        })
        .collect();

    let issued = system.api.claim_all(campaign, 1..=20).await;

    for waiting in waiting {
        let (account, answer) = waiting.await.unwrap();
        let issued = issued.iter().find(|(claimed, _)| *claimed == account).map(|(_, outcome)| *outcome);
        // Those who did not claim learn that the campaign is sold out.
        assert_eq!(answer.outcome(), issued.unwrap_or(Outcome::SoldOut), "account {account}");
    }
}

/// Without waiting until each has read again which campaigns are sold out, and although the records are lost.
async fn every_instance_says_sold_out_once_one_has_said_it(system: &System) {
    let campaign = system.space.campaign(1).await;
    let other = system.another_api().await;
    assert_eq!(other.get_claim(campaign, 2, Duration::ZERO).await.outcome(), Outcome::Pending);
    system.api.claim(campaign, 1).await;
    assert_eq!(system.api.claim(campaign, 2).await, Outcome::SoldOut);
    system.space.empty_redis().await;

    let at_the_other = other.get_claim(campaign, 2, Duration::ZERO).await;

    assert_eq!(at_the_other.outcome(), Outcome::SoldOut);
}

async fn a_campaign_shows_its_window_and_counts(system: &System) {
    let (opens_at, closes_at) = (datetime!(2020-01-01 12:00 UTC), datetime!(2120-01-01 12:00:00.5 UTC));
    let campaign = system.space.campaign_between(Some(opens_at), Some(closes_at), 10).await;
    let path = format!("/v1/campaigns/{campaign}");
    let at_first = system.api.get(&path).await;
    system.api.claim_all(campaign, 1..=4).await;

    assert_eq!(
        (at_first.status, at_first.json),
        (
            200,
            json!({
                "id": campaign, "name": format!("campaign {campaign}"), "paused": false, "total": 10, "issued": 0, "free": 10,
                "opens_at": "2020-01-01T12:00:00Z", "closes_at": "2120-01-01T12:00:00.5Z",
            })
        )
    );
    let counts = async || {
        let answer = system.api.get(&path).await;
        (answer.json["issued"].as_u64(), answer.json["free"].as_u64())
    };
    eventually("four are counted", async || counts().await == (Some(4), Some(6))).await;
    system.space.restock(campaign, 5).await;
    eventually("the restock is counted", async || {
        let (issued, free) = counts().await;
        assert_eq!(issued, Some(4), "coupons that were added are not issued");
        free == Some(11)
    })
    .await;
    system.api.claim_all(campaign, 5..=17).await;
    eventually("all are counted", async || counts().await == (Some(15), Some(0))).await;
}
