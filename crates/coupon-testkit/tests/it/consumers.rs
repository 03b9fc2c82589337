//! Consumers that die or stop at the worst moment. Goal: every accepted claim reaches its outcome, and every coupon can
//! still be issued. Method: row locks and a frozen connection hold a consumer at the point where it is killed.

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Proxy, TestSpace, eventually};

use crate::system::{claims_are_accepted, claims_are_issued, count_coupons, start_consumer, start_producer_api};

audited![
    a_consumer_killed_between_reserving_and_issuing_loses_no_coupon,
    a_consumer_killed_between_reserving_and_issuing_loses_no_coupon_one_by_one,
    a_consumer_killed_between_issuing_and_acknowledging_issues_nothing_twice,
    consumers_that_come_and_go_under_load_lose_nothing,
    a_stop_finishes_the_batch_in_hand,
];

/// The first words of the statement that issues coupons.
const ISSUE: &str = "UPDATE IGNORE (SELECT";

async fn a_consumer_killed_between_reserving_and_issuing_loses_no_coupon(space: &TestSpace) {
    killed_before_issuing(space, "500").await;
}

async fn a_consumer_killed_between_reserving_and_issuing_loses_no_coupon_one_by_one(space: &TestSpace) {
    killed_before_issuing(space, "1").await;
}

async fn killed_before_issuing(space: &TestSpace, batch_max: &str) {
    // There are as many coupons as claims, so a coupon lost with the consumer would be missed.
    let campaign = space.campaign(20).await;
    let api = start_producer_api(space, &[]).await;
    let locks = space.lock_rows(campaign).await;
    claims_are_accepted(&api, campaign, 1..=20).await;
    let consumer = start_consumer(space, &[("batch-max", batch_max)]).await;
    eventually("the UPDATE waits for the locks", async || !space.running(ISSUE).await.is_empty()).await;
    assert!(space.ids_in_redis(campaign).await < 20, "ids were reserved");

    consumer.kill();
    // Its statement ends unfinished, as it does when the server notices that the client is gone.
    for connection in space.running(ISSUE).await {
        space.sql(format!("KILL {connection}")).await;
    }
    eventually("nothing is being issued", async || space.running(ISSUE).await.is_empty()).await;
    locks.disconnect().await.unwrap();
    assert_eq!(space.issued(campaign).await, 0);
    start_consumer(space, &[]).await;

    claims_are_issued(&api, campaign, 1..=20).await;
}

async fn a_consumer_killed_between_issuing_and_acknowledging_issues_nothing_twice(space: &TestSpace) {
    let campaign = space.campaign(30).await;
    let api = start_producer_api(space, &[]).await;
    let proxy = Proxy::start(&space.servers().amqp.amqp_url).await;
    let locks = space.lock_rows(campaign).await;
    claims_are_accepted(&api, campaign, 1..=20).await;
    let consumer = start_consumer(space, &[("amqp-url", proxy.url())]).await;
    eventually("the UPDATE waits for the locks", async || !space.running(ISSUE).await.is_empty()).await;

    // The batch is issued, but its acknowledgement does not get through.
    proxy.freeze();
    locks.disconnect().await.unwrap();
    let mut outcomes = Vec::new();
    for account in 1..=20 {
        outcomes.push(api.settled(campaign, account).await);
    }
    consumer.kill();
    proxy.cut();
    eventually("the claims are back in the queue", async || space.queues.waiting().await == 20).await;
    start_consumer(space, &[]).await;

    // Once a later claim has its outcome, these have been settled a second time.
    assert!(matches!(api.claim(campaign, 21).await, Outcome::Issued { .. }));
    for (account, outcome) in (1..).zip(outcomes) {
        assert_eq!(api.settled(campaign, account).await, outcome, "account {account}");
    }
    assert_eq!(space.issued(campaign).await, 21);
}

async fn consumers_that_come_and_go_under_load_lose_nothing(space: &TestSpace) {
    let campaign = space.campaign(250).await;
    let api = start_producer_api(space, &[]).await;
    let small = [("batch-max", "10"), ("refill-max", "40")];
    let (one, two) = (start_consumer(space, &small).await, start_consumer(space, &small).await);
    let coming_and_going = async {
        wait_until_issued(space, campaign, 30).await;
        one.stop().await;
        wait_until_issued(space, campaign, 60).await;
        let three = start_consumer(space, &small).await;
        two.kill();
        wait_until_issued(space, campaign, 120).await;
        start_consumer(space, &small).await;
        three.stop().await;
    };

    let (outcomes, ()) = tokio::join!(api.claim_all(campaign, 1..=400), coming_and_going);

    assert_eq!(count_coupons(&outcomes), 250);
}

async fn wait_until_issued(space: &TestSpace, campaign: CampaignId, count: u64) {
    eventually("more coupons are issued", async || space.issued(campaign).await >= count).await;
}

/// A consumer that is stopped finishes its batch, then leaves the messages that were prefetched to others.
async fn a_stop_finishes_the_batch_in_hand(space: &TestSpace) {
    let campaign = space.campaign(20).await;
    let api = start_producer_api(space, &[]).await;
    let locks = space.lock_rows(campaign).await;
    claims_are_accepted(&api, campaign, 1..=20).await;
    let consumer = start_consumer(space, &[("batch-max", "5")]).await;
    eventually("the UPDATE waits for the locks", async || !space.running(ISSUE).await.is_empty()).await;

    consumer.ask_to_stop();
    locks.disconnect().await.unwrap();
    consumer.stop().await;

    let issued = space.issued(campaign).await;
    assert!((1..=5).contains(&issued), "{issued} were issued by one batch");
    eventually("the other claims are back in the queue", async || {
        u64::from(space.queues.waiting().await) == 20 - issued
    })
    .await;
    start_consumer(space, &[]).await;
    claims_are_issued(&api, campaign, 1..=20).await;
}
