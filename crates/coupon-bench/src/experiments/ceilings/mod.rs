//! The rate of each stage alone, and the limit that follows: if all stages share the same cores, a claim costs the sum
//! of its costs in each, so a way can handle 1 / Σ(1 / stage) claims per second.

mod broker;
pub mod http;
mod mysql;
mod redis;

use std::io;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use coupon_core::terminal;
use serde::Serialize;

use crate::output::{Results, row, table};
use crate::statistics::median;

/// Claims in a batch of a consumer.
const BATCH: usize = 500;

const HTTP: &str = "empty HTTP endpoint";
const PUBLISH: &str = "publish with confirms";
const CONSUME: &str = "consume with batch acks";
const LPOP: &str = "LPOP n";
const UPDATE: &str = "batched conditional UPDATE";
const SKIP_LOCKED: &str = "batched SKIP LOCKED claim";

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How long each stage is measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Connections of the load on the empty HTTP endpoint.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
}

/// The rate of a stage alone.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub stage: &'static str,
    /// Claims per second.
    pub per_second: f64,
}

/// The stages, and the limit that follows for each way.
#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    pub stages: Vec<Stage>,
    /// Claims per second, with two HTTP exchanges for each: the claim itself, and the request for its outcome.
    pub queue_limit: f64,
    /// Claims per second, with one HTTP exchange for each.
    pub skiplock_limit: f64,
}

impl Ceilings {
    fn new(stages: Vec<Stage>) -> Self {
        let rate = |name: &str| stages.iter().find(|stage| stage.stage == name).map_or(f64::NAN, |it| it.per_second);
        let limit = |names: &[&str]| 1.0 / names.iter().map(|name| 1.0 / rate(name)).sum::<f64>();
        let queue_limit = limit(&[HTTP, HTTP, PUBLISH, CONSUME, LPOP, UPDATE]);
        let skiplock_limit = limit(&[HTTP, SKIP_LOCKED]);
        Self { stages, queue_limit, skiplock_limit }
    }

    /// The medians of several rounds, and the limits that follow from them.
    pub fn of_rounds(rounds: &[Self]) -> Self {
        let of_stage = |stage: &'static str| {
            let all = rounds.iter().flat_map(|round| &round.stages).filter(|it| it.stage == stage);
            Stage { stage, per_second: median(&all.map(|it| it.per_second).collect::<Vec<_>>()) }
        };
        Self::new([HTTP, PUBLISH, CONSUME, LPOP, UPDATE, SKIP_LOCKED].map(of_stage).into())
    }
}

/// Measures every stage.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Ceilings> {
    let time = Duration::from_secs(arguments.seconds);
    let mut stages = Vec::new();
    let mut add = |stage: &'static str, per_second: f64| {
        terminal::note(&format!("{stage}: {per_second:.0} a second"));
        stages.push(Stage { stage, per_second });
    };
    add(HTTP, http::empty(arguments.clients, time).await?);
    let broker::Rates { publish, consume } =
        broker::measure(amqp, time).await.with_context(|| amqp.amqp_url.to_string())?;
    add(PUBLISH, publish);
    add(CONSUME, consume);
    add(LPOP, redis::lpop(redis, time).await.with_context(|| redis.redis_url.to_string())?);
    add(UPDATE, mysql::update(mysql, time).await?);
    add(SKIP_LOCKED, mysql::skip_locked(mysql, time).await?);
    Ok(Ceilings::new(stages))
}

impl Results for Ceilings {
    fn print(&self) -> io::Result<()> {
        let stages = self.stages.iter().map(|Stage { stage, per_second }| (*stage, *per_second));
        let limits = [("limit of the queue way", self.queue_limit), ("limit of the skiplock way", self.skiplock_limit)];
        let mut table = table(["stage", "claims a second, alone"]);
        for (name, rate) in stages.chain(limits) {
            table.add_row(row(name, [format!("{rate:.0}")]));
        }
        terminal::print(&table)
    }

    fn is_clean(&self) -> bool {
        true
    }
}
