//! Far more claims than coupons, all at once. Goal: exactly the stock is issued, everyone else is answered "sold
//! out", and nobody gets two answers. Method: many clients at the same time, and the audit.

use coupon_core::Outcome;
use futures_util::future::join_all;

use crate::system::{System, count_coupons};

each_way![
    exactly_the_stock_is_issued,
    instances_share_the_stock,
    many_campaigns_sell_out_at_once,
    an_empty_campaign_is_sold_out,
    one_account_does_not_crowd_out_the_others,
];

pub async fn exactly_the_stock_is_issued(system: &System) {
    let campaign = system.space.campaign(100).await;

    // Every account claims, and every third one again somewhere in the middle of the crowd.
    let outcomes = system.api.claim_all(campaign, (1..=600).chain((1..=600).step_by(3))).await;

    assert_eq!(outcomes.len(), 800);
    assert_eq!(count_coupons(&outcomes), 100);
    assert_eq!(system.space.issued(campaign).await, 100);
}

pub async fn instances_share_the_stock(system: &System) {
    let campaign = system.space.campaign(60).await;
    let other = system.another_api().await;

    let (mut outcomes, there) =
        tokio::join!(system.api.claim_all(campaign, 1..=100), other.claim_all(campaign, 51..=150));
    outcomes.extend(there);

    assert_eq!(count_coupons(&outcomes), 60);
}

async fn many_campaigns_sell_out_at_once(system: &System) {
    let mut campaigns = Vec::new();
    for coupons in 0..20 {
        campaigns.push((system.space.campaign(coupons).await, coupons));
    }

    let crowds = campaigns.iter().map(|(campaign, _)| system.api.claim_all(*campaign, 1..=12));
    let outcomes = join_all(crowds).await;

    for ((campaign, coupons), outcomes) in campaigns.into_iter().zip(outcomes) {
        assert_eq!(count_coupons(&outcomes), coupons.min(12), "{campaign}");
    }
}

async fn an_empty_campaign_is_sold_out(system: &System) {
    let campaign = system.space.campaign(0).await;

    let outcomes = system.api.claim_all(campaign, 1..=20).await;

    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::SoldOut), "{outcomes:?}");
}

pub async fn one_account_does_not_crowd_out_the_others(system: &System) {
    let campaign = system.space.campaign(20).await;
    let api = system.another_api_with(&[("claims-per-account", "2")]).await;

    let greedy = join_all((0..100).map(|_| api.post_claim(campaign, 1))).await;
    let outcomes = api.claim_all(campaign, 2..=10).await;

    let (refused, accepted): (Vec<_>, Vec<_>) = greedy.into_iter().partition(|answer| answer.status == 429);
    assert!(!accepted.is_empty() && accepted.iter().all(|answer| (200..=202).contains(&answer.status)), "{accepted:?}");
    assert!(!refused.is_empty(), "all of a hundred claims at once were accepted");
    for answer in refused {
        assert_eq!(answer.code(), "too_many_claims");
        assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
    }
    assert_eq!(count_coupons(&outcomes), 9);
    assert!(matches!(system.api.settled(campaign, 1).await, Outcome::Issued { .. }));
}
