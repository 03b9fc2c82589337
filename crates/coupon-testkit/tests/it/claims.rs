//! One account and its claim. Goal: the account gets a coupon, and always the same one, whenever and however often it
//! asks.

use std::collections::HashSet;

use coupon_core::{AccountId, CampaignId, Outcome};
use serde_json::json;

use crate::system::System;

each_way![
    a_claim_gets_a_coupon,
    the_answer_is_as_documented,
    many_claims_of_an_account_at_once_get_one_coupon,
    another_instance_gives_the_same_coupon,
    campaigns_do_not_mix,
    the_largest_ids_are_accepted,
];

pub async fn a_claim_gets_a_coupon(system: &System) {
    let campaign = system.space.campaign(3).await;

    let first = system.api.claim(campaign, 42).await;

    assert!(matches!(first, Outcome::Issued { .. }), "{first:?}");
    assert_eq!(system.api.claim(campaign, 42).await, first, "asked again");
    assert_eq!(system.space.issued(campaign).await, 1);
}

pub async fn the_answer_is_as_documented(system: &System) {
    let campaign = system.space.campaign(3).await;

    let answer = system.api.post_claim(campaign, 7).await;
    let outcome = system.api.settled(campaign, 7).await;
    let again = system.api.post_claim(campaign, 7).await;

    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.status, system.lets_in_with());
    if answer.status != 200 {
        assert_eq!(answer.header("location"), "claims/7", "relative, because a gateway may strip a prefix");
    }
    if system.is_queue() {
        assert_eq!(answer.json, json!({"status": "pending"}));
        assert_eq!(again.status, 202);
    } else {
        assert_eq!(answer.outcome(), outcome);
        assert_eq!((again.status, again.outcome()), (200, outcome));
    }
}

pub async fn many_claims_of_an_account_at_once_get_one_coupon(system: &System) {
    let campaign = system.space.campaign(50).await;

    let answers = system.api.claim_all(campaign, (0..60).map(|n| n % 2 + 1)).await;

    let outcomes: HashSet<String> = answers.iter().map(|answer| format!("{answer:?}")).collect();
    assert_eq!(outcomes.len(), 2, "each of the two accounts has one answer: {outcomes:?}");
    assert_eq!(system.space.issued(campaign).await, 2);
}

pub async fn another_instance_gives_the_same_coupon(system: &System) {
    let campaign = system.space.campaign(2).await;
    let other = system.another_api().await;

    let (here, there) = tokio::join!(system.api.claim(campaign, 1), other.claim(campaign, 1));

    assert_eq!(here, there);
    assert_eq!(other.settled(campaign, 1).await, here);
}

pub async fn campaigns_do_not_mix(system: &System) {
    let (one, two) = (system.space.campaign(5).await, system.space.campaign(5).await);

    let (first, second) = tokio::join!(system.api.claim_all(one, 1..=5), system.api.claim_all(two, 1..=5));

    let coupons = |outcomes: Vec<(u64, Outcome)>| outcomes.into_iter().map(|(_, outcome)| format!("{outcome:?}"));
    let different: HashSet<String> = coupons(first).chain(coupons(second)).collect();
    assert_eq!(different.len(), 10, "{different:?}");
    assert_eq!((system.space.issued(one).await, system.space.issued(two).await), (5, 5));
}

pub async fn the_largest_ids_are_accepted(system: &System) {
    let campaign = system.space.campaign(1).await;
    system.space.sql(format!("UPDATE campaign SET id = {}", CampaignId::MAX)).await;
    system.space.sql(format!("UPDATE coupon SET campaign_id = {}", CampaignId::MAX)).await;

    let outcome = system.api.claim(CampaignId::MAX, AccountId::MAX.0).await;

    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
    assert_eq!(system.api.post_claim(campaign, 1).await.status, 404, "the id that the campaign had before");
}
