//! `/metrics`. Goal: every service reports what it did, and `docs/TELEMETRY.md` describes all of it. Method: the
//! services as programs, the text that Prometheus reads, and that document.

use std::collections::BTreeSet;

use coupon_core::rabbitmq::message;
use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Api, Proxy, TestSpace, eventually};

use crate::programs::{consumer, producer, skiplock, start_by_environment};
use crate::system::{claim, claims_are_accepted};

audited![
    skiplock_counts_what_it_does,
    the_end_of_a_stock_takes_few_refills,
    counters_begin_at_0,
    the_stock_of_an_unused_campaign_is_not_shown,
    the_stock_is_not_shown_while_it_cannot_be_read,
];

const DOCUMENT: &str = include_str!("../../../../docs/TELEMETRY.md");

/// An account that cannot be mistaken for any other number in the metrics.
const ACCOUNT: u64 = 918_273_645;

const NO_SPANS: &[(&str, &str)] = &[("OTEL_SDK_DISABLED", "true")];

/// The value of a sample, if there is one.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

async fn metrics(api: &Api) -> String {
    let answer = api.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"), "{answer:?}");
    answer.text
}

fn assert_samples(metrics: &str, samples: &[(&str, f64)]) {
    for (sample, expected) in samples {
        assert_eq!(value(metrics, sample), Some(*expected), "{sample} in:\n{metrics}");
    }
}

