//! What tracing costs: the same load with tracing off, at 1 % and at 100 %, in turns within one run.
//!
//! Off is `OTEL_SDK_DISABLED`. The collector is one in this process that takes spans and forgets them: what is measured
//! is what the services pay, not what a store of traces does on the same machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::terminal;
use coupon_otlp::Receiver;
use serde::Serialize;

use crate::load::{self, Crowd};
use crate::stand::Stand;
use crate::{compare, report};

/// What is compared: name, share of the claims that is traced, and whether the services trace at all.
const MODES: [(&str, f64, bool); 3] = [("off", 0.0, false), ("1 %", 0.01, true), ("100 %", 1.0, true)];

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Turns of each mode; the median counts.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Coupons of each turn, all of them claimed.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    coupons: u64,
    /// Connections that claim.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    clients: u32,
    /// Consumers of the queue way.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    consumers: u16,
}

/// What tracing costs on one way.
#[derive(Debug, Serialize)]
pub struct Cost {
    way: &'static str,
    modes: Vec<Mode>,
    clean: bool,
}

#[derive(Debug, Serialize)]
struct Mode {
    tracing: &'static str,
    claims_per_second: f64,
    /// Of the claims a second without tracing.
    ratio: f64,
    p99_ms: f64,
    spans: u64,
}

/// Whether every audit was clean.
pub async fn run(mysql: &Mysql, arguments: &Arguments, json: bool) -> anyhow::Result<bool> {
    let sink = Sink::start().await?;
    let mut costs = Vec::new();
    for way in ["queue", "skiplock"] {
        costs.push(measure(mysql, arguments, way, &sink).await.with_context(|| way.to_owned())?);
    }
    report::tracing_costs(&costs, json)?;
    Ok(costs.iter().all(|cost| cost.clean))
}

async fn measure(mysql: &Mysql, arguments: &Arguments, way: &'static str, sink: &Sink) -> anyhow::Result<Cost> {
    let mut turns = MODES.map(Turns::of);
    let mut clean = true;
    for round in 0..arguments.rounds {
        // Each mode is first in its turn, for whatever warms up or tires.
        turns.rotate_left(1);
        for turns in &mut turns {
            terminal::note(&format!("{way}: round {} of {}, tracing {}", round + 1, arguments.rounds, turns.tracing));
            let before = sink.received();
            let environment = environment(turns.is_on, sink);
            let stand = Stand::start(way, usize::from(arguments.consumers), &environment).await?;
            let campaign = compare::make_campaign(mysql, way, arguments.coupons).await?;
            let crowd = Crowd::of(arguments.coupons, arguments.clients, turns.ratio);
            let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd };
            let result = load::run(mysql, way, &load).await?;
            clean &= result.is_clean();
            turns.rates.push(result.claims as f64 / result.outcome_seconds);
            turns.p99s_ms.push(result.outcome_p99_ms);
            turns.spans += sink.received() - before;
        }
    }
    turns.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let without = turns.iter().find(|turns| !turns.is_on).map_or(f64::NAN, |turns| median(&turns.rates));
    Ok(Cost { way, modes: turns.iter().map(|turns| turns.mode(without)).collect(), clean })
}

/// The turns of one mode.
struct Turns {
    tracing: &'static str,
    ratio: f64,
    is_on: bool,
    rates: Vec<f64>,
    p99s_ms: Vec<f64>,
    spans: u64,
}

impl Turns {
    fn of((tracing, ratio, is_on): (&'static str, f64, bool)) -> Self {
        Self { tracing, ratio, is_on, rates: Vec::new(), p99s_ms: Vec::new(), spans: 0 }
    }

    fn mode(&self, without: f64) -> Mode {
        let claims_per_second = median(&self.rates);
        Mode {
            tracing: self.tracing,
            claims_per_second,
            ratio: claims_per_second / without,
            p99_ms: median(&self.p99s_ms),
            spans: self.spans,
        }
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn environment(is_on: bool, sink: &Sink) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_SDK_DISABLED", (!is_on).to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.receiver.url().to_owned()),
        ("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off")),
    ]
}

impl Cost {
    /// Of which way.
    pub fn way(&self) -> &'static str {
        self.way
    }

    /// Rows of the table: tracing, claims a second, of those without, p99, spans.
    pub fn rows(&self) -> impl Iterator<Item = [String; 5]> {
        self.modes.iter().map(|mode| {
            [
                mode.tracing.to_owned(),
                format!("{:.0}", mode.claims_per_second),
                format!("{:.3}", mode.ratio),
                format!("{:.1}", mode.p99_ms),
                mode.spans.to_string(),
            ]
        })
    }
}

/// A collector that counts spans and forgets them.
struct Sink {
    receiver: Receiver,
    count: Arc<AtomicU64>,
}

impl Sink {
    async fn start() -> anyhow::Result<Self> {
        let count: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&count);
        let receiver = Receiver::start(move |senders| {
            let scopes = senders.iter().flat_map(|sender| &sender.scope_spans);
            let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
            counted.fetch_add(spans as u64, Ordering::Relaxed);
        });
        Ok(Self { receiver: receiver.await?, count })
    }

    fn received(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
