//! Metrics for Prometheus: names, units and buckets, each written here once. `/metrics` shows them.
//!
//! Invariant: a label has few values, and never an account.

use std::fmt::Write as _;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::CampaignId;

const REQUEST_DURATION: &str = "http_server_request_duration_seconds";
const REQUESTS_ACTIVE: &str = "http_server_active_requests";
const CLAIMS: &str = "coupon_claims_total";
const CLAIMS_IN_FLIGHT: &str = "coupon_claims_in_flight";
const TIME_IN_QUEUE: &str = "coupon_queue_time_seconds";
const STEP_DURATION: &str = "coupon_step_duration_seconds";
const BATCH_CLAIMS: &str = "coupon_batch_claims";
const GROUP_CLAIMS: &str = "coupon_group_claims";
const MESSAGE_CLAIMS: &str = "coupon_message_claims";
const CONFIRMS: &str = "coupon_publisher_confirms_total";
const REDELIVERIES: &str = "coupon_redeliveries_total";
const DEAD_LETTERS: &str = "coupon_dead_letters_total";
const REFILLS: &str = "coupon_refills_total";
const RETRIES: &str = "coupon_retries_total";
const MYSQL_CONNECTIONS: &str = "coupon_mysql_connections";
const MYSQL_WAITING: &str = "coupon_mysql_connection_waiters";
const CAMPAIGN_COUPONS: &str = "coupon_campaign_coupons";
const CAMPAIGN_FREE: &str = "coupon_campaign_free_coupons";
const SPANS_SENT: &str = "coupon_spans_sent_total";
const SPANS_DROPPED: &str = "coupon_spans_dropped_total";
const TRACING_PAUSED: &str = "coupon_tracing_paused";
const BUILD_INFO: &str = "coupon_build_info";

/// Upper bounds in seconds: from a step in memory to a client who waits for a long time.
const SECONDS: [f64; 17] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds of the number of claims handled together.
const SIZES: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1_000.0, 2_000.0];

/// How often samples are put into their buckets; until then they take memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static PROCESS: LazyLock<metrics_process::Collector> = LazyLock::new(metrics_process::Collector::default);

/// Starts recording, inside the runtime of the service; call it once.
pub(super) fn start(service: &'static str) {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(String::from("_seconds")), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix(String::from("_claims")), &SIZES));
    match builder.and_then(PrometheusBuilder::install_recorder) {
        Ok(recorder) => drop(RECORDER.set(recorder)),
        Err(error) => return tracing::warn!(%error, "no metrics"),
    }
    describe();
    begin_at_zero(service);
    gauge!(BUILD_INFO, "service" => service, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    tokio::spawn(async {
        let mut due = tokio::time::interval(UPKEEP_EVERY);
        loop {
            due.tick().await;
            if let Some(recorder) = RECORDER.get() {
                recorder.run_upkeep();
            }
        }
    });
}

/// The stock of a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// How many coupons it has.
    pub coupons: u64,
    /// How many of them have no account.
    pub free: u64,
}

/// All metrics in the text format of Prometheus, with the stock of these campaigns. The stock is not recorded, because
/// a recorder would show the last value of a campaign that nobody uses any more for as long as the process lives.
#[must_use]
pub fn render(stocks: &[Stock]) -> String {
    PROCESS.collect();
    let mut text = RECORDER.get().map(PrometheusHandle::render).unwrap_or_default();
    let coupons = |stock: &Stock| stock.coupons;
    write_gauge(&mut text, CAMPAIGN_COUPONS, "Coupons of a campaign in use", stocks, coupons);
    let free = |stock: &Stock| stock.free;
    write_gauge(&mut text, CAMPAIGN_FREE, "Coupons of a campaign in use that have no account", stocks, free);
    text
}

