//! Both approaches serve one campaign at the same time, as while an installation switches from one to the other. Goal:
//! together they keep every promise that each keeps alone. Method: one campaign, both APIs, and the audit.

use coupon_core::Outcome;
use coupon_testkit::{Collector, TestSpace, eventually};

use crate::programs::{consumer, producer, traced};
use crate::system::{count_coupons, start_consumer, start_producer_api, start_skiplock};
use crate::traces::{one, outcome, post, process, trace_id};

audited![both_approaches_share_one_campaign, one_batch_gets_past_ids_that_skiplock_has_issued];

async fn both_approaches_share_one_campaign(space: &TestSpace) {
    let campaign = space.campaign(60).await;
    let queue = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    start_consumer(space, &[]).await;
    let skiplock = space.api(start_skiplock(space, &[]).await.address());

    // Some accounts claim at both.
    let (mut outcomes, with_skiplock) =
        tokio::join!(queue.claim_all(campaign, 1..=60), skiplock.claim_all(campaign, 41..=100));
    outcomes.extend(with_skiplock);
    assert_eq!(count_coupons(&outcomes), 60);

    space.restock(campaign, 40).await;
    for api in [&queue, &skiplock] {
        let path = format!("/v1/campaigns/{campaign}");
        eventually("the restock is seen", async || api.get(&path).await.json["total"] == 100).await;
    }
    let (again, with_skiplock) =
        tokio::join!(queue.claim_all(campaign, 81..=140), skiplock.claim_all(campaign, 121..=200));

    outcomes.retain(|(_, outcome)| *outcome != Outcome::SoldOut);
    outcomes.extend(again.into_iter().chain(with_skiplock));
    assert_eq!(count_coupons(&outcomes), 100);
    assert_eq!(space.issued(campaign).await, 100);
}

async fn one_batch_gets_past_ids_that_skiplock_has_issued(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(300).await;
    let (_producer, queue) = producer(space, &traced(&collector)).await;
    let _consumer = consumer(space, &traced(&collector)).await;
    // For this claim, the consumer puts the ids of all other coupons into Redis as well.
    queue.claim(campaign, 1).await;
    let skiplock = space.api(start_skiplock(space, &[]).await.address());
    skiplock.claim_all(campaign, 2..=200).await;

    post(&queue, campaign, 201, &trace_id(1), "01").await;

    assert!(matches!(outcome(&queue, campaign, 201).await, Outcome::Issued { .. }));
    let process = process(space);
    let trace = collector.trace_with(&trace_id(1), &process).await;
    one(&trace, &process);
    let tries = trace.iter().filter(|span| span.name == "persist").count();
    assert!(tries <= 3, "{tries} UPDATEs for one claim: {trace:#?}");
}
