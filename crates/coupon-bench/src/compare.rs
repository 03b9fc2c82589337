//! Both ways, one after the other, under the same crowd: a campaign for each, a table with both, one report.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::settings::RedisSettings;
use coupon_core::{Campaign, CampaignId, terminal};
use deadpool_redis::redis::{self, InfoDict};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use url::Url;

use crate::load::{self, Crowd, LoadResult};
use crate::traces::{self, Breakdown, JaegerArguments};
use crate::{client, report};

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The producer-api.
    #[arg(long, value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:8080")]
    queue_url: Url,
    /// The skiplock-api.
    #[arg(long, value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:8081")]
    skiplock_url: Url,
    /// Coupons of each way, spread over its campaigns.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    coupons: u64,
    #[command(flatten)]
    crowd: Crowd,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Ask Jaeger where the time of the traced claims went, and print and write that too.
    #[arg(long)]
    traces: bool,
    #[command(flatten)]
    jaeger: JaegerArguments,
    /// Version of RabbitMQ to note in the report; the broker does not tell its clients.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    rabbitmq_version: String,
}

/// Both ways side by side.
#[derive(Debug, Serialize)]
pub struct Comparison {
    ways: Vec<LoadResult>,
    servers: Servers,
    machine: Machine,
    crowd: CrowdNote,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traces: Vec<Breakdown>,
}

/// The servers' versions.
#[derive(Debug, Serialize)]
pub struct Servers {
    mysql: String,
    redis: String,
    rabbitmq: String,
}

/// What the figures were measured on.
#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    system: &'static str,
    architecture: &'static str,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
        }
    }
}

#[derive(Debug, Serialize)]
struct CrowdNote {
    accounts: u64,
    repeats: u64,
    clients: u32,
    rate: Option<u32>,
    trace_ratio: f64,
}

impl Arguments {
    /// What is wrong with values that are right one by one.
    pub fn check(&self) -> Result<(), String> {
        if self.crowd.campaigns > self.coupons {
            return Err(String::from("--campaigns must not be above --coupons: each campaign has one at least"));
        }
        self.crowd.check()
    }
}

/// Whether every audit was clean.
pub async fn run(mysql: &Mysql, redis: &RedisSettings, arguments: &Arguments, json: bool) -> anyhow::Result<bool> {
    let mut ways = Vec::new();
    for (way, url) in [("queue", &arguments.queue_url), ("skiplock", &arguments.skiplock_url)] {
        let campaign = make_campaigns(mysql, way, arguments.crowd.campaigns, arguments.coupons).await?;
        terminal::note(&format!("{way}: campaign {campaign} with {} coupons at {url}", arguments.coupons));
        let load = load::Arguments { url: url.clone(), campaign, crowd: arguments.crowd.clone() };
        ways.push(load::run(mysql, way, &load).await.with_context(|| format!("{way} at {url}"))?);
    }
    let mut traces = Vec::new();
    for way in ways.iter().filter(|_| arguments.traces) {
        traces.push(traces::breakdown(&way.way, &way.trace_ids, &arguments.jaeger).await?);
    }
    let crowd = &arguments.crowd;
    let comparison = Comparison {
        ways,
        servers: servers(mysql, redis, &arguments.rabbitmq_version).await?,
        machine: Machine::this(),
        crowd: CrowdNote {
            accounts: crowd.accounts,
            repeats: crowd.repeats,
            clients: crowd.clients,
            rate: crowd.rate,
            trace_ratio: crowd.trace_ratio,
        },
        traces,
    };
    if let Some(path) = &arguments.report {
        report::write(path, &comparison)?;
    }
    report::comparison(&comparison, &comparison.ways, &comparison.traces, json)?;
    Ok(comparison.ways.iter().all(LoadResult::is_clean))
}

/// A campaign of a run, with its coupons.
pub async fn make_campaign(mysql: &Mysql, way: &str, coupons: u64) -> anyhow::Result<CampaignId> {
    make_campaigns(mysql, way, 1, coupons).await
}

/// Campaigns with numbers one after the other, which have so many coupons together. The first of them.
pub async fn make_campaigns(mysql: &Mysql, way: &str, campaigns: u64, coupons: u64) -> anyhow::Result<CampaignId> {
    let lock = campaigns::lock_for_operator(mysql).await?;
    let mut conn = mysql.connection().await?;
    let first = campaigns::next_id(&mut conn).await?;
    for id in (first.0..first.0 + campaigns).map(CampaignId) {
        let name = format!("comparison, {way}");
        let campaign = Campaign { id, name, opens_at: None, closes_at: None, coupons: 0, paused: false };
        campaigns::insert(&mut conn, &campaign).await?;
    }
    drop(conn);
    // The numbers are taken: whoever waits for the lock need not wait for the coupons as well.
    lock.release().await;
    for n in 0..campaigns {
        let coupons = coupons / campaigns + u64::from(n < coupons % campaigns);
        loads::add_in_chunks(mysql, CampaignId(first.0 + n), coupons, &Limit::Stock(coupons), |_| {}).await?;
    }
    Ok(first)
}

/// Asks the servers for their versions.
pub async fn servers(mysql: &Mysql, redis: &RedisSettings, rabbitmq: &str) -> anyhow::Result<Servers> {
    let version = mysql.run(async |mut conn: Conn| Ok(conn.query_first("SELECT VERSION()").await?)).await?;
    let info: InfoDict = redis::cmd("INFO").arg("server").query_async(&mut coupon_core::redis::connect(redis)?).await?;
    Ok(Servers {
        mysql: version.unwrap_or_default(),
        redis: info.get("redis_version").unwrap_or_default(),
        rabbitmq: rabbitmq.to_owned(),
    })
}