fn write_gauge(text: &mut String, name: &str, help: &str, stocks: &[Stock], value: impl Fn(&Stock) -> u64) {
    if stocks.is_empty() {
        return;
    }
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for stock in stocks {
        let _ = writeln!(text, "{name}{{campaign=\"{}\"}} {}", stock.campaign_id, value(stock));
    }
    text.push('\n');
}

/// What may become of a refill.
const REFILLED: [&str; 4] = ["not_empty", "sold_out", "unknown", "failed"];

/// What may become of a claim at an API.
const ANSWERS: [&str; 16] = [
    "accepted",
    "issued",
    "held",
    "sold_out",
    "campaign_not_found",
    "campaign_not_open",
    "campaign_closed",
    "campaign_paused",
    "too_many_claims",
    "unauthenticated",
    "other_account",
    "not_eligible",
    "invalid_request",
    "unsupported_media_type",
    "unavailable",
    "internal",
];

/// Sets counters whose labels are known beforehand to 0: one that first appears with a value shows no increase.
fn begin_at_zero(service: &str) {
    let zero = |name, label, values: &[&'static str]| {
        for value in values {
            counter!(name, label => *value).increment(0);
        }
    };
    counter!(SPANS_SENT).increment(0);
    zero(SPANS_DROPPED, "reason", &["queue_full", "export_failed"]);
    tracing_paused(false);
    match service {
        "producer-api" => {
            zero(CLAIMS, "outcome", &ANSWERS);
            zero(CONFIRMS, "result", &["ack", "nack", "failed"]);
        }
        "skiplock-api" => {
            zero(CLAIMS, "outcome", &ANSWERS);
            zero(RETRIES, "class", &["retryable"]);
        }
        "redis-api" => {
            zero(CLAIMS, "outcome", &ANSWERS);
            zero(RETRIES, "class", &["retryable"]);
            zero(REFILLS, "result", &REFILLED);
        }
        "queue-consumer" => {
            zero(CLAIMS, "outcome", &["issued", "sold_out"]);
            zero(REFILLS, "result", &REFILLED);
            zero(RETRIES, "class", &["retryable", "fatal"]);
            counter!(DEAD_LETTERS).increment(0);
            counter!(REDELIVERIES).increment(0);
        }
        _ => {}
    }
}

fn describe() {
    PROCESS.describe();
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "From the head of a request to the head of its answer");
    describe_gauge!(REQUESTS_ACTIVE, "Requests that are being answered");
    describe_counter!(CLAIMS, "Claims by what became of them in this process");
    describe_gauge!(CLAIMS_IN_FLIGHT, "Claims in progress: unconfirmed, in a batch, or waiting for a group");
    describe_histogram!(TIME_IN_QUEUE, Unit::Seconds, "From the acceptance of a claim to the batch that took it");
    describe_histogram!(STEP_DURATION, Unit::Seconds, "The steps of handling claims, one at a time or many at once");
    describe_histogram!(BATCH_CLAIMS, "Claims in a batch of the consumer");
    describe_histogram!(GROUP_CLAIMS, "Claims that an API handles together");
    describe_histogram!(MESSAGE_CLAIMS, "Claims in a message to the broker");
    describe_counter!(CONFIRMS, "Claims by what the broker said to their message");
    describe_counter!(REDELIVERIES, "Claims that the broker had delivered before");
    describe_counter!(DEAD_LETTERS, "Messages that are not claims and went to the dead letters");
    describe_counter!(REFILLS, "Refills of a campaign's list of free ids by result");
    describe_counter!(RETRIES, "Work done again, by the class of its error");
    describe_gauge!(MYSQL_CONNECTIONS, "Connections to MySQL by state");
    describe_gauge!(MYSQL_WAITING, "Pieces of work that wait for a connection to MySQL");
    describe_counter!(SPANS_SENT, "Spans that the collector took");
    describe_counter!(SPANS_DROPPED, "Spans that the collector never got, by reason");
    describe_gauge!(
        TRACING_PAUSED,
        "Whether only traces that callers sample are recorded, because the collector takes none"
    );
    describe_gauge!(BUILD_INFO, "1, with what runs here");
}

