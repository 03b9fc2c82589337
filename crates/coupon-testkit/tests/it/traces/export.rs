//! Where spans go, which the environment decides. Goal: a collector that is down or cannot be used costs spans and
//! never a claim, and every variable of `OTEL_*` is either obeyed or reported. Method: services with different
//! variables, and either no collector or one in this process.

use coupon_core::Outcome;
use coupon_testkit::{Collector, Proxy, TestSpace, eventually};

use super::{POST, one, outcome, post, trace_id};
use crate::programs::{consumer, producer, skiplock, traced};

audited![
    a_missing_collector_costs_spans_and_nothing_else,
    recording_pauses_while_the_collector_is_gone,
    a_collector_that_does_not_speak_tls_costs_spans_and_nothing_else,
    a_variable_that_nothing_reads_is_reported_and_costs_nothing,
    the_last_spans_are_sent_before_a_service_ends,
    the_environment_decides_what_is_sampled_and_under_which_name,
];

async fn a_missing_collector_costs_spans_and_nothing_else(space: &TestSpace) {
    let campaign = space.campaign(50).await;
    // A port on which nobody listens.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
    ];
    let (mut service, api) = producer(space, &environment).await;
    let mut consumer = consumer(space, &environment).await;

    for account in 1..=50 {
        assert_eq!(post(&api, campaign, account, &trace_id(account), "01").await.status, 202);
    }
    for account in 1..=50 {
        assert!(matches!(outcome(&api, campaign, account).await, Outcome::Issued { .. }));
    }

    eventually("spans are counted as dropped", async || {
        let metrics = api.get("/metrics").await.text;
        metrics.lines().any(|line| line.starts_with("coupon_spans_dropped_total{") && !line.ends_with(" 0"))
    })
    .await;
    assert_eq!(service.stop("TERM").await, Some(0), "{}", service.log());
    assert_eq!(consumer.stop("TERM").await, Some(0), "{}", consumer.log());
}

async fn recording_pauses_while_the_collector_is_gone(space: &TestSpace) {
    let collector = Collector::start().await;
    let proxy = Proxy::before(collector.url()).await;
    let campaign = space.campaign(1).await;
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", proxy.url()), ("OTEL_BSP_SCHEDULE_DELAY", "50"), ("LOG", "info")];
    proxy.cut();
    let (service, api) = skiplock(space, &environment).await;
    let path = format!("/v1/campaigns/{campaign}");
    let is_recorded = async || api.get(&path).await.header("traceparent").ends_with("-01");
    let is_paused = async || api.get("/metrics").await.text.contains("coupon_tracing_paused 1");
    assert!(is_recorded().await);

    eventually("recording pauses", async || !is_recorded().await && is_paused().await).await;
    let sampled_by_caller = post(&api, campaign, 1, &trace_id(1), "01").await;
    proxy.heal();
    eventually("recording resumes", async || is_recorded().await && !is_paused().await).await;

    assert!(sampled_by_caller.header("traceparent").ends_with("-01"), "{sampled_by_caller:?}");
    assert!(is_recorded().await && is_recorded().await);
    for words in ["only callers' traces are recorded", "takes spans again"] {
        eventually("it is logged", async || service.log().contains(words)).await;
    }
}

async fn a_collector_that_does_not_speak_tls_costs_spans_and_nothing_else(space: &TestSpace) {
    let collector = Collector::start().await;
    let (_, host) = collector.url().split_once("://").unwrap();
    let campaign = space.campaign(2).await;
    for (account, address) in [(1, format!("https://{host}")), (2, String::from(host))] {
        let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*address), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
        let (service, api) = skiplock(space, &environment).await;

        assert!(matches!(api.claim(campaign, account).await, Outcome::Issued { .. }));

        let is_named = async || service.log().contains("InvalidContentType");
        eventually("it logs why no spans are accepted", is_named).await;
    }
    assert!(collector.spans().is_empty());
}

async fn a_variable_that_nothing_reads_is_reported_and_costs_nothing(space: &TestSpace) {
    let campaign = space.campaign(1).await;
    let environment = [("OTEL_TRACE_SAMPLER", "always_off"), ("OTEL_METRICS_EXPORTER", "none"), ("LOG", "info")];
    let (mut service, api) = skiplock(space, &environment).await;

    let answer = post(&api, campaign, 1, &trace_id(1), "01").await;

    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(service.stop("TERM").await, Some(0), "{}", service.log());
    let log = service.log();
    let named = |line: &&str| environment[..2].iter().all(|(name, _)| line.contains(name)) && line.contains("WARN");
    assert_eq!(log.lines().filter(named).count(), 1, "{log}");
    assert!(!log.contains("OTEL_EXPORTER"), "{log}");
}

async fn the_last_spans_are_sent_before_a_service_ends(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(1).await;
    let hourly = [traced(&collector), vec![("OTEL_BSP_SCHEDULE_DELAY", "3600000")]].concat();
    let (mut service, api) = skiplock(space, &hourly).await;
    post(&api, campaign, 1, &trace_id(1), "01").await;

    assert_eq!(service.stop("TERM").await, Some(0));

    one(&collector.trace(&trace_id(1)), POST);
}

async fn the_environment_decides_what_is_sampled_and_under_which_name(space: &TestSpace) {
    let collector = Collector::start().await;
    let campaign = space.campaign(4).await;
    for (account, own) in [
        (1, &[("OTEL_SDK_DISABLED", "true")][..]),
        (2, &[("OTEL_TRACES_EXPORTER", "none")]),
        (3, &[("OTEL_TRACES_SAMPLER", "always_off")]),
        (4, &[("OTEL_SERVICE_NAME", "shop"), ("OTEL_RESOURCE_ATTRIBUTES", "region=eu")]),
    ] {
        let (mut service, api) = skiplock(space, &[traced(&collector), own.to_vec()].concat()).await;
        let answer = post(&api, campaign, account, &trace_id(account), "01").await;
        assert!(answer.header("traceparent").contains(&trace_id(account)), "{answer:?}");
        assert_eq!(service.stop("TERM").await, Some(0));
    }

    let services: Vec<String> = collector.spans().into_iter().map(|span| span.service).collect();
    assert!(!services.is_empty() && services.iter().all(|service| service == "shop"), "{services:?}");
}
