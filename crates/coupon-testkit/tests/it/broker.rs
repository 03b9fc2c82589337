//! A broker that refuses messages, falls silent or is down. Goal: only a claim that the broker has confirmed is
//! answered 202; any other gets 503 with Retry-After, and claims are accepted again as soon as the broker works.
//! Method: a proxy that is cut, frozen and healed, and queues that are full or deleted while in use.

use std::time::Duration;

use coupon_core::Outcome;
use coupon_testkit::{Answer, Proxy, TestSpace, eventually};
use futures_util::future::join_all;
use tokio::net::TcpListener;

use crate::system::{claims_are_issued, count_coupons, start_consumer, start_producer_api};

audited![
    without_a_broker_claims_are_refused,
    a_silent_broker_confirms_nothing,
    a_deleted_queue_refuses_the_claim_and_is_declared_again,
    a_queue_deleted_under_a_consumer_is_declared_again,
    a_deleted_queue_of_dead_letters_is_declared_again,
    connections_cut_under_load_lose_no_accepted_claim,
    a_consumer_that_starts_before_the_broker_waits_for_it,
    claims_that_wait_together_share_messages,
];

/// Not `audited!`, which would declare the queue without its limit before the service does.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_claims_until_there_is_room() {
    coupon_testkit::run(async |space| {
        let campaign = space.campaign(500).await;
        let small = [("queue-max", "1")];
        let api = start_producer_api(&space, &small).await;
        let mut accepted = Vec::new();
        // The broker accepts a few more than the limit before it refuses.
        let refused = loop {
            let account = accepted.len() as u64 + 1;
            assert!(account < 400, "the queue never filled up");
            let answer = api.post_claim(campaign, account).await;
            if answer.status != 202 {
                break answer;
            }
            accepted.push(account);
        };
        assert!(refused.is_unavailable(), "{refused:?}");

        start_consumer(&space, &small).await;

        claims_are_issued(&api, campaign, accepted).await;
        assert!(matches!(api.claim_patiently(campaign, 1_000).await, Outcome::Issued { .. }));
        space.audit().await;
    })
    .await;
}

async fn without_a_broker_claims_are_refused(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("amqp://guest:guest@{closed}/%2f");
    let api = start_producer_api(space, &[("amqp-url", &url), ("amqp-deadline", "1s")]).await;

    for account in 1..=3 {
        let answer = api.post_claim(campaign, account).await;
        assert!(answer.is_unavailable(), "{answer:?}");
    }
    let ready = api.get("/readyz").await;
    assert_eq!((ready.status, &ready.json["servers"]["rabbitmq"]), (503, &"down".into()));
    assert_eq!(ready.json["servers"]["mysql"], "up");
    assert_eq!(api.get("/livez").await.status, 200, "a restart would not help");
    let campaign = api.get(&format!("/v1/campaigns/{campaign}")).await;
    assert_eq!(campaign.status, 200, "a request that needs no broker is answered");
}

async fn a_silent_broker_confirms_nothing(space: &TestSpace) {
    let campaign = space.campaign(50).await;
    let proxy = Proxy::start(&space.servers().amqp.amqp_url).await;
    let api = start_producer_api(space, &[("amqp-url", proxy.url()), ("amqp-deadline", "500ms")]).await;
    assert_eq!(api.post_claim(campaign, 1).await.status, 202);

    proxy.freeze();
    let answers = join_all((2..=10).map(|account| api.post_claim(campaign, account))).await;
    proxy.heal();

    assert!(answers.iter().all(Answer::is_unavailable), "accepted without a confirm: {answers:?}");
    start_consumer(space, &[]).await;
    let outcomes = api.claim_all_patiently(campaign, 1..=60).await;
    assert_eq!(count_coupons(&outcomes), 50);
}

async fn a_deleted_queue_refuses_the_claim_and_is_declared_again(space: &TestSpace) {
    let campaign = space.campaign(50).await;
    let api = start_producer_api(space, &[]).await;
    let consumer = start_consumer(space, &[]).await;
    api.claim(campaign, 1).await;
    consumer.stop().await;
    space.queues.delete_claims().await;

    let answer = api.post_claim(campaign, 2).await;
    assert!(answer.is_unavailable(), "the claim reached no queue: {answer:?}");
    let again = async || api.post_claim(campaign, 3).await.status == 202;
    eventually("a claim is accepted", again).await;

    start_consumer(space, &[]).await;
    assert!(matches!(api.settled(campaign, 3).await, Outcome::Issued { .. }));
    assert!(matches!(api.claim(campaign, 2).await, Outcome::Issued { .. }));
}

