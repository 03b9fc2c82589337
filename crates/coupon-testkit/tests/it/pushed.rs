//! Outcomes that reach waiting clients as soon as they are known. Goal: an outcome is pushed to the instance that
//! published the claim; any push may be lost, and the outcome still arrives.

use std::time::Duration;

use coupon_core::rabbitmq::message;
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::redis::{Redis, push};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId, InstanceId, Outcome};
use coupon_testkit::{Answer, Proxy, TestSpace, eventually};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::system::{System, claim, start_consumer, start_producer_api};

/// Longer than any of these tests takes.
const WAIT: Duration = Duration::from_secs(30);

both_ways![a_claim_may_wait_for_its_outcome, a_preference_without_a_valid_wait_does_not_wait];

audited![
    an_instance_receives_the_outcomes_of_its_claims,
    an_outdated_sold_out_is_not_passed_on,
    a_consumer_pushes_to_each_instance_the_outcomes_of_its_claims,
    an_outcome_reaches_a_client_of_another_instance,
    an_outcome_that_is_only_recorded_is_found,
    an_outcome_that_redis_never_had_is_found_in_mysql,
    an_outcome_pushed_while_redis_was_away_arrives_once_it_is_back,
    a_subscription_that_has_gone_deaf_is_renewed,
];

/// Only the queue has anything to wait for: skiplock answers with the outcome in any case.
async fn a_claim_may_wait_for_its_outcome(system: &System) {
    let campaign = system.space.campaign(1).await;

    let first = system.api.post_claim_preferring("respond-async, wait=20", campaign, 1).await;
    let again = system.api.post_claim_preferring("wait=20", campaign, 1).await;
    let other = system.api.post_claim_preferring("wait=20", campaign, 2).await;

    assert!(matches!(first.outcome(), Outcome::Issued { .. }), "{first:?}");
    assert_eq!((again.status, again.outcome()), (200, first.outcome()));
    if system.is_queue() {
        assert_eq!((first.status, first.header("preference-applied")), (200, "wait=20"));
        assert_eq!(first.header("cache-control"), "no-store");
    } else {
        assert_eq!((first.status, first.header("preference-applied")), (201, ""));
    }
    // The API may know of the sell-out before it accepts the claim, and then refuses it.
    assert!(other.code() == "sold_out" || other.json == json!({"status": "sold_out"}), "{other:?}");
    assert_eq!(system.api.claim(campaign, 2).await, Outcome::SoldOut);
}

async fn a_preference_without_a_valid_wait_does_not_wait(system: &System) {
    let campaign = system.space.campaign(10).await;

    for (account, prefer) in (1..).zip(["wait=soon", "wait=-1", "wait=0", "respond-async", "return=minimal"]) {
        let answer = system.api.post_claim_preferring(prefer, campaign, account).await;

        assert_eq!(answer.status, system.lets_in_with(), "{prefer}");
        assert_eq!(answer.header("preference-applied"), "", "{prefer}");
        system.api.settled(campaign, account).await;
    }
}

fn key(campaign_id: CampaignId, account: u64) -> ClaimKey {
    ClaimKey { campaign_id, account_id: AccountId(account) }
}

fn issued() -> Outcome {
    Outcome::Issued { coupon_id: CouponId::random() }
}

fn outcomes(space: &TestSpace) -> Outcomes {
    Outcomes::new(redis(space), space.installation().clone())
}

fn redis(space: &TestSpace) -> Redis {
    Redis::new(&space.servers().redis).unwrap()
}

/// Takes the only claim from the queue and returns the instance that published it.
async fn publisher(space: &TestSpace) -> InstanceId {
    eventually("a claim is in the queue", async || space.queues.waiting().await == 1).await;
    let [(properties, body)] = &space.queues.take_claims().await[..] else { panic!("one message") };
    message::decode(properties, body).unwrap().instance.expect("an instance")
}

/// Asks for the outcome of an account's claim, and waits for it.
fn wait(api: &coupon_testkit::Api, campaign: CampaignId, account: u64) -> JoinHandle<Answer> {
    let api = api.clone();
    tokio::spawn(async move { api.get_claim(campaign, account, WAIT).await })
}

/// Nobody but the test knows the coupon, so nothing but the push can report it.
async fn an_instance_receives_the_outcomes_of_its_claims(space: &TestSpace) {
    let api = start_producer_api(space, &[]).await;
    let campaign = space.campaign(1).await;
    let claiming = tokio::spawn({
        let api = api.clone();
        async move { api.post_claim_preferring("wait=30", campaign, 1).await }
    });
    let instance = publisher(space).await;
    let asking = [wait(&api, campaign, 1), wait(&api, campaign, 1)];
    let (outcome, late) = (issued(), issued());

    let channel = push::channel(space.installation(), instance);
    let pushes = [(key(campaign, 1), outcome), (key(campaign, 2), late)];
    redis(space).publish(&channel, &push::encode(&pushes)).await.unwrap();

    assert_eq!(claiming.await.unwrap().outcome(), outcome);
    for asking in asking {
        assert_eq!(asking.await.unwrap().outcome(), outcome);
    }
    let asked_later = api.get_claim(campaign, 2, WAIT).await;
    assert_eq!(asked_later.outcome(), late);
}

