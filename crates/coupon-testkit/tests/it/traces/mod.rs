//! One claim, one trace. Goal: a trace id leads to the claim's whole story, and tracing never costs a claim.
//! Method: the services as programs, configured by `OTEL_*` alone, and a real OTLP receiver in this process.

mod bench;
mod export;

use coupon_core::rabbitmq::message;
use coupon_core::{CampaignId, Outcome};
use coupon_otlp::trace::span::SpanKind;
use coupon_testkit::{Answer, Api, Collector, Span, TestSpace, eventually};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use reqwest::Method;

use crate::programs::{consumer, producer, skiplock, traced};
use crate::system::claim;

audited![
    a_claim_with_the_queue_is_one_trace_from_the_request_to_the_acknowledgement,
    a_claim_with_skiplock_is_one_trace_from_the_request_to_the_statements,
    a_repeated_claim_is_linked_to_the_first,
    a_claim_that_its_caller_does_not_sample_has_an_id_and_no_spans,
    each_sampled_claim_records_its_batch,
    a_redelivered_claim_is_marked_in_the_same_trace,
    sold_out_is_no_error_and_unavailable_is_one,
];

const CALLER: &str = "00f067aa0ba902b7";
const POST: &str = "POST /v1/campaigns/{campaign_id}/claims";

/// The id of the n-th trace of a test.
pub fn trace_id(n: u64) -> String {
    format!("4bf92f3577b34da6{n:016x}")
}

/// Sends a claim as part of a trace, which the caller samples or not, by these flags.
pub async fn post(api: &Api, campaign: CampaignId, account: u64, trace_id: &str, flags: &str) -> Answer {
    let request = api.request(Method::POST, &format!("/v1/campaigns/{campaign}/claims"));
    let request = request
        .header("content-type", "application/json")
        .header("traceparent", format!("00-{trace_id}-{CALLER}-{flags}"))
        .body(format!("{{\"account_id\": {account}}}"));
    api.send(request).await
}

/// Waits for the outcome of a claim.
pub async fn outcome(api: &Api, campaign: CampaignId, account: u64) -> Outcome {
    api.get(&format!("/v1/campaigns/{campaign}/claims/{account}?wait=30s")).await.outcome()
}

/// The only span of this name.
pub fn one<'a>(trace: &'a [Span], name: &str) -> &'a Span {
    let named: Vec<&Span> = trace.iter().filter(|span| span.name == name).collect();
    assert_eq!(named.len(), 1, "one '{name}' in {trace:#?}");
    named[0]
}

fn is_within(inner: &Span, outer: &Span) -> bool {
    outer.time.0 <= inner.time.0 && inner.time.1 <= outer.time.1
}

/// The name of the span in which a consumer processes a claim.
pub fn process(space: &TestSpace) -> String {
    format!("process {}.claims", space.name())
}

