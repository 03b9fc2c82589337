//! Every figure that the documents name, measured in one run: pairs of settings in turns, medians, an audit after each
//! load. The result is a list of checks, each with what was measured, what was wanted and whether it holds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use hyper::Method;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;

use crate::ceilings::{self, Ceilings};
use crate::compare::{self, Machine, Servers};
use crate::load::{self, Crowd, LoadResult};
use crate::report;
use crate::stand::Stand;
use crate::tracing_cost::median;

/// The crowd of most figures.
const CLIENTS: u32 = 256;

/// As the bench traces everywhere.
const TRACE_RATIO: f64 = 0.01;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Under ten minutes: fewer turns and smaller campaigns.
    #[arg(long)]
    quick: bool,
    /// Where to write the checks and all figures, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/report.json")]
    report: PathBuf,
    /// Version of RabbitMQ to note in the report; the broker does not tell its clients.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    rabbitmq_version: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub measured: f64,
    pub wanted: String,
    pub holds: bool,
}

/// A load of the run.
#[derive(Debug, Serialize)]
struct Turn {
    name: String,
    claims_per_second: f64,
    accepted_per_second: f64,
    #[serde(flatten)]
    result: LoadResult,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    checks: &'a [Check],
    ceilings: &'a Ceilings,
    turns: &'a [Turn],
    servers: Servers,
    machine: Machine,
    quick: bool,
}

/// A way with settings of its own.
struct Setup {
    name: &'static str,
    way: &'static str,
    consumers: usize,
    environment: &'static [(&'static str, &'static str)],
}

const fn queue(name: &'static str, consumers: usize, environment: &'static [(&'static str, &'static str)]) -> Setup {
    Setup { name, way: "queue", consumers, environment }
}

const fn skiplock(name: &'static str, environment: &'static [(&'static str, &'static str)]) -> Setup {
    Setup { name, way: "skiplock", consumers: 0, environment }
}

static DEFAULT_QUEUE: Setup = queue("queue", 1, &[]);
static ONE_BY_ONE: Setup = queue("queue, one by one", 1, &[("CLAIMS_PER_MESSAGE", "1"), ("BATCH_MAX", "1")]);
static COALESCED: Setup = skiplock("coalesced", &[]);
static SELECT_UPDATE: Setup = skiplock("select-update", &[("STRATEGY", "select-update")]);
static SINGLE_STATEMENT: Setup = skiplock("single-statement", &[("STRATEGY", "single-statement")]);

/// Whether every audit was clean and every check holds.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
    json: bool,
) -> anyhow::Result<bool> {
    let mut suite = Suite { mysql, quick: arguments.quick, checks: Vec::new(), turns: Vec::new() };
    let ceilings = ceilings::measure(
        mysql,
        redis,
        amqp,
        &ceilings::Arguments { seconds: if arguments.quick { 3 } else { 10 }, clients: CLIENTS },
    )
    .await?;
    suite.ways(&ceilings).await.context("both ways")?;
    suite.growth().await.context("growth")?;
    suite.replicas().await.context("replicas")?;
    suite.sold_out(&ceilings).await.context("sold out")?;
    suite.half_rate().await.context("half of the rate")?;
    let report = Report {
        checks: &suite.checks,
        ceilings: &ceilings,
        turns: &suite.turns,
        servers: compare::servers(mysql, redis, &arguments.rabbitmq_version).await?,
        machine: Machine::this(),
        quick: arguments.quick,
    };
    report::write(&arguments.report, &report)?;
    report::checks(&report, &suite.checks, &ceilings, json);
    let clean = suite.turns.iter().all(|turn| turn.result.is_clean());
    Ok(clean && suite.checks.iter().all(|check| check.holds))
}

struct Suite<'a> {
    mysql: &'a Mysql,
    quick: bool,
    checks: Vec<Check>,
    turns: Vec<Turn>,
}

