//! Compares this build with another one: the same loads on both, in turns.
//!
//! Invariant: nothing but the programs differs. Each build has its own services, database, namespace and load
//! generator, because the schema and the requests of two versions may differ. Figures are comparable only within a run.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use coupon_core::settings::MysqlSettings;
use coupon_core::terminal::{self, print};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use url::Url;

use crate::crowd::CLIENTS;
use crate::crowd::client::{Client, Target};
use crate::lab::cpu::{CpuTimes, SERVERS};
use crate::lab::stand::Way;
use crate::output::{Results, row, table};
use crate::statistics::median;

/// A service must answer within this time.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often a starting service is polled.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Claims per second of a client on its own: slow enough for each to be done before the next.
const LONELY_RATE: u32 = 20;

/// How long a load at a fixed rate lasts.
const SECONDS_AT_RATE: f64 = 5.0;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The folder with the programs of the other build.
    #[arg(long, value_name = "FOLDER")]
    before: PathBuf,
    /// Turns of each load; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Claims of a rush by 256 clients.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    claims: u32,
    /// Claims of one client, one at a time, 20 per second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    lonely: u32,
}

/// What a load is applied to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Variant {
    Before,
    After,
    /// This build, with the outcome in the answer to the claim.
    Prefer,
}

impl Variant {
    const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Prefer => "after, prefer",
        }
    }

    /// Connections of the load. Every variant may have the same number of requests in flight: a client that prefers the
    /// outcome in the answer needs no second connection, except after a 202.
    fn connections(self, clients: u32) -> String {
        match self {
            Self::Before | Self::After => format!("--clients {clients} --followers {clients}"),
            Self::Prefer => format!("--clients {} --ask prefer", clients * 2),
        }
    }
}

/// The figures of a load on both builds.
#[derive(Debug, Serialize)]
pub struct Compared {
    load: String,
    variants: Vec<Measured>,
}

/// Medians of one variant.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    variant: &'static str,
    claims_per_second: f64,
    outcome_p50_ms: f64,
    outcome_p99_ms: f64,
    /// CPU time for each claim, in microseconds, by program.
    cpu_us: BTreeMap<String, f64>,
}

/// The part of a load's result that both builds have.
#[derive(Debug, Deserialize)]
struct LoadResult {
    claims: f64,
    outcome_seconds: f64,
    outcome_p50_ms: f64,
    outcome_p99_ms: f64,
    audit: String,
    errors: u64,
}

/// Measures both builds.
pub async fn run(mysql: &MysqlSettings, arguments: &Arguments) -> anyhow::Result<Vec<Compared>> {
    let here = std::env::current_exe()?;
    let here = here.parent().context("the folder of this program")?;
    let before = Build::start("before", &arguments.before, mysql).await?;
    let after = Build::start("after", here, mysql).await?;
    let mut bench = Bench { before, after, rounds: arguments.rounds };
    let all = [Variant::Before, Variant::After, Variant::Prefer];
    let both = &all[..2];
    let lonely = Load { clients: 1, options: format!("--rate {LONELY_RATE} --accounts {}", arguments.lonely) };
    let rush = Load { clients: CLIENTS, options: format!("--accounts {}", arguments.claims) };
    let mut compared = vec![bench.compare("queue, one claim at a time", Way::Queue, &all, &lonely).await?];
    let queue_rush = bench.compare("queue, a rush", Way::Queue, &all, &rush).await?;
    let rate = queue_rush.variants.first().map_or(f64::NAN, |before| before.claims_per_second / 2.0).round();
    compared.push(queue_rush);
    let at_rate = format!("--rate {rate} --accounts {}", (rate * SECONDS_AT_RATE).round());
    let at_rate = Load { clients: CLIENTS, options: at_rate };
    let name = format!("queue, {rate} claims a second");
    compared.push(bench.compare(&name, Way::Queue, &all, &at_rate).await?);
    compared.push(bench.compare("skiplock, one claim at a time", Way::Skiplock, both, &lonely).await?);
    compared.push(bench.compare("skiplock, a rush", Way::Skiplock, both, &rush).await?);
    Ok(compared)
}