/// Records that a request was answered.
pub fn request(method: &'static str, route: String, status: &'static str, took: Duration) {
    histogram!(
        REQUEST_DURATION,
        "http_request_method" => method,
        "http_route" => route,
        "http_response_status_code" => status
    )
    .record(took);
}

/// Counts something as long as it is held.
#[derive(Debug)]
pub struct InFlight(metrics::Gauge, f64);

impl InFlight {
    fn new(gauge: metrics::Gauge, count: usize) -> Self {
        gauge.increment(count as f64);
        Self(gauge, count as f64)
    }

    /// Counts a request.
    #[must_use]
    pub fn request() -> Self {
        Self::new(gauge!(REQUESTS_ACTIVE), 1)
    }

    /// Counts claims.
    #[must_use]
    pub fn claims(count: usize) -> Self {
        Self::new(gauge!(CLAIMS_IN_FLIGHT), count)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(self.1);
    }
}

/// Counts claims by what became of them.
pub fn claims(outcome: &'static str, count: usize) {
    counter!(CLAIMS, "outcome" => outcome).increment(count as u64);
}

/// Records how long a step of handling claims took.
pub fn step(step: &'static str, took: Duration) {
    histogram!(STEP_DURATION, "step" => step).record(took);
}

/// Records a batch whose claims had waited for these times, in seconds.
pub fn batch(times_in_queue: impl ExactSizeIterator<Item = f64>) {
    histogram!(BATCH_CLAIMS).record(times_in_queue.len() as f64);
    let histogram = histogram!(TIME_IN_QUEUE);
    times_in_queue.for_each(|time| histogram.record(time));
}

/// Records a group of this many claims.
pub fn group(claims: usize) {
    histogram!(GROUP_CLAIMS).record(claims as f64);
}

/// Records a message that this many claims share.
pub fn message(claims: usize) {
    histogram!(MESSAGE_CLAIMS).record(claims as f64);
}

/// Counts a publish by the answer of the broker, or the lack of one: `ack`, `nack` (its queue is full) or `failed`.
pub fn confirm(result: &'static str) {
    counter!(CONFIRMS, "result" => result).increment(1);
}

/// Counts claims that had been delivered before.
pub fn redeliveries(claims: usize) {
    counter!(REDELIVERIES).increment(claims as u64);
}

/// Counts a message that went to the dead letters.
pub fn dead_letter() {
    counter!(DEAD_LETTERS).increment(1);
}

/// Counts a refill by its result: `not_empty`, `sold_out`, `unknown` or `failed`.
pub fn refill(result: &'static str) {
    counter!(REFILLS, "result" => result).increment(1);
}

/// Counts work that is done again after an error of this class.
pub fn retry(class: &'static str) {
    counter!(RETRIES, "class" => class).increment(1);
}

/// Records how the connections to MySQL are used at this moment.
pub fn mysql_connections(in_use: usize, idle: usize, waiting: usize) {
    gauge!(MYSQL_CONNECTIONS, "state" => "used").set(in_use as f64);
    gauge!(MYSQL_CONNECTIONS, "state" => "idle").set(idle as f64);
    gauge!(MYSQL_WAITING).set(waiting as f64);
}

/// Counts spans that the collector took.
pub fn spans_sent(count: usize) {
    counter!(SPANS_SENT).increment(count as u64);
}

/// Counts spans that were given up: `queue_full` or `export_failed`.
pub fn spans_dropped(reason: &'static str, count: usize) {
    counter!(SPANS_DROPPED, "reason" => reason).increment(count as u64);
}

/// Records whether traces that no caller samples go unrecorded, because the collector takes no spans.
pub fn tracing_paused(is_paused: bool) {
    gauge!(TRACING_PAUSED).set(f64::from(u8::from(is_paused)));
}