async fn a_claim_with_the_queue_is_one_trace_from_the_request_to_the_acknowledgement(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(10).await;
    let (_producer, api) = producer(space, &traced(&collector)).await;
    let _consumer = consumer(space, &traced(&collector)).await;

    let answer = post(&api, campaign, 42, &trace_id(1), "01").await;

    assert_eq!(answer.status, 202, "{answer:?}");
    assert!(matches!(outcome(&api, campaign, 42).await, Outcome::Issued { .. }));
    let process = process(space);
    collector.trace_with(&trace_id(1), &process).await;
    let trace = collector.trace_with(&trace_id(1), POST).await;
    let server = one(&trace, POST);
    let publish = one(&trace, &format!("publish {}.claims", space.name()));
    let process = one(&trace, &process);
    assert_eq!(answer.header("traceparent"), format!("00-{}-{}-01", trace_id(1), server.id));
    for (span, service, kind, parent) in [
        (server, "producer-api", SpanKind::Server, CALLER),
        (publish, "producer-api", SpanKind::Producer, &server.id),
        (process, "queue-consumer", SpanKind::Consumer, &publish.id),
    ] {
        assert_eq!((span.service.as_str(), span.kind, span.parent_id.as_str()), (service, kind, parent), "{span:?}");
    }
    assert_eq!(server.attribute("http.response.status_code"), "202");
    assert_eq!(server.attribute("http.route"), "/v1/campaigns/{campaign_id}/claims");
    assert_eq!(publish.attribute("messaging.system"), "rabbitmq");
    assert_eq!(publish.attribute("messaging.destination.name"), format!("{}.claims", space.name()));
    assert!(is_within(publish, server));
    assert_eq!(process.attribute("coupon.batch.size"), "1");
    assert_eq!(process.attribute("coupon.outcome"), "issued");
    assert_eq!(process.attribute("coupon.redelivered"), "false");
    assert!(process.attribute("coupon.queue.time").parse::<f64>().unwrap() < 60.0);

    for (name, system) in [("refill", "mysql"), ("persist", "mysql"), ("record", "redis"), ("refill lock", "redis")] {
        let step = one(&trace, name);
        assert_eq!((step.parent_id.as_str(), step.kind), (process.id.as_str(), SpanKind::Client), "{step:?}");
        assert_eq!(step.attribute("db.system.name"), system);
        assert!(is_within(step, process), "{step:?} within {process:?}");
    }
    // The consumer reserves once from the empty list, and once after the refill.
    assert_eq!(trace.iter().filter(|span| span.name == "reserve").count(), 2);
    assert!(one(&trace, "persist").attribute("db.query.text").contains("(?) AS wanted"));
    assert_eq!(one(&trace, "ack").attribute("messaging.operation.type"), "settle");

    // The batch has a trace of its own, linked both ways.
    let (batch_trace, batch) = process.links[0].clone();
    let batch_name = format!("process batch {}.claims", space.name());
    let batch_spans = collector.trace_with(&batch_trace, &batch_name).await;
    let batch_span = one(&batch_spans, &batch_name);
    assert_eq!((batch_span.id.clone(), batch_span.parent_id.as_str()), (batch, ""));
    assert_eq!(batch_span.links, [(trace_id(1), process.id.clone())]);
    for name in ["refill lock", "refill", "persist", "record", "ack"] {
        assert_eq!(one(&batch_spans, name).parent_id, batch_span.id);
        assert_eq!(one(&batch_spans, name).time, one(&trace, name).time, "the times are those of the batch");
    }
    for span in trace.iter().chain(&batch_spans) {
        assert!(span.attributes.values().all(|value| value != "42"), "no account in {span:?}");
        assert!(!span.is_error, "{span:?}");
    }
}

async fn a_claim_with_skiplock_is_one_trace_from_the_request_to_the_statements(space: &TestSpace) {
    let campaign = space.campaign(10).await;
    // The SELECT reads ids ahead, for this claim and later ones.
    let ahead = &["wait for connection", "SELECT coupon", "UPDATE coupon"][..];
    let one_statement = &["wait for connection", "UPDATE coupon", "SELECT coupon held"];
    let transaction = &["wait for connection", "START TRANSACTION", "SELECT coupon", "UPDATE coupon", "COMMIT"];
    for (n, strategy, steps) in
        [(1, "coalesced", ahead), (2, "single-statement", one_statement), (3, "select-update", transaction)]
    {
        let collector = Collector::start().await;
        let (_service, api) = skiplock(space, &[traced(&collector), vec![("STRATEGY", strategy)]].concat()).await;

        let answer = post(&api, campaign, n, &trace_id(n), "01").await;

        assert_eq!(answer.status, 201, "{answer:?}");
        let trace = collector.trace_with(&trace_id(n), POST).await;
        let (server, claim) = (one(&trace, POST), one(&trace, "claim"));
        assert_eq!((server.service.as_str(), server.parent_id.as_str()), ("skiplock-api", CALLER));
        assert_eq!((&claim.parent_id, claim.kind), (&server.id, SpanKind::Internal));
        assert_eq!(claim.attribute("coupon.strategy"), strategy);
        assert_eq!(claim.attribute("coupon.group.size"), "1");
        assert!(claim.attribute("coupon.group.wait").parse::<f64>().unwrap() < 60.0);
        assert_eq!(server.attribute("coupon.outcome"), "issued");
        for name in steps {
            let step = one(&trace, name);
            assert_eq!(step.parent_id, claim.id, "{step:?}");
            assert!(is_within(step, claim), "{step:?} within {claim:?}");
        }
        let texts: Vec<&str> = trace.iter().map(|span| span.attribute("db.query.text")).collect();
        assert!(texts.iter().any(|text| text.contains("FOR UPDATE SKIP LOCKED")), "{texts:?}");
    }
}