impl Suite<'_> {
    fn check(&mut self, name: &str, measured: f64, wanted: &str, holds: bool) {
        report::note(&format!("{}: {name}: {measured:.2}, wanted {wanted}", if holds { "holds" } else { "FAILS" }));
        self.checks.push(Check { name: name.to_owned(), measured, wanted: wanted.to_owned(), holds });
    }

    fn at_least(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!(">= {wanted}"), measured >= wanted);
    }

    fn at_most(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!("<= {wanted}"), measured <= wanted);
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// One load on a way that is started for it and ended with it.
    async fn turn(&mut self, setup: &Setup, coupons: u64, crowd: Crowd) -> anyhow::Result<usize> {
        report::note(&format!("{}: {} claims at {coupons} coupons", setup.name, crowd.accounts));
        let own = setup.environment.iter().map(|(name, value)| (*name, String::from(*value)));
        let environment: Vec<_> =
            own.chain([("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))]).collect();
        let stand = Stand::start(setup.way, setup.consumers, &environment).await?;
        let campaign = compare::make_campaign(self.mysql, setup.name, coupons).await?;
        let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd };
        let result = load::run(self.mysql, setup.name, &load).await?;
        self.turns.push(Turn {
            name: setup.name.to_owned(),
            claims_per_second: result.claims as f64 / result.outcome_seconds,
            accepted_per_second: result.claims as f64 / result.accept_seconds,
            result,
        });
        Ok(self.turns.len() - 1)
    }

    fn median_of(&self, turns: &[usize], figure: impl Fn(&Turn) -> f64) -> f64 {
        median(&turns.iter().filter_map(|&turn| self.turns.get(turn)).map(figure).collect::<Vec<_>>())
    }

    /// The two ways against their simpler selves and against their limits.
    async fn ways(&mut self, ceilings: &Ceilings) -> anyhow::Result<()> {
        let coupons = if self.quick { 20_000 } else { 100_000 };
        let setups = [&COALESCED, &SELECT_UPDATE, &DEFAULT_QUEUE, &ONE_BY_ONE];
        let mut turns = [const { Vec::new() }; 4];
        for _ in 0..self.rounds() {
            for (setup, turns) in setups.iter().zip(&mut turns) {
                // What takes a claim at a time needs fewer to show its rate.
                let is_slow = setup.name == SELECT_UPDATE.name || setup.name == ONE_BY_ONE.name;
                let accounts = if is_slow { coupons / 4 } else { coupons };
                turns.push(self.turn(setup, coupons, Crowd::of(accounts, CLIENTS, TRACE_RATIO)).await?);
            }
        }
        let [coalesced, select_update, queue, one_by_one] = &turns;
        let rate = |turn: &Turn| turn.claims_per_second;
        let accepted = |turn: &Turn| turn.accepted_per_second;
        let p99 = |turn: &Turn| turn.result.outcome_p99_ms;
        let naive = self.median_of(select_update, rate);
        let ratio = self.median_of(coalesced, rate) / naive;
        let p99s = self.median_of(coalesced, p99) / self.median_of(select_update, p99);
        let batches = self.median_of(queue, rate) / self.median_of(one_by_one, rate);
        let accepted = self.median_of(queue, accepted) / naive;
        let of_queue = self.median_of(queue, rate) / ceilings.queue_limit;
        let of_skiplock = self.median_of(coalesced, rate) / ceilings.skiplock_limit;
        self.at_least("2: coalesced / select-update, claims a second, 256 clients", ratio, 6.0);
        self.at_most("2: coalesced / select-update, p99", p99s, 1.0);
        self.at_least("3: queue, default batches / batches of one, to the last outcome", batches, 4.0);
        self.at_least("3: queue accepted / select-update, claims a second", accepted, 2.0);
        self.at_least("4: queue, of its limit", of_queue, 0.6);
        self.at_least("4: skiplock, of its limit", of_skiplock, 0.6);

        let mut turns = [const { Vec::new() }; 2];
        for _ in 0..self.rounds() {
            for (setup, turns) in [&COALESCED, &SINGLE_STATEMENT].iter().zip(&mut turns) {
                turns.push(self.turn(setup, 3_000, Crowd::of(1_500, 1, TRACE_RATIO)).await?);
            }
        }
        let p50 = |turn: &Turn| turn.result.outcome_p50_ms;
        let [coalesced, single] = &turns;
        let latency = self.median_of(coalesced, p50) / self.median_of(single, p50);
        self.at_most("2: coalesced / single-statement, p50 of 1 client", latency, 1.1);
        Ok(())
    }

    /// One large campaign to the last coupon, and the same beside a snapshot that is held open.
    async fn growth(&mut self) -> anyhow::Result<()> {
        let coupons = if self.quick { 150_000 } else { 1_000_000 };
        for setup in [&DEFAULT_QUEUE, &COALESCED] {
            let turn = self.turn(setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO)).await?;
            let rate = self.median_of(&[turn], |turn| turn.claims_per_second);
            let last = self.median_of(&[turn], |turn| turn.result.last_tenth_to_first);
            self.at_least(&format!("5: {}, last tenth of {coupons} / first tenth", setup.name), last, 0.8);

            let mut backup = self.mysql.connection().await?;
            backup.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            backup.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
            let turn = self.turn(setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO)).await?;
            close(backup).await?;
            let beside = self.median_of(&[turn], |turn| turn.claims_per_second) / rate;
            self.at_least(&format!("5: {}, beside a snapshot / without", setup.name), beside, 0.5);
        }
        Ok(())
    }

    /// More consumers are never much slower than one.
    async fn replicas(&mut self) -> anyhow::Result<()> {
        static REPLICAS: [Setup; 4] = [
            queue("1 consumer", 1, &[]),
            queue("2 consumers", 2, &[]),
            queue("4 consumers", 4, &[]),
            queue("8 consumers", 8, &[]),
        ];
        let coupons = if self.quick { 20_000 } else { 100_000 };
        let mut turns = [const { Vec::new() }; 4];
        for _ in 0..self.rounds() {
            for (setup, turns) in REPLICAS.iter().zip(&mut turns) {
                turns.push(self.turn(setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO)).await?);
            }
        }
        let rates: Vec<f64> = turns.iter().map(|turns| self.median_of(turns, |turn| turn.claims_per_second)).collect();
        let one = rates.first().copied().unwrap_or(f64::NAN);
        for (setup, rate) in REPLICAS.iter().zip(&rates).skip(1) {
            self.at_least(&format!("5: {} / 1", setup.name), rate / one, 0.9);
        }
        Ok(())
    }

    /// After sell-out an API answers from memory.
    async fn sold_out(&mut self, ceilings: &Ceilings) -> anyhow::Result<()> {
        let empty = ceilings.stages.first().map_or(f64::NAN, |stage| stage.per_second);
        let time = Duration::from_secs(if self.quick { 3 } else { 10 });
        for way in ["queue", "skiplock"] {
            let stand = Stand::start(way, 1, &[("OTEL_SDK_DISABLED", String::from("true"))]).await?;
            let campaign = compare::make_campaign(self.mysql, "sold out", 1).await?;
            let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd: Crowd::of(100, 10, 0.0) };
            anyhow::ensure!(load::run(self.mysql, way, &load).await?.is_clean(), "the sell-out was not clean");
            let path = format!("/v1/campaigns/{campaign}/claims");
            let body = |n: u64| format!("{{\"account_id\":{}}}", 1_000_000 + n);
            let rate = ceilings::requests(stand.api()?, &path, Method::POST, body, CLIENTS, time).await?;
            self.at_least(&format!("6: {way}, sold out / empty endpoint, requests a second"), rate / empty, 0.5);
        }
        Ok(())
    }

    /// Latency when the crowd is half of what a way can take.
    async fn half_rate(&mut self) -> anyhow::Result<()> {
        for setup in [&DEFAULT_QUEUE, &COALESCED] {
            let of_setup = self.turns.iter().filter(|turn| turn.name == setup.name && turn.result.claims >= 10_000);
            let rate = median(&of_setup.map(|turn| turn.claims_per_second).collect::<Vec<_>>()) / 2.0;
            let seconds = if self.quick { 5.0 } else { 30.0 };
            let accounts = format!("{:.0}", rate * seconds).parse()?;
            let crowd = Crowd { rate: Some(format!("{rate:.0}").parse()?), ..Crowd::of(accounts, 1_000, TRACE_RATIO) };
            let turn = self.turn(setup, accounts, crowd).await?;
            let (accepted, issued) = (
                self.median_of(&[turn], |turn| turn.result.p99_ms),
                self.median_of(&[turn], |turn| turn.result.outcome_p99_ms),
            );
            self.check(&format!("7: {}, p99 to the answer at half rate, ms", setup.name), accepted, "told", true);
            self.check(&format!("7: {}, p99 to the outcome at half rate, ms", setup.name), issued, "told", true);
        }
        Ok(())
    }
}

async fn close(conn: Conn) -> anyhow::Result<()> {
    Ok(conn.disconnect().await?)
}
