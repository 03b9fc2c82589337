//! A broker whose queues or policies are not those that the services need, or change while they run. Goal: claims are
//! accepted only if the broker keeps them; whatever would lose them is named in one line, with what to do.

use coupon_core::Outcome;
use coupon_testkit::{Api, Proxy, TestSpace, eventually};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::programs;
use crate::system::{claims_are_issued, start_consumer, start_producer_api};

audited![
    queues_with_other_arguments_are_named_and_not_used,
    a_queue_replaced_under_a_running_producer_gets_no_claims,
    a_producer_does_not_start_under_a_policy_that_would_lose_claims,
    a_policy_set_later_stops_claims_until_it_is_removed,
    a_broker_that_comes_up_late_is_checked_before_it_gets_claims,
    permitted_policies_lose_no_accepted_claim,
    a_broker_whose_policies_cannot_be_read_is_used_with_a_warning,
];

/// The arguments of our queue of claims with these changes; `None` removes an argument.
fn arguments(space: &TestSpace, changes: &[(&str, Option<AMQPValue>)]) -> FieldTable {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(10_000_000));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(100));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(&format!("{}.claims.dead", space.name())));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    let kept =
        arguments.inner().iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != &name.as_str()));
    let kept: Vec<_> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let changes = changes.iter().filter_map(|(name, value)| Some(((*name).into(), value.clone()?)));
    let mut arguments = FieldTable::default();
    for (name, value) in kept.into_iter().chain(changes) {
        arguments.insert(name, value);
    }
    arguments
}

/// The error with which neither service starts.
async fn refused(space: &TestSpace) -> String {
    let settings = space.settings(&[]);
    let producer = producer_api::start(settings, CancellationToken::new()).await;
    let settings = space.settings(&[]);
    let consumer = queue_consumer::start(settings, CancellationToken::new()).await;
    let Err(consumer) = consumer else { panic!("queue-consumer starts; producer-api: {:?}", producer.err()) };
    let Err(producer) = producer else { panic!("producer-api starts; queue-consumer: {consumer}") };
    assert_eq!(producer.to_string(), consumer.to_string());
    producer.to_string()
}

async fn queues_with_other_arguments_are_named_and_not_used(space: &TestSpace) {
    let number = |number| Some(AMQPValue::LongLongInt(number));
    let text = |text: &str| Some(AMQPValue::LongString(text.into()));
    let different = [
        ("x-max-length", arguments(space, &[("x-max-length", number(3))])),
        ("x-single-active-consumer", arguments(space, &[("x-single-active-consumer", Some(AMQPValue::Boolean(true)))])),
        ("x-message-ttl", arguments(space, &[("x-message-ttl", number(1000))])),
        ("x-expires", arguments(space, &[("x-expires", number(600_000))])),
        ("x-delivery-limit", arguments(space, &[("x-delivery-limit", None)])),
        ("x-overflow", arguments(space, &[("x-overflow", None)])),
        (
            "x-dead-letter",
            arguments(
                space,
                &[
                    ("x-dead-letter-exchange", None),
                    ("x-dead-letter-routing-key", None),
                    ("x-dead-letter-strategy", None),
                ],
            ),
        ),
        (
            "x-queue-type",
            arguments(
                space,
                &[("x-queue-type", text("classic")), ("x-delivery-limit", None), ("x-dead-letter-strategy", None)],
            ),
        ),
    ];
    let (name, vhost) = (format!("{}.claims", space.name()), space.servers().amqp.amqp_url.vhost());
    for (differs, arguments) in different {
        space.queues.delete_claims().await;
        space.queues.declare_claims_as(true, arguments).await;

        let refusal = refused(space).await;

        assert!(refusal.contains(differs), "{differs}: {refusal}");
        assert!(refusal.contains(&format!("rabbitmqctl delete_queue -p {vhost} {name}`")), "{refusal}");
    }
    space.queues.delete_claims().await;
    space.queues.declare_claims_as(false, FieldTable::default()).await;
    assert!(refused(space).await.contains("delete_queue"), "a queue that is not durable does not survive a restart");

    space.queues.delete_dead().await;
    space.queues.declare_dead_as(true, FieldTable::default()).await;
    let refusal = refused(space).await;
    assert!(refusal.contains(&format!("delete_queue -p {vhost} {name}`")), "{refusal}");
    assert!(refusal.contains(&format!("delete_queue -p {vhost} {name}.dead`")), "both are named at once: {refusal}");
    space.queues.delete_claims().await;
    assert!(refused(space).await.contains(&format!("delete_queue -p {vhost} {name}.dead`")));
}