/// A consumer that has been stalled since before a restock may push one.
async fn an_outdated_sold_out_is_not_passed_on(space: &TestSpace) {
    let api = start_producer_api(space, &[]).await;
    let campaign = space.campaign(1).await;
    let claiming = tokio::spawn({
        let api = api.clone();
        async move { api.post_claim_preferring("wait=1", campaign, 1).await }
    });
    let instance = publisher(space).await;

    let channel = push::channel(space.installation(), instance);
    let pushed = push::encode(&[(key(campaign, 1), Outcome::SoldOut)]);
    redis(space).publish(&channel, &pushed).await.unwrap();

    let answer = claiming.await.unwrap();
    assert_eq!((answer.status, answer.outcome()), (202, Outcome::Pending));
    assert_eq!(answer.header("preference-applied"), "wait=1");
}

/// A batch may hold claims of several instances, and of producers too old to name their instance.
async fn a_consumer_pushes_to_each_instance_the_outcomes_of_its_claims(space: &TestSpace) {
    let campaign = space.campaign(2).await;
    let instances = [InstanceId::random(), InstanceId::random()];
    let redis = redis(space);
    let mut pushed = Vec::new();
    for instance in instances {
        pushed.push(redis.subscribe(&push::channel(space.installation(), instance)).await.unwrap().boxed());
    }
    for (instance, accounts) in [(instances[0], [1, 2]), (instances[1], [3, 4])] {
        let body = message::encode(&accounts.map(|account| claim(campaign, account))).unwrap();
        let properties = message::properties(space.installation().id, std::iter::empty());
        space.queues.publish(message::published_by(properties, instance), &body).await;
    }
    space.queues.publish_claim(&claim(campaign, 5)).await;

    let _consumer = start_consumer(space, &[]).await;
    let mut received = Vec::new();
    for pushed in &mut pushed {
        received.push(push::decode(&pushed.next().await.expect("a push")));
    }

    let accounts =
        |outcomes: &[(ClaimKey, Outcome)]| outcomes.iter().map(|(key, _)| key.account_id.0).collect::<Vec<_>>();
    assert_eq!((accounts(&received[0]), accounts(&received[1])), (vec![1, 2], vec![3, 4]));
    assert!(received[0].iter().all(|(_, outcome)| matches!(outcome, Outcome::Issued { .. })), "{received:?}");
    assert!(received[1].iter().all(|(_, outcome)| *outcome == Outcome::SoldOut), "{received:?}");
    for (key, outcome) in received.concat() {
        let api = start_producer_api(space, &[]).await;
        assert_eq!(api.settled(campaign, key.account_id.0).await, outcome);
    }
}

async fn an_outcome_reaches_a_client_of_another_instance(space: &TestSpace) {
    let (api, other) = (start_producer_api(space, &[]).await, start_producer_api(space, &[]).await);
    let campaign = space.campaign(1).await;
    api.post_claim(campaign, 1).await;
    let asking = wait(&other, campaign, 1);

    let _consumer = start_consumer(space, &[]).await;

    assert_eq!(asking.await.unwrap().outcome(), other.settled(campaign, 1).await);
}

/// A consumer of the previous version records outcomes but does not push them.
async fn an_outcome_that_is_only_recorded_is_found(space: &TestSpace) {
    let api = start_producer_api(space, &[]).await;
    let campaign = space.campaign(1).await;
    let asking = wait(&api, campaign, 1);
    let outcome = issued();

    outcomes(space).write(&[(key(campaign, 1), outcome)], &[]).await.unwrap();

    assert_eq!(asking.await.unwrap().outcome(), outcome);
}

/// As after a FLUSHALL, or if Redis was away when the consumer settled the claim.
async fn an_outcome_that_redis_never_had_is_found_in_mysql(space: &TestSpace) {
    let api = start_producer_api(space, &[]).await;
    let campaign = space.campaign(1).await;
    let asking = wait(&api, campaign, 1);

    space.sql(format!("UPDATE coupon SET account_id = 1 WHERE campaign_id = {campaign}")).await;

    assert_eq!(asking.await.unwrap().outcome(), api.settled(campaign, 1).await);
}

/// Outcomes that were pushed while the subscription was broken are looked up as soon as it is restored.
async fn an_outcome_pushed_while_redis_was_away_arrives_once_it_is_back(space: &TestSpace) {
    let proxy = Proxy::start(&space.servers_of("producer-api").redis.redis_url).await;
    let api = start_producer_api(space, &[("redis-url", proxy.url())]).await;
    let campaign = space.campaign(1).await;
    let asking = wait(&api, campaign, 1);
    assert_eq!(api.post_claim(campaign, 1).await.status, 202);
    proxy.cut();

    let _consumer = start_consumer(space, &[]).await;
    eventually("the claim is settled", async || space.issued(campaign).await == 1).await;
    proxy.heal();

    assert_eq!(asking.await.unwrap().outcome(), api.settled(campaign, 1).await);
}

/// A name may lead to another Redis while connections to the old one stay up, where nothing is published any more.
async fn a_subscription_that_has_gone_deaf_is_renewed(space: &TestSpace) {
    let proxy = Proxy::start(&space.servers_of("producer-api").redis.redis_url).await;
    let api = start_producer_api(space, &[("redis-url", proxy.url())]).await;
    let campaign = space.campaign(1).await;
    proxy.lead_to(&space.servers().redis.redis_url);
    proxy.freeze_those_before();
    api.post_claim(campaign, 1).await;
    let channel = push::channel(space.installation(), publisher(space).await);

    let outcome = issued();
    let asking = wait(&api, campaign, 1);
    eventually("the instance listens again", async || {
        // A frozen connection delivers nothing, but Redis still counts its subscriber, so the push is repeated until it
        // arrives.
        redis(space).publish(&channel, &push::encode(&[(key(campaign, 1), outcome)])).await.unwrap();
        asking.is_finished()
    })
    .await;

    assert_eq!(asking.await.unwrap().outcome(), outcome);
}