async fn a_repeated_claim_is_linked_to_the_first(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(2).await;
    let (_producer, producer) = producer(space, &traced(&collector)).await;
    let (_skiplock, skiplock) = skiplock(space, &traced(&collector)).await;
    let _consumer = consumer(space, &traced(&collector)).await;

    for (account, api) in [(1, producer), (2, skiplock)] {
        let [first, again] = [10 * account, 10 * account + 1].map(trace_id);
        post(&api, campaign, account, &first, "01").await;
        outcome(&api, campaign, account).await;
        post(&api, campaign, account, &again, "01").await;

        let first = collector.trace_with(&first, POST).await;
        let again = collector.trace_with(&again, POST).await;
        let first = one(&first, POST);
        assert_eq!(first.links, []);
        assert_eq!(one(&again, POST).links, [(first.trace_id.clone(), first.id.clone())]);
    }
}

async fn a_claim_that_its_caller_does_not_sample_has_an_id_and_no_spans(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(1).await;
    let (_producer, api) = producer(space, &traced(&collector)).await;
    let _consumer = consumer(space, &traced(&collector)).await;

    let unsampled = post(&api, campaign, 1, &trace_id(1), "00").await;
    assert!(matches!(outcome(&api, campaign, 1).await, Outcome::Issued { .. }));
    let refused = post(&api, CampaignId(999), 2, &trace_id(2), "00").await;
    // A sampled claim comes last: once its spans have arrived, so would those of the others.
    post(&api, campaign, 3, &trace_id(3), "01").await;
    outcome(&api, campaign, 3).await;

    assert!(unsampled.header("traceparent").starts_with(&format!("00-{}-", trace_id(1))), "{unsampled:?}");
    assert!(unsampled.header("traceparent").ends_with("-00"), "{unsampled:?}");
    assert_eq!(refused.json["trace_id"], trace_id(2));
    for last in [POST, &process(space)] {
        collector.trace_with(&trace_id(3), last).await;
    }
    assert_eq!(collector.trace(&trace_id(1)).len(), 0);
    assert_eq!(collector.trace(&trace_id(2)).len(), 0);
}

async fn each_sampled_claim_records_its_batch(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(4).await;
    let _consumer = consumer(space, &traced(&collector)).await;
    // While the consumer waits with a batch of one, the others gather in the queue.
    let locked = space.lock_tables().await;
    space.queues.publish_claim(&claim(campaign, 9)).await;
    eventually("the consumer queries MySQL", async || !space.running("SELECT id").await.is_empty()).await;
    for account in 1..=4 {
        let flags = if account % 2 == 0 { TraceFlags::SAMPLED } else { TraceFlags::default() };
        space.queues.publish_claim_of(&remote(account, flags), &claim(campaign, account)).await;
    }
    eventually("the consumer has them", async || space.queues.waiting().await == 0).await;
    locked.disconnect().await.unwrap();

    let process = process(space);
    let traces =
        [collector.trace_with(&trace_id(2), &process).await, collector.trace_with(&trace_id(4), &process).await];
    let spans = [one(&traces[0], &process), one(&traces[1], &process)];
    assert_eq!(spans[0].time.0, spans[1].time.0, "both begin when the batch was received");
    assert_eq!(spans[0].links, spans[1].links, "both are linked to the one batch");
    assert_eq!(spans.map(|span| span.attribute("coupon.batch.size")), ["4", "4"]);
    assert_eq!(spans.map(|span| span.attribute("coupon.outcome")), ["issued", "sold_out"]);
    let (batch_trace, _) = spans[0].links[0].clone();
    let batch_name = format!("process batch {}.claims", space.name());
    let batch = collector.trace_with(&batch_trace, &batch_name).await;
    let batch = one(&batch, &batch_name);
    assert_eq!(batch.links.len(), 2);
    assert_eq!(batch.attribute("coupon.batch.size"), "4");
    assert!(
        collector.spans().iter().all(|span| [trace_id(2), trace_id(4), batch_trace.clone()].contains(&span.trace_id))
    );
}

