//! One load on a way that is started just for it, with settings of its own.

use coupon_core::mysql::Mysql;
use coupon_core::terminal;
use serde::Serialize;

use crate::crowd::{CLIENTS, Crowd};
use crate::experiments::load::{self, LoadResult};
use crate::lab::campaigns::make_campaigns;
use crate::lab::memory::{Memory, Watch};
use crate::lab::setup::Setup;
use crate::lab::stand::Way;

/// Connections of a crowd at a steady rate, including those that wait for outcomes.
const STEADY_CONNECTIONS: u32 = 1_000;

/// The share of claims that is traced: the default everywhere.
pub const TRACE_RATIO: f64 = 0.01;

/// One load of the run.
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
            // Most runs have no Jaeger to hold the traces.
            result: LoadResult { trace_ids: Vec::new(), course: None, ..result },
        }
    }
}

/// Applies one load to a way.
pub async fn load_on(mysql: &Mysql, setup: &Setup, coupons: u64, crowd: Crowd) -> anyhow::Result<Turn> {
    terminal::note(&format!("{}: {} claims at {coupons} coupons", setup.name, crowd.accounts));
    let stand = setup.start().await?;
    let campaign = make_campaigns(mysql, setup.name, crowd.campaigns, coupons).await?.first;
    let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
    let watch = Watch::start(stand.services());
    let result = load::run(mysql, setup.name, &load).await?;
    let memory = watch.end();
    let mut shares = Vec::new();
    for consumer in stand.consumers() {
        shares.push(consumer.metric("coupon_claims_total", "issued").await?);
    }
    load::drain(mysql, &stand).await?;
    Ok(Turn::new(setup.name, result, memory, shares))
}

/// Applies this many claims per second to a way, over a thousand connections.
pub async fn steady(mysql: &Mysql, setup: &Setup, rate: f64, seconds: f64) -> anyhow::Result<Turn> {
    let accounts = format!("{:.0}", rate * seconds).parse()?;
    let followers = if setup.way == Way::Queue { CLIENTS } else { 0 };
    let closed_loop = Crowd::of(accounts, STEADY_CONNECTIONS - followers, TRACE_RATIO);
    let crowd = Crowd { rate: Some(format!("{rate:.0}").parse()?), followers: CLIENTS, ..closed_loop };
    load_on(mysql, setup, accounts, crowd).await
}
