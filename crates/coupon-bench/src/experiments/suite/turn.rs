//! One load on a way that is started for it, with settings of its own, and ended with it.

use coupon_core::mysql::Mysql;
use coupon_core::terminal;
use serde::Serialize;

use crate::crowd::Crowd;
use crate::experiments::load::{self, LoadResult};
use crate::lab::campaigns::make_campaigns;
use crate::lab::memory::{Memory, Watch};
use crate::lab::stand::{Stand, Way};

/// The crowd of most figures.
pub const CLIENTS: u32 = 256;

/// Connections of a crowd at a steady rate, those that wait for outcomes included.
const STEADY_CONNECTIONS: u32 = 1_000;

/// The share of claims that is traced, as everywhere by default.
pub const TRACE_RATIO: f64 = 0.01;

/// A way with settings of its own.
pub struct Setup {
    pub name: &'static str,
    pub way: Way,
    pub consumers: usize,
    pub environment: &'static [(&'static str, &'static str)],
}

impl Setup {
    pub const fn queue(
        name: &'static str,
        consumers: usize,
        environment: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { name, way: Way::Queue, consumers, environment }
    }

    pub const fn skiplock(name: &'static str, environment: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, way: Way::Skiplock, consumers: 0, environment }
    }
}

pub static QUEUE: Setup = Setup::queue("queue", 1, &[]);
pub static COALESCED: Setup = Setup::skiplock("coalesced", &[]);

/// A load of the run.
#[derive(Debug, Serialize)]
pub struct Turn {
    pub name: String,
    pub claims_per_second: f64,
    pub accepted_per_second: f64,
    pub memory: Vec<Memory>,
    /// Coupons issued by each consumer.
    pub shares: Vec<f64>,
    #[serde(flatten)]
    pub result: LoadResult,
}

impl Turn {
    pub fn new(name: &str, result: LoadResult, memory: Vec<Memory>, shares: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            claims_per_second: result.claims_per_second(),
            accepted_per_second: result.claims as f64 / result.accept_seconds,
            memory,
            shares,
            // Most runs have no Jaeger that would know the traces.
            result: LoadResult { trace_ids: Vec::new(), ..result },
        }
    }
}

/// Puts one load on a way.
pub async fn load_on(mysql: &Mysql, setup: &Setup, coupons: u64, crowd: Crowd) -> anyhow::Result<Turn> {
    terminal::note(&format!("{}: {} claims at {coupons} coupons", setup.name, crowd.accounts));
    let own = setup.environment.iter().map(|(name, value)| (*name, String::from(*value)));
    let environment: Vec<_> = own.chain([("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))]).collect();
    let stand = Stand::start(setup.way, setup.consumers, &environment).await?;
    let campaign = make_campaigns(mysql, setup.name, crowd.campaigns, coupons).await?.first;
    let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
    let watch = Watch::start(stand.services());
    let result = load::run(mysql, setup.name, &load).await?;
    let memory = watch.end();
    let mut shares = Vec::new();
    for consumer in stand.consumers() {
        shares.push(consumer.metric("coupon_claims_total", "issued").await?);
    }
    Ok(Turn::new(setup.name, result, memory, shares))
}

/// Puts this many claims a second on a way, over a thousand connections.
pub async fn steady(mysql: &Mysql, setup: &Setup, rate: f64, seconds: f64) -> anyhow::Result<Turn> {
    let accounts = format!("{:.0}", rate * seconds).parse()?;
    let followers = if setup.way == Way::Queue { CLIENTS } else { 0 };
    let closed_loop = Crowd::of(accounts, STEADY_CONNECTIONS - followers, TRACE_RATIO);
    let crowd = Crowd { rate: Some(format!("{rate:.0}").parse()?), followers: CLIENTS, ..closed_loop };
    load_on(mysql, setup, accounts, crowd).await
}