async fn a_queue_deleted_under_a_consumer_is_declared_again(space: &TestSpace) {
    let campaign = space.campaign(50).await;
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    api.claim(campaign, 1).await;

    space.queues.delete_claims().await;

    // The claims in the queue are lost with it, and the broker may lose more while the queue is being declared again.
    // The only promise left is that claiming again helps.
    join_all((2..=20).map(async |account| {
        let again = async || {
            api.post_claim(campaign, account).await;
            let answer = api.get_claim(campaign, account, Duration::from_millis(500)).await;
            answer.status == 200 && matches!(answer.outcome(), Outcome::Issued { .. })
        };
        eventually("an account that claims again gets its coupon", again).await;
    }))
    .await;
    assert_eq!(space.issued(campaign).await, 20);
}

async fn a_deleted_queue_of_dead_letters_is_declared_again(space: &TestSpace) {
    start_producer_api(space, &[]).await;
    space.queues.delete_dead().await;
    eventually("the queue exists again", async || space.queues.keeps_dead_letters().await).await;

    start_consumer(space, &[]).await;
    space.queues.publish(lapin::BasicProperties::default(), b"poison").await;
    eventually("a dead letter is kept", async || space.queues.dead_letters().await == 1).await;
    // The audit would report it.
    space.queues.take_dead_letters().await;
}

async fn connections_cut_under_load_lose_no_accepted_claim(space: &TestSpace) {
    let campaign = space.campaign(200).await;
    let (producers, consumers) =
        tokio::join!(Proxy::start(&space.servers().amqp.amqp_url), Proxy::start(&space.servers().amqp.amqp_url));
    let api = start_producer_api(space, &[("amqp-url", producers.url())]).await;
    for _ in 0..2 {
        start_consumer(space, &[("amqp-url", consumers.url()), ("batch-max", "10")]).await;
    }
    let cutting = async {
        for (issued, proxy) in [(20, &producers), (50, &consumers), (90, &producers), (130, &consumers)] {
            eventually("more coupons are issued", async || space.issued(campaign).await >= issued).await;
            proxy.cut();
            proxy.heal();
        }
    };

    let (outcomes, ()) = tokio::join!(api.claim_all_patiently(campaign, 1..=300), cutting);

    assert_eq!(count_coupons(&outcomes), 200);
}

async fn a_consumer_that_starts_before_the_broker_waits_for_it(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let proxy = Proxy::start(&space.servers().amqp.amqp_url).await;
    proxy.cut();
    let consumer = start_consumer(space, &[("amqp-url", proxy.url())]).await;
    let ready = space.api(consumer.address()).get("/readyz").await;
    assert_eq!((ready.status, &ready.json["servers"]["rabbitmq"]), (503, &"down".into()));

    proxy.heal();

    let api = start_producer_api(space, &[]).await;
    assert!(matches!(api.claim(campaign, 1).await, Outcome::Issued { .. }));
}

async fn claims_that_wait_together_share_messages(space: &TestSpace) {
    let campaign = space.campaign(400).await;
    for (claims_per_message, accounts) in [("1", 1..=200_u64), ("100", 201..=400)] {
        let before = space.queues.waiting().await;
        let api = start_producer_api(space, &[("claims-per-message", claims_per_message)]).await;

        let answers = join_all(accounts.map(|account| api.post_claim(campaign, account))).await;

        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        let messages = async || space.queues.waiting().await - before;
        if claims_per_message == "1" {
            eventually("each claim is a message of its own", async || messages().await == 200).await;
        } else {
            assert!(messages().await < 200, "{} messages for 200 claims", messages().await);
        }
    }
    start_consumer(space, &[]).await;
    let api = start_producer_api(space, &[]).await;
    claims_are_issued(&api, campaign, 1..=400).await;
}