/// The context that a producer in the n-th trace sends along with a claim.
fn remote(n: u64, flags: TraceFlags) -> Context {
    let trace = TraceId::from_hex(&trace_id(n)).unwrap();
    let span = SpanContext::new(trace, SpanId::from(7), flags, true, TraceState::default());
    Context::new().with_remote_span_context(span)
}

async fn a_redelivered_claim_is_marked_in_the_same_trace(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(1).await;
    let locked = space.lock_tables().await;
    let mut first = consumer(space, &traced(&collector)).await;
    space.queues.publish_claim_of(&remote(1, TraceFlags::SAMPLED), &claim(campaign, 1)).await;
    eventually("the consumer queries MySQL", async || !space.running("SELECT id").await.is_empty()).await;

    first.stop("KILL").await;
    let second = consumer(space, &traced(&collector)).await;
    locked.disconnect().await.unwrap();

    let process = process(space);
    let trace = collector.trace_with(&trace_id(1), &process).await;
    let span = one(&trace, &process);
    assert_eq!(span.attribute("coupon.redelivered"), "true");
    assert_eq!(span.attribute("coupon.outcome"), "issued");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_claim_is_an_error_in_its_trace() {
    coupon_testkit::run(async |space| {
        space.queues.declare().await;
        let collector = Collector::start().await;
        let _consumer = consumer(&space, &traced(&collector)).await;

        let context = remote(1, TraceFlags::SAMPLED);
        space.queues.publish(message::properties(space.installation().id, [&context].into_iter()), b"garbage").await;

        let process = process(&space);
        let trace = collector.trace_with(&trace_id(1), &process).await;
        assert!(one(&trace, &process).is_error);
        assert_eq!(one(&trace, &process).attribute("error.type"), "fatal");
    })
    .await;
}

async fn sold_out_is_no_error_and_unavailable_is_one(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(1).await;
    let (service, api) = skiplock(space, &[traced(&collector), vec![("MYSQL_DEADLINE", "200ms")]].concat()).await;
    assert_eq!(post(&api, campaign, 1, &trace_id(1), "01").await.status, 201);

    assert_eq!(post(&api, campaign, 2, &trace_id(2), "01").await.code(), "sold_out");

    let server = collector.trace_with(&trace_id(2), POST).await;
    assert_eq!(one(&server, POST).attribute("coupon.outcome"), "sold_out");
    assert!(server.iter().all(|span| !span.is_error), "{server:?}");

    let other = space.campaign(1).await;
    api.get(&format!("/v1/campaigns/{other}")).await;
    let locked = space.lock_tables().await;
    let answer = post(&api, other, 3, &trace_id(3), "01").await;
    locked.disconnect().await.unwrap();

    assert!(answer.is_unavailable(), "{answer:?}");
    assert_eq!(answer.json["trace_id"], trace_id(3));
    let trace = collector.trace_with(&trace_id(3), POST).await;
    for name in [POST, "claim"] {
        let span = one(&trace, name);
        assert!(span.is_error, "{span:?}");
        assert_eq!(span.attribute("error.type"), "retryable", "{span:?}");
    }
    let line = service.says_once(&[&trace_id(3)]).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["trace_id"], trace_id(3));
    assert_eq!(line["message"], "request answered 503");
}
