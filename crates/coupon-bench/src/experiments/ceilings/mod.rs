//! The rate of each stage alone, and the limit that follows: if all stages share the same cores, a claim costs the sum
//! of its costs in each, so a way can handle 1 / Σ(1 / stage) claims per second.
//!
//! Invariant: each stage is measured with several numbers of connections, and the best rate counts, because a single
//! connection mostly waits: the limit would be too low, and the share of it that a way reaches too large.

mod broker;
pub mod http;
mod mysql;
mod redis;

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use coupon_core::terminal;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::output::{Results, row, table};
use crate::statistics::median;

/// Claims in a batch of a consumer.
const BATCH: usize = 500;

/// How many connections a stage is measured with, in turn; the best rate counts.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

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
    #[serde(rename = "stage")]
    pub name: &'static str,
    /// Claims per second.
    pub per_second: f64,
    /// Connections with which it was fastest.
    pub connections: usize,
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
        let rate = |name: &str| stages.iter().find(|stage| stage.name == name).map_or(f64::NAN, |it| it.per_second);
        let limit = |names: &[&str]| 1.0 / names.iter().map(|name| 1.0 / rate(name)).sum::<f64>();
        let queue_limit = limit(&[HTTP, HTTP, PUBLISH, CONSUME, LPOP, UPDATE]);
        let skiplock_limit = limit(&[HTTP, SKIP_LOCKED]);
        Self { stages, queue_limit, skiplock_limit }
    }

    /// The medians of several rounds, and the limits that follow from them.
    pub fn of_rounds(rounds: &[Self]) -> Self {
        let of_stage = |name: &'static str| {
            let all = rounds.iter().flat_map(|round| &round.stages).filter(|it| it.name == name);
            let best = all.clone().max_by(|a, b| a.per_second.total_cmp(&b.per_second));
            let per_second = median(all.map(|it| it.per_second));
            Stage { name, per_second, connections: best.map_or(0, |best| best.connections) }
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
    let clients = arguments.clients;
    let empty = Stage { name: HTTP, per_second: http::empty(clients, time).await?, connections: clients as usize };
    let mut stages = vec![noted(empty)];
    let broker = async |connections| {
        let rates = broker::measure(amqp, connections, time).await.with_context(|| amqp.amqp_url.to_string())?;
        Ok(vec![(PUBLISH, rates.publish), (CONSUME, rates.consume)])
    };
    stages.extend(fastest(broker).await?);
    let lpop = async |connections| {
        let rate = redis::lpop(redis, connections, time).await.with_context(|| redis.redis_url.to_string())?;
        Ok(vec![(LPOP, rate)])
    };
    stages.extend(fastest(lpop).await?);
    stages.extend(fastest(async |n| Ok(vec![(UPDATE, mysql::update(mysql, n, time).await?)])).await?);
    stages.extend(fastest(async |n| Ok(vec![(SKIP_LOCKED, mysql::skip_locked(mysql, n, time).await?)])).await?);
    Ok(Ceilings::new(stages))
}

/// The stages that `measure` returns with their rates, each with the number of connections that made it the fastest.
async fn fastest(
    measure: impl AsyncFn(usize) -> anyhow::Result<Vec<(&'static str, f64)>>,
) -> anyhow::Result<Vec<Stage>> {
    let mut fastest: Vec<Stage> = Vec::new();
    for connections in CONNECTIONS {
        for (name, per_second) in measure(connections).await? {
            let measured = noted(Stage { name, per_second, connections });
            match fastest.iter_mut().find(|it| it.name == name) {
                Some(best) if best.per_second >= per_second => {}
                Some(best) => *best = measured,
                None => fastest.push(measured),
            }
        }
    }
    Ok(fastest)
}

fn noted(stage: Stage) -> Stage {
    let Stage { name, per_second, connections } = &stage;
    terminal::note(&format!("{name}, {connections} connections: {per_second:.0} a second"));
    stage
}

/// Runs tasks at the same time, and returns how many claims they got through in all, per second.
async fn together(
    tasks: impl IntoIterator<Item = impl Future<Output = anyhow::Result<u64>> + Send + 'static>,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut running: JoinSet<_> = tasks.into_iter().collect();
    let mut done = 0;
    while let Some(ended) = running.join_next().await {
        done += ended??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

impl Results for Ceilings {
    fn print(&self) -> io::Result<()> {
        let mut table = table(["stage", "connections", "claims a second, alone"]);
        for Stage { name, per_second, connections } in &self.stages {
            table.add_row(row(name, [connections.to_string(), format!("{per_second:.0}")]));
        }
        for (way, limit) in [("queue", self.queue_limit), ("skiplock", self.skiplock_limit)] {
            table.add_row(row(&format!("limit of the {way} way"), [String::new(), format!("{limit:.0}")]));
        }
        terminal::print(&table)
    }

    fn is_clean(&self) -> bool {
        true
    }
}