/// What is asked of each variant.
struct Load {
    clients: u32,
    options: String,
}

struct Bench {
    before: Build,
    after: Build,
    rounds: u32,
}

impl Bench {
    async fn compare(&mut self, name: &str, way: Way, variants: &[Variant], load: &Load) -> anyhow::Result<Compared> {
        let mut turns: BTreeMap<Variant, Vec<Turn>> = BTreeMap::new();
        let mut order = variants.to_vec();
        for round in 1..=self.rounds {
            // Each variant goes first in turn, to even out whatever warms up or slows down.
            order.rotate_left(1);
            for &variant in &order {
                terminal::note(&format!("{name}: round {round} of {}, {}", self.rounds, variant.name()));
                let build = if variant == Variant::Before { &mut self.before } else { &mut self.after };
                let turn = build.load(way, &format!("{} {}", variant.connections(load.clients), load.options)).await;
                turns.entry(variant).or_default().push(turn.with_context(|| format!("{name}, {}", variant.name()))?);
            }
        }
        Ok(Compared { load: name.to_owned(), variants: turns.iter().map(Measured::of).collect() })
    }
}

/// One load, and the CPU time that each program took.
struct Turn {
    result: LoadResult,
    cpu: BTreeMap<String, Duration>,
}

impl Measured {
    fn of((variant, turns): (&Variant, &Vec<Turn>)) -> Self {
        let of = |figure: fn(&LoadResult) -> f64| median(turns.iter().map(|turn| figure(&turn.result)));
        let programs = turns.iter().flat_map(|turn| turn.cpu.keys());
        let cpu_us = programs.map(|program| {
            let of = |turn: &Turn| {
                let cpu = turn.cpu.get(program).copied().unwrap_or_default();
                cpu.as_secs_f64() * 1e6 / turn.result.claims
            };
            (program.clone(), median(turns.iter().map(of)))
        });
        Self {
            variant: variant.name(),
            claims_per_second: of(|result| result.claims / result.outcome_seconds),
            outcome_p50_ms: of(|result| result.outcome_p50_ms),
            outcome_p99_ms: of(|result| result.outcome_p99_ms),
            cpu_us: cpu_us.collect(),
        }
    }

    fn figures(&self) -> Vec<f64> {
        let cpu = self.cpu_us.values().copied();
        [self.claims_per_second, self.outcome_p50_ms, self.outcome_p99_ms].into_iter().chain(cpu).collect()
    }
}

/// The programs of a build, running.
struct Build {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    apis: [(Way, Url); 2],
    /// Each with the name under which its CPU time is shown.
    services: Vec<(&'static str, Child)>,
    next_campaign: u64,
}

impl Build {
    async fn start(name: &str, folder: &Path, mysql: &MysqlSettings) -> anyhow::Result<Self> {
        let database = mysql.mysql_url.with_path(&format!("coupon_{name}"));
        let environment = vec![
            ("COUPON_MYSQL_URL", String::from(database.reveal())),
            ("COUPON_NAMESPACE", format!("bench-{name}")),
            ("OTEL_SDK_DISABLED", String::from("true")),
            ("AUTH", String::from("none")),
            ("ADMIN_LISTEN", String::from("127.0.0.1:0")),
            ("LOG", String::from("error")),
        ];
        let apis = [(Way::Queue, free_address().await?), (Way::Skiplock, free_address().await?)];
        let mut build = Self { folder: folder.to_owned(), environment, apis, services: Vec::new(), next_campaign: 1 };
        build.output("couponctl", "migrate").await?;
        build.output("couponctl", "reset --yes").await?;
        for (way, url) in build.apis.clone() {
            build.spawn("API", way.api(), url.authority())?;
        }
        build.spawn("consumer", "queue-consumer", "127.0.0.1:0")?;
        Ok(build)
    }