/// The names of all metrics. A histogram has one, whatever its samples are called.
fn names(metrics: &str) -> BTreeSet<String> {
    metrics.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

fn assert_described(metrics: &str) {
    for name in names(metrics) {
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name} has no description");
        assert!(DOCUMENT.contains(&format!("`{name}`")), "docs/TELEMETRY.md does not list {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_counts_what_it_does() {
    coupon_testkit::run(async |space| {
        let space = &*space;
        space.queues.declare().await;
        let campaign = space.campaign(2).await;
        let (_producer, api) = producer(space, NO_SPANS).await;
        let consumer = consumer(space, NO_SPANS).await;
        claims_are_accepted(&api, campaign, 1..=3).await;
        for account in 1..=3 {
            api.get(&format!("/v1/campaigns/{campaign}/claims/{account}?wait=30s")).await;
        }
        eventually("the API knows that it is sold out", async || api.post_claim(campaign, 9).await.status == 409).await;
        space.queues.publish(lapin::BasicProperties::default(), b"garbage").await;
        assert_eq!(api.post_claim(CampaignId(999), 1).await.status, 404);

        let admin = space.api(consumer.address());
        eventually("the consumer has counted everything", async || {
            let metrics = metrics(&admin).await;
            value(&metrics, "coupon_dead_letters_total") == Some(1.0)
                && value(&metrics, "coupon_claims_total{outcome=\"sold_out\"}") == Some(1.0)
        })
        .await;
        let (producer, consumer) = (metrics(&api).await, metrics(&admin).await);
        assert_samples(
            &producer,
            &[
                ("coupon_claims_total{outcome=\"accepted\"}", 3.0),
                ("coupon_claims_total{outcome=\"campaign_not_found\"}", 1.0),
                ("coupon_publisher_confirms_total{result=\"ack\"}", 3.0),
                ("coupon_claims_in_flight", 0.0),
                ("coupon_campaign_coupons{campaign=\"1\"}", 2.0),
                ("coupon_campaign_free_coupons{campaign=\"1\"}", 0.0),
                ("coupon_build_info{service=\"producer-api\",version=\"0.1.0\"}", 1.0),
            ],
        );
        let request = "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
                       http_route=\"/v1/campaigns/{campaign_id}/claims\",http_response_status_code=\"202\"}";
        assert_eq!(value(&producer, request), Some(3.0), "{producer}");
        assert_samples(
            &consumer,
            &[("coupon_claims_total{outcome=\"issued\"}", 2.0), ("coupon_queue_time_seconds_count", 3.0)],
        );
        for step in ["lookup", "reserve", "refill lock", "refill", "persist", "record", "ack"] {
            let count = value(&consumer, &format!("coupon_step_duration_seconds_count{{step=\"{step}\"}}"));
            assert!(count.is_some_and(|count| count >= 1.0), "{step} in:\n{consumer}");
        }
        assert!(value(&consumer, "coupon_mysql_connections{state=\"idle\"}").is_some());
        assert!(value(&consumer, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0));
        assert_described(&producer);
        assert_described(&consumer);
        // A dead letter is counted before the broker has it.
        eventually("the broker has the dead letter", async || !space.queues.take_dead_letters().await.is_empty()).await;
        space.audit().await;
    })
    .await;
}

async fn skiplock_counts_what_it_does(space: &TestSpace) {
    let campaign = space.campaign(1).await;
    let (_service, api) = skiplock(space, NO_SPANS).await;
    assert!(matches!(api.post_claim(campaign, ACCOUNT).await.outcome(), Outcome::Issued { .. }));
    assert_eq!(api.post_claim(campaign, ACCOUNT).await.status, 200);
    assert_eq!(api.post_claim(campaign, 2).await.status, 409);

    let metrics = metrics(&api).await;

    assert_samples(
        &metrics,
        &[
            ("coupon_claims_total{outcome=\"issued\"}", 1.0),
            ("coupon_claims_total{outcome=\"held\"}", 1.0),
            ("coupon_claims_total{outcome=\"sold_out\"}", 1.0),
            ("coupon_claims_in_flight", 0.0),
            ("http_server_active_requests", 1.0),
        ],
    );
    assert!(value(&metrics, "coupon_group_claims_count").is_some_and(|groups| groups >= 1.0), "{metrics}");
    assert!(!metrics.contains(&ACCOUNT.to_string()), "an account is in the metrics: {metrics}");
    assert_described(&metrics);
}

async fn counters_begin_at_0(space: &TestSpace) {
    let (_producer, producer) = producer(space, NO_SPANS).await;
    let (_skiplock, skiplock) = skiplock(space, NO_SPANS).await;
    let consumer = consumer(space, NO_SPANS).await;
    let spans = [
        ("coupon_spans_sent_total", 0.0),
        ("coupon_spans_dropped_total{reason=\"queue_full\"}", 0.0),
        ("coupon_spans_dropped_total{reason=\"export_failed\"}", 0.0),
        ("coupon_tracing_paused", 0.0),
    ];
    let refused = [
        ("coupon_claims_total{outcome=\"sold_out\"}", 0.0),
        ("coupon_claims_total{outcome=\"campaign_paused\"}", 0.0),
        ("coupon_claims_total{outcome=\"too_many_claims\"}", 0.0),
        ("coupon_claims_total{outcome=\"unavailable\"}", 0.0),
    ];
    let confirms = [
        ("coupon_publisher_confirms_total{result=\"ack\"}", 0.0),
        ("coupon_publisher_confirms_total{result=\"nack\"}", 0.0),
    ];
    let batches = [
        ("coupon_dead_letters_total", 0.0),
        ("coupon_redeliveries_total", 0.0),
        ("coupon_refills_total{result=\"failed\"}", 0.0),
        ("coupon_retries_total{class=\"retryable\"}", 0.0),
        ("coupon_claims_total{outcome=\"issued\"}", 0.0),
    ];

    let consumer = metrics(&space.api(consumer.address())).await;
    for (metrics, samples) in [
        (metrics(&producer).await, [&spans[..], &refused, &confirms].concat()),
        (metrics(&skiplock).await, [&spans[..], &refused].concat()),
        (consumer, [&spans[..], &batches].concat()),
    ] {
        assert_samples(&metrics, &samples);
        assert_described(&metrics);
    }
}

async fn the_stock_of_an_unused_campaign_is_not_shown(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let (_service, api) = skiplock(space, NO_SPANS).await;
    let stock = format!("coupon_campaign_free_coupons{{campaign=\"{campaign}\"}}");
    assert_eq!(api.get(&format!("/v1/campaigns/{campaign}")).await.status, 200);
    assert_eq!(value(&metrics(&api).await, &stock), Some(5.0));

    eventually("it is not shown any more", async || value(&metrics(&api).await, &stock).is_none()).await;
}

async fn the_stock_is_not_shown_while_it_cannot_be_read(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
    let settings = [("COUPON_MYSQL_URL", proxy.url()), ("MYSQL_DEADLINE", "1s"), ("OTEL_SDK_DISABLED", "true")];
    let service = start_by_environment(space, "skiplock-api", &settings).await;
    let api = space.api(service.address());
    let stock = format!("coupon_campaign_coupons{{campaign=\"{campaign}\"}}");
    let shown = async || {
        api.get(&format!("/v1/campaigns/{campaign}")).await;
        value(&metrics(&api).await, &stock)
    };
    assert_eq!(shown().await, Some(5.0));

    proxy.cut();
    eventually("it is not shown", async || shown().await.is_none()).await;
    proxy.heal();
    eventually("it is shown again", async || shown().await == Some(5.0)).await;
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard = include_str!("../../../../deploy/grafana/dashboards/coupons.json");
    let asked: BTreeSet<&str> = dashboard
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("coupon_") || word.starts_with("http_server_"))
        .collect();

    assert!(asked.len() > 8, "{asked:?}");
    for name in asked {
        let name = ["_bucket", "_count", "_sum"].iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(
            DOCUMENT.contains(&format!("`{name}`")),
            "the dashboard asks for {name}, which docs/TELEMETRY.md does not list"
        );
    }
}

/// The batch takes all that is free and wants more: another refill can only offer what the batch holds.
async fn the_end_of_a_stock_takes_few_refills(space: &TestSpace) {
    space.queues.declare().await;
    let campaign = space.campaign(3).await;
    let claims: Vec<_> = (1..=5).map(|account| claim(campaign, account)).collect();
    let properties = message::properties(space.installation().id, std::iter::empty());
    space.queues.publish(properties, &message::encode(&claims).unwrap()).await;

    let consumer = consumer(space, NO_SPANS).await;

    let admin = space.api(consumer.address());
    eventually("all claims are settled", async || {
        value(&metrics(&admin).await, "coupon_claims_total{outcome=\"sold_out\"}") == Some(2.0)
    })
    .await;
    let expected = [
        ("coupon_claims_total{outcome=\"issued\"}", 3.0),
        // The first one fills the list, the second one offers the same again.
        ("coupon_refills_total{result=\"not_empty\"}", 2.0),
        ("coupon_refills_total{result=\"sold_out\"}", 1.0),
    ];
    assert_samples(&metrics(&admin).await, &expected);
}