/// Waits until a producer-api is not ready, and checks that it accepts no claim.
async fn refuses_claims(api: &Api, campaign: coupon_core::CampaignId) {
    eventually("it is not ready", async || api.get("/readyz").await.status == 503).await;
    let answer = api.post_claim(campaign, 1_000).await;
    assert!(answer.is_unavailable(), "{answer:?}");
}

async fn a_queue_replaced_under_a_running_producer_gets_no_claims(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let api = start_producer_api(space, &[]).await;
    space.queues.replace_claims_as(true, FieldTable::default()).await;

    refuses_claims(&api, campaign).await;

    space.queues.delete_claims().await;
    eventually("claims are accepted", async || api.post_claim(campaign, 2).await.status == 202).await;
    start_consumer(space, &[]).await;
    assert!(matches!(api.settled(campaign, 2).await, Outcome::Issued { .. }));
}

async fn a_producer_does_not_start_under_a_policy_that_would_lose_claims(space: &TestSpace) {
    for policy in [json!({"message-ttl": 60_000}), json!({"expires": 600_000}), json!({"overflow": "drop-head"})] {
        space.queues.set_policy(&policy).await;

        let started = producer_api::start(space.settings(&[]), CancellationToken::new()).await;

        let Err(refusal) = started else { panic!("it starts with {policy}") };
        let refusal = refusal.to_string();
        let key = policy.as_object().unwrap().keys().next().unwrap();
        for word in [key.as_str(), ".claims,", ".claims.dead,", "rabbitmqctl clear_policy", space.queues.policy()] {
            assert!(refusal.contains(word), "{word} is missing: {refusal}");
        }
    }
    // A consumer starts even so: it does no further harm, and claims that already wait need it.
    start_consumer(space, &[]).await;
}

async fn a_policy_set_later_stops_claims_until_it_is_removed(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    start_consumer(space, &[]).await;
    let (producer, api) = programs::producer_with(space, &[]).await;
    api.claim(campaign, 1).await;

    space.queues.set_policy(&json!({"message-ttl": 600_000})).await;
    refuses_claims(&api, campaign).await;
    space.queues.clear_policy().await;

    assert!(matches!(api.claim_patiently(campaign, 2).await, Outcome::Issued { .. }));
    let error = producer.says_once(&["ERROR"]).await;
    assert!(error.contains("message-ttl = 600000"), "{error}");
}

async fn a_broker_that_comes_up_late_is_checked_before_it_gets_claims(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let broker = Proxy::start(&space.servers().amqp.amqp_url).await;
    let management = Proxy::before(space.servers().amqp.amqp_management_url.reveal()).await;
    let through = [("amqp-url", broker.url()), ("amqp-management-url", management.url().trim_end_matches('/'))];
    broker.cut();
    management.cut();
    let (producer, api) = programs::producer_with(space, &through).await;
    space.queues.set_policy(&json!({"message-ttl": 600_000})).await;

    management.heal();
    broker.heal();

    eventually("it says why it accepts no claims", async || {
        let answer = api.post_claim(campaign, 1).await;
        assert!(answer.is_unavailable(), "{answer:?}");
        producer.log().contains("no claims are accepted")
    })
    .await;
    space.queues.clear_policy().await;
    start_consumer(space, &[]).await;
    assert!(matches!(api.claim_patiently(campaign, 1).await, Outcome::Issued { .. }));
}

async fn permitted_policies_lose_no_accepted_claim(space: &TestSpace) {
    let campaign = space.campaign(30).await;
    space.queues.set_policy(&json!({"max-length": 5, "max-length-bytes": 100_000, "overflow": "reject-publish"})).await;
    let own = [("claims-per-message", "1")];
    let api = start_producer_api(space, &own).await;
    let mut accepted = Vec::new();
    for account in 1..=30 {
        let answer = api.post_claim(campaign, account).await;
        if answer.status == 202 {
            accepted.push(account);
        } else {
            assert!(answer.is_unavailable(), "{answer:?}");
        }
    }
    assert!(accepted.len() < 30, "the queue was never full");

    start_consumer(space, &[]).await;

    claims_are_issued(&api, campaign, accepted).await;
}

async fn a_broker_whose_policies_cannot_be_read_is_used_with_a_warning(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    start_consumer(space, &[]).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://secret:word@{closed}");

    let (producer, api) = programs::producer_with(space, &[("amqp-management-url", &url)]).await;

    assert!(matches!(api.claim(campaign, 1).await, Outcome::Issued { .. }));
    producer.says_once(&["policies are not checked"]).await;
    let log = producer.log();
    assert!(!log.contains("word"), "a password leaked: {log}");
}