    fn spawn(&mut self, name: &'static str, program: &str, listen: &str) -> anyhow::Result<()> {
        let child = self.command(program).env("LISTEN", listen).kill_on_drop(true).spawn();
        self.services.push((name, child.with_context(|| format!("cannot start {program}"))?));
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        command.envs(self.environment.iter().map(|(name, value)| (*name, value))).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and returns what it prints.
    async fn output(&self, program: &str, line: &str) -> anyhow::Result<Vec<u8>> {
        let output = self.command(program).args(line.split_whitespace()).output().await;
        let output = output.with_context(|| format!("cannot start {}", self.folder.join(program).display()))?;
        ensure!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// Applies a load to a campaign of its own.
    async fn load(&mut self, way: Way, options: &str) -> anyhow::Result<Turn> {
        let campaign = self.next_campaign;
        self.next_campaign += 1;
        let accounts = options.split_whitespace().skip_while(|word| *word != "--accounts").nth(1).unwrap_or("1");
        self.output("couponctl", &format!("campaign create --id {campaign} --coupons {accounts}")).await?;
        let url = self.apis.iter().find(|(of, _)| *of == way).map(|(_, url)| url).context("an API")?;
        wait_for(url, campaign).await?;
        let before = self.cpu_times();
        let line = format!("--json load --url {url} --campaign {campaign} --trace-ratio 0 {options}");
        let result = self.output("coupon-bench", &line).await?;
        let cpu = self.cpu_times().since(&before);
        let [result]: [LoadResult; 1] = serde_json::from_slice(&result).context("the result of a load")?;
        ensure!(result.errors == 0 && result.audit == "clean", "{result:?}");
        Ok(Turn { result, cpu })
    }

    fn cpu_times(&self) -> CpuTimes {
        let services = self.services.iter().filter_map(|(name, service)| Some((*name, service.id()?)));
        CpuTimes::of(services, &SERVERS)
    }
}

/// An address with a port that is free now, chosen here because the two versions may report theirs differently.
async fn free_address() -> anyhow::Result<Url> {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    Ok(Url::parse(&format!("http://{address}"))?)
}

/// Waits until an API knows a campaign.
async fn wait_for(api: &Url, campaign: u64) -> anyhow::Result<()> {
    let mut client = Client::new(Target::new(api)?);
    let (path, end) = (format!("/v1/campaigns/{campaign}"), Instant::now() + START_DEADLINE);
    loop {
        match client.send(Method::GET, &path, String::new(), []).await {
            Ok((StatusCode::OK, _)) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Ok((status, _)) if Instant::now() > end => bail!("{api}{path} answers {status}"),
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

impl Results for Vec<Compared> {
    fn print(&self) -> io::Result<()> {
        self.iter().try_for_each(Compared::print)
    }

    fn is_clean(&self) -> bool {
        true
    }
}

impl Compared {
    fn print(&self) -> io::Result<()> {
        let Some(before) = self.variants.first() else { return Ok(()) };
        let programs = before.cpu_us.keys().map(|program| format!("{program} µs"));
        let names = ["claims a second", "p50 ms", "p99 ms"].map(String::from).into_iter().chain(programs);
        let mut table = table([self.load.clone()].into_iter().chain(names));
        for measured in &self.variants {
            table.add_row(row(measured.variant, measured.figures().iter().map(|figure| format!("{figure:.1}"))));
        }
        for measured in self.variants.iter().skip(1) {
            let ratios = measured.figures().into_iter().zip(before.figures()).map(|(after, before)| after / before);
            table.add_row(row(&format!("{} / before", measured.variant), ratios.map(|ratio| format!("{ratio:.2}"))));
        }
        print(&table)
    }
}
