//! Measures the cost of tracing: the same load with tracing off, at 1 % and at 100 %, in turns within one run.
//!
//! Off is `OTEL_SDK_DISABLED`. The collector runs in this process and only counts spans, so that the figures show the
//! cost to the services, not that of a trace store on the same machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::terminal;
use coupon_otlp::Receiver;
use serde::Serialize;

use super::load::{self, LoadResult};
use crate::crowd::Crowd;
use crate::lab::campaigns::make_campaign;
use crate::lab::stand::{Stand, Way};
use crate::output::{Results, row, table};
use crate::statistics::median;

/// The modes compared: the name, the share of claims that is traced, and whether the services trace at all.
const MODES: [(&str, f64, bool); 3] = [("off", 0.0, false), ("1 %", 0.01, true), ("100 %", 1.0, true)];

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Turns of each mode; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Coupons in each turn, all of them claimed.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    coupons: u64,
    /// Connections that claim.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    clients: u32,
    /// Consumers of the queue way.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    consumers: u16,
}

/// The cost of tracing for one way.
#[derive(Debug, Serialize)]
pub struct Cost {
    way: Way,
    modes: Vec<Mode>,
    clean: bool,
}

#[derive(Debug, Serialize)]
struct Mode {
    tracing: &'static str,
    claims_per_second: f64,
    /// Claims per second / those without tracing.
    ratio: f64,
    p99_ms: f64,
    spans: u64,
}

/// Measures both ways.
pub async fn run(mysql: &Mysql, arguments: &Arguments) -> anyhow::Result<Vec<Cost>> {
    let sink = Sink::start().await?;
    let mut costs = Vec::new();
    for way in Way::ALL {
        costs.push(measure(mysql, arguments, way, &sink).await.with_context(|| way.to_string())?);
    }
    Ok(costs)
}

async fn measure(mysql: &Mysql, arguments: &Arguments, way: Way, sink: &Sink) -> anyhow::Result<Cost> {
    let mut turns = MODES.map(Turns::of);
    let mut clean = true;
    for round in 0..arguments.rounds {
        // Each mode goes first in turn, to even out whatever warms up or slows down.
        turns.rotate_left(1);
        for turns in &mut turns {
            terminal::note(&format!("{way}: round {} of {}, tracing {}", round + 1, arguments.rounds, turns.tracing));
            let before = sink.received();
            let result = load_once(mysql, arguments, way, turns, sink).await?;
            clean &= result.is_clean();
            turns.rates.push(result.claims_per_second());
            turns.p99s_ms.push(result.outcome_p99_ms);
            turns.spans += sink.received() - before;
        }
    }
    turns.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let without = turns.iter().find(|turns| !turns.is_on).map_or(f64::NAN, |turns| median(turns.rates.iter().copied()));
    Ok(Cost { way, modes: turns.iter().map(|turns| turns.mode(without)).collect(), clean })
}

/// Applies one load to a way started just for it.
async fn load_once(
    mysql: &Mysql,
    arguments: &Arguments,
    way: Way,
    turns: &Turns,
    sink: &Sink,
) -> anyhow::Result<LoadResult> {
    let environment = [
        ("OTEL_SDK_DISABLED", (!turns.is_on).to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.receiver.url().to_owned()),
        ("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off")),
    ];
    let stand = Stand::start(way, usize::from(arguments.consumers), &environment).await?;
    let campaign = make_campaign(mysql, &format!("tracing {}, {way}", turns.tracing), arguments.coupons).await?;
    let crowd = Crowd::of(arguments.coupons, arguments.clients, turns.ratio);
    let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
    load::run(mysql, &way.to_string(), &load).await
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
        let claims_per_second = median(self.rates.iter().copied());
        Mode {
            tracing: self.tracing,
            claims_per_second,
            ratio: claims_per_second / without,
            p99_ms: median(self.p99s_ms.iter().copied()),
            spans: self.spans,
        }
    }
}

impl Results for Vec<Cost> {
    fn print(&self) -> io::Result<()> {
        self.iter().try_for_each(Cost::print)
    }

    fn is_clean(&self) -> bool {
        self.iter().all(|cost| cost.clean)
    }
}

impl Cost {
    fn print(&self) -> io::Result<()> {
        let way = self.way.to_string();
        let mut table = table([way.as_str(), "claims a second", "of those without", "p99 to outcome, ms", "spans"]);
        for Mode { tracing, claims_per_second, ratio, p99_ms, spans } in &self.modes {
            let figures =
                [format!("{claims_per_second:.0}"), format!("{ratio:.3}"), format!("{p99_ms:.1}"), spans.to_string()];
            table.add_row(row(tracing, figures));
        }
        terminal::print(&table)
    }
}

/// A collector that counts spans and discards them.
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
