//! Runs both ways, one after the other, under the same load: a campaign for each, a table with both, one report.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings, TlsSettings};
use coupon_core::terminal;
use serde::Serialize;
use url::Url;

use super::load::{self, LoadResult};
use crate::crowd::{Ask, Crowd, client};
use crate::lab::campaigns::{make_campaign, make_campaigns};
use crate::lab::machine::{Machine, Servers};
use crate::lab::stand::Way;
use crate::output::{self, Results};
use crate::traces::{self, Breakdown, JaegerArguments};

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Address of the producer-api.
    #[arg(long, value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:8080")]
    queue_url: Url,
    /// Address of the skiplock-api.
    #[arg(long, value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:8081")]
    skiplock_url: Url,
    /// Coupons of each way, spread over its campaigns.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    coupons: u64,
    #[command(flatten)]
    crowd: Crowd,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Ask Jaeger where the time of the traced claims went, and print and write that too.
    #[arg(long)]
    traces: bool,
    #[command(flatten)]
    jaeger: JaegerArguments,
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
    /// Whether Jaeger did not answer. What was measured is shown all the same.
    #[serde(skip)]
    failed: bool,
}

/// The crowd that both ways faced.
#[derive(Debug, Serialize)]
struct CrowdNote {
    accounts: u64,
    repeats: u64,
    clients: u32,
    rate: Option<u32>,
    trace_ratio: f64,
}

impl Arguments {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.crowd.campaigns > self.coupons {
            return Err(String::from("--campaigns must not be above --coupons: each campaign has one at least"));
        }
        self.crowd.check()
    }

    /// Takes the settings that say which servers are trusted.
    pub fn trust(&mut self, tls: &TlsSettings) {
        self.crowd.tls = tls.clone();
        self.jaeger.tls = tls.clone();
    }
}

/// Creates campaigns for each way, and applies the same load to both, one after the other.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Comparison> {
    let Arguments { queue_url, skiplock_url, coupons, crowd, .. } = arguments;
    arguments.report.as_deref().map(output::check_writable).transpose()?;
    let servers = Servers::ask(mysql, redis, amqp).await?;
    if arguments.traces {
        traces::reach(&arguments.jaeger).await?;
    }
    let urls = [(Way::Queue, "--queue-url", queue_url), (Way::Skiplock, "--skiplock-url", skiplock_url)];
    let mut trials = Vec::new();
    for (way, option, url) in urls {
        trials.push((way, option, trial(mysql, way, url, crowd).await?));
    }
    for (_, option, claim) in &trials {
        load::probe(mysql, option, claim).await?;
    }
    for (way, option, claim) in &trials {
        ensure_kind(mysql, *way, option, claim).await?;
    }
    let mut loads = Vec::new();
    for (way, option, url) in urls {
        let campaign = make_campaigns(mysql, &format!("comparison, {way}"), crowd.campaigns, *coupons).await?.first;
        let load = load::Arguments { url: url.clone(), campaign, crowd: crowd.clone() };
        load::probe(mysql, option, &load).await?;
        loads.push((way, load));
    }
    let mut ways = Vec::new();
    for (way, load) in loads {
        terminal::note(&format!("{way}: campaign {} with {coupons} coupons at {}", load.campaign, load.url));
        let result = load::run(mysql, &way.to_string(), &load).await;
        ways.push(result.with_context(|| format!("{way} at {}", load.url))?);
    }
    let (mut traces, mut failed) = (Vec::new(), false);
    for way in ways.iter().filter(|_| arguments.traces) {
        match traces::breakdown(&way.name, &way.trace_ids, &arguments.jaeger).await {
            Ok(breakdown) => traces.push(breakdown),
            Err(error) => {
                terminal::error(&format!("{error:#}"));
                failed = true;
            }
        }
    }
    let (machine, crowd) = (Machine::this(), CrowdNote::of(crowd));
    Ok(Comparison { ways, servers, machine, crowd, traces, failed })
}

/// How long a claim on an idle system may take to be settled, before the load.
const PATIENCE_SECONDS: u64 = 10;

/// A single claim of a campaign of its own, with one coupon.
async fn trial(mysql: &Mysql, way: Way, url: &Url, crowd: &Crowd) -> anyhow::Result<load::Arguments> {
    let campaign = make_campaign(mysql, &format!("comparison, is this {way}?"), 1).await?;
    let crowd = Crowd {
        accounts: 1,
        repeats: 0,
        campaigns: 1,
        clients: 1,
        followers: 1,
        ask: Ask::LongPoll,
        patience: PATIENCE_SECONDS,
        trace_ratio: 0.0,
        ..crowd.clone()
    };
    Ok(load::Arguments { url: url.clone(), campaign, crowd })
}

/// Fails if the address is not that of the way's API, which only the answer to a claim shows.
async fn ensure_kind(mysql: &Mysql, way: Way, option: &str, claim: &load::Arguments) -> anyhow::Result<()> {
    let (url, result) = (&claim.url, load::run(mysql, &way.to_string(), claim).await?);
    match result.lets_in_with {
        Some(status) if status == way.lets_in_with() => {
            ensure!(result.is_clean(), "{option} {url} does not settle a claim within {PATIENCE_SECONDS} s");
            Ok(())
        }
        Some(status) => bail!("{option} {url} is not a {}: it answered a claim with {status}", way.api()),
        None => bail!("{option} {url} lets no claim in: {}", result.error_examples.join("; ")),
    }
}

impl CrowdNote {
    fn of(crowd: &Crowd) -> Self {
        let &Crowd { accounts, repeats, clients, rate, trace_ratio, .. } = crowd;
        Self { accounts, repeats, clients, rate, trace_ratio }
    }
}

impl Results for Comparison {
    fn print(&self) -> io::Result<()> {
        self.ways.print()?;
        self.traces.print()
    }

    fn is_clean(&self) -> bool {
        self.ways.is_clean() && !self.failed
    }
}
