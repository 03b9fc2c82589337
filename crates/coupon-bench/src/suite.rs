//! Every figure that the documents name, measured in one run: pairs of settings in turns, medians, an audit after each
//! load. The result is a list of checks, each with what was measured, what was wanted and whether it holds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use coupon_core::broker::{self, Queues};
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, Namespace, NamespaceSettings, RedisSettings};
use coupon_core::terminal;
use hyper::Method;
use mysql_async::prelude::Queryable;
use serde::Serialize;

use crate::ceilings::{self, Ceilings};
use crate::compare::{self, Machine, Servers};
use crate::load::{self, Crowd, LoadResult};
use crate::memory::{Memory, Watch};
use crate::stand::{Service, Stand};
use crate::tracing_cost::median;
use crate::{code, report};

/// The crowd of most figures.
const CLIENTS: u32 = 256;

/// Claims a second on each way in the long run: a fraction of what they can do, as both run beside each other.
const ENDURANCE_RATE: f64 = 1_500.0;

/// The metric that counts what producer-api has published.
const CONFIRMS: &str = "coupon_publisher_confirms_total";

/// As the bench traces everywhere.
const TRACE_RATIO: f64 = 0.01;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Under ten minutes: fewer turns and smaller campaigns.
    #[arg(long)]
    quick: bool,
    /// Measure this part alone.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// The target folder in which `cargo bench` has left what our own code takes: its figures go into the report.
    #[arg(long, value_name = "FOLDER")]
    code: Option<PathBuf>,
    /// Where to write the checks and all figures, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/report.json")]
    report: PathBuf,
    /// Version of RabbitMQ to note in the report; the broker does not tell its clients.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    rabbitmq_version: String,
    #[command(flatten)]
    namespace: NamespaceSettings,
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    Ways,
    Growth,
    Replicas,
    Campaigns,
    SoldOut,
    HalfRate,
    Settings,
    Backlog,
    Endurance,
}

impl Part {
    /// What a quick run can do without.
    fn takes_long(self) -> bool {
        self == Self::Settings
    }
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
    memory: Vec<Memory>,
    /// Issued by each consumer.
    shares: Vec<f64>,
    #[serde(flatten)]
    result: LoadResult,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    checks: &'a [Check],
    /// The stages of each round.
    ceilings: &'a [Ceilings],
    turns: &'a [Turn],
    servers: &'a Servers,
    machine: Machine,
    quick: bool,
}

/// What an API does after sell-out.
struct SoldOut {
    /// Requests a second, of what the empty endpoint answers: 1 = as many.
    of_empty: f64,
    /// What the servers see of a request.
    statements: f64,
    confirms: f64,
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
    let quick = arguments.quick;
    let mut suite = Suite { mysql, redis, amqp, quick, checks: Vec::new(), ceilings: Vec::new(), turns: Vec::new() };
    let servers = compare::servers(mysql, redis, &arguments.rabbitmq_version).await?;
    let is_wanted = |part: &Part| match arguments.only {
        Some(only) => only == *part,
        None => !(arguments.quick && part.takes_long()),
    };
    for part in Part::value_variants().iter().filter(|part| is_wanted(part)) {
        suite.measure(*part, &arguments.namespace.namespace).await?;
        // After each part: what was measured is not lost to a later one.
        report::write(&arguments.report, &suite.report(&servers))?;
    }
    if let Some(target) = &arguments.code {
        suite.code(target)?;
        report::write(&arguments.report, &suite.report(&servers))?;
    }
    report::checks(&suite.report(&servers), &suite.checks, json)?;
    let clean = suite.turns.iter().all(|turn| turn.result.is_clean());
    Ok(clean && suite.checks.iter().all(|check| check.holds))
}

struct Suite<'a> {
    mysql: &'a Mysql,
    redis: &'a RedisSettings,
    amqp: &'a AmqpSettings,
    quick: bool,
    checks: Vec<Check>,
    ceilings: Vec<Ceilings>,
    turns: Vec<Turn>,
}

impl Suite<'_> {
    async fn measure(&mut self, part: Part, namespace: &Namespace) -> anyhow::Result<()> {
        match part {
            Part::Ways => self.ways().await.context("both ways"),
            Part::Growth => self.growth().await.context("growth"),
            Part::Replicas => self.replicas().await.context("replicas"),
            Part::Campaigns => self.many_campaigns().await.context("many campaigns"),
            Part::SoldOut => self.sold_out().await.context("sold out"),
            Part::HalfRate => self.half_rate().await.context("half of the rate"),
            Part::Settings => self.settings().await.context("other settings"),
            Part::Backlog => self.backlog(namespace).await.context("a long queue"),
            Part::Endurance => self.endurance().await.context("a long run"),
        }
    }

    fn report<'a>(&'a self, servers: &'a Servers) -> Report<'a> {
        let (checks, ceilings, turns) = (&self.checks, &self.ceilings, &self.turns);
        Report { checks, ceilings, turns, servers, machine: Machine::this(), quick: self.quick }
    }

    fn check(&mut self, name: &str, measured: f64, wanted: &str, holds: bool) {
        terminal::note(&format!("{}: {name}: {measured:.2}, wanted {wanted}", if holds { "holds" } else { "FAILS" }));
        self.checks.push(Check { name: name.to_owned(), measured, wanted: wanted.to_owned(), holds });
    }

    fn at_least(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!(">= {wanted}"), measured >= wanted);
    }

    fn at_most(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!("<= {wanted}"), measured <= wanted);
    }

    /// A figure that nothing is wanted of but that there is one.
    fn tell(&mut self, name: &str, measured: f64) {
        self.check(name, measured, "told", measured > 0.0);
    }

    fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// One load on a way that is started for it and ended with it.
    async fn turn(&mut self, setup: &Setup, coupons: u64, crowd: Crowd) -> anyhow::Result<usize> {
        let turn = load_on(self.mysql, setup, coupons, crowd).await?;
        Ok(self.note(turn))
    }

    /// Loads in turns, so that a slow moment of the machine meets them alike: the turns of each.
    async fn in_turns<const N: usize>(&mut self, loads: [(&Setup, u64, Crowd); N]) -> anyhow::Result<[Vec<usize>; N]> {
        let mut turns = [const { Vec::new() }; N];
        for _ in 0..self.rounds() {
            self.round(&loads, &mut turns).await?;
        }
        Ok(turns)
    }

    /// One turn of each.
    async fn round(&mut self, loads: &[(&Setup, u64, Crowd)], turns: &mut [Vec<usize>]) -> anyhow::Result<()> {
        for ((setup, coupons, crowd), turns) in loads.iter().zip(turns) {
            turns.push(self.turn(setup, *coupons, crowd.clone()).await?);
        }
        Ok(())
    }

    /// What each stage does alone, in one round.
    async fn stages(&mut self) -> anyhow::Result<()> {
        let arguments = ceilings::Arguments { seconds: if self.quick { 1 } else { 3 }, clients: CLIENTS };
        let round = ceilings::measure(self.mysql, self.redis, self.amqp, &arguments).await?;
        self.ceilings.push(round);
        Ok(())
    }

    fn note(&mut self, turn: Turn) -> usize {
        self.turns.push(turn);
        self.turns.len() - 1
    }

    /// What its own rate was in the loads of this run, the large ones.
    async fn rate_of(&mut self, setup: &Setup) -> anyhow::Result<f64> {
        let is_one = |turn: &&Turn| turn.name == setup.name && turn.result.claims >= 10_000;
        if !self.turns.iter().any(|turn| is_one(&turn)) {
            self.turn(setup, 50_000, Crowd::of(50_000, CLIENTS, TRACE_RATIO)).await?;
        }
        Ok(median(&self.turns.iter().filter(is_one).map(|turn| turn.claims_per_second).collect::<Vec<_>>()))
    }

    fn check_memory(&mut self, when: &str, memory: &[Memory]) {
        for Memory { program, peak_mib, .. } in memory {
            self.at_most(&format!("8: {program}, most memory {when}, MiB"), *peak_mib, 64.0);
        }
    }

    fn median_of(&self, turns: &[usize], figure: impl Fn(&Turn) -> f64) -> f64 {
        median(&turns.iter().filter_map(|&turn| self.turns.get(turn)).map(figure).collect::<Vec<_>>())
    }

    /// The two ways against their simpler selves and against their limits.
    async fn ways(&mut self) -> anyhow::Result<()> {
        let coupons = if self.quick { 20_000 } else { 100_000 };
        // What takes a claim at a time needs fewer to show its rate.
        let (all, few) = (coupons, coupons / if self.quick { 4 } else { 10 });
        let load = |setup, accounts| (setup, coupons, Crowd::of(accounts, CLIENTS, TRACE_RATIO));
        let loads =
            [load(&COALESCED, all), load(&SELECT_UPDATE, few), load(&DEFAULT_QUEUE, all), load(&ONE_BY_ONE, few)];
        let mut turns = [const { Vec::new() }; 4];
        for _ in 0..self.rounds() {
            // Among the loads: the limits are to be of the same moments as what is held against them.
            self.stages().await?;
            self.round(&loads, &mut turns).await?;
        }
        let ceilings = Ceilings::of_rounds(&self.ceilings);
        for stage in &ceilings.stages {
            self.tell(&format!("1: {}, claims a second", stage.stage), stage.per_second);
        }
        self.tell("1: limit of the queue way, claims a second", ceilings.queue_limit);
        self.tell("1: limit of the skiplock way, claims a second", ceilings.skiplock_limit);
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

        let load = |setup| (setup, 3_000, Crowd::of(1_500, 1, TRACE_RATIO));
        let [coalesced, single] = &self.in_turns([load(&COALESCED), load(&SINGLE_STATEMENT)]).await?;
        let p50 = |turn: &Turn| turn.result.outcome_p50_ms;
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
            backup.disconnect().await?;
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
        let coupons = if self.quick { 20_000 } else { 60_000 };
        let loads = REPLICAS.each_ref().map(|setup| (setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO)));
        let turns = self.in_turns(loads).await?;
        let rates: Vec<f64> = turns.iter().map(|turns| self.median_of(turns, |turn| turn.claims_per_second)).collect();
        let one = rates.first().copied().unwrap_or(f64::NAN);
        for (setup, rate) in REPLICAS.iter().zip(&rates).skip(1) {
            self.at_least(&format!("5: {} / 1", setup.name), rate / one, 0.9);
        }
        for (setup, turns) in REPLICAS.iter().zip(&turns).skip(1) {
            let least = self.median_of(turns, |turn| {
                let fair = turn.shares.iter().sum::<f64>() / turn.shares.len() as f64;
                turn.shares.iter().copied().fold(f64::INFINITY, f64::min) / fair
            });
            self.at_least(&format!("5: {}, the least share / a fair one", setup.name), least, 0.5);
        }
        Ok(())
    }

    /// Statements that MySQL has seen.
    async fn statements(&self) -> anyhow::Result<f64> {
        let mut conn = self.mysql.connection().await?;
        let row: Option<(String, f64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await?;
        Ok(row.context("the count of statements")?.1)
    }

    /// After sell-out an API answers from memory.
    async fn sold_out(&mut self) -> anyhow::Result<()> {
        for way in ["queue", "skiplock"] {
            let mut rounds = Vec::new();
            for _ in 0..self.rounds() {
                rounds.push(self.sold_out_round(way).await?);
            }
            let figure = |figure: fn(&SoldOut) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
            let (rate, statements) = (figure(|round| round.of_empty), figure(|round| round.statements));
            self.at_least(&format!("6: {way}, sold out / empty endpoint, requests a second"), rate, 0.5);
            self.at_most(&format!("6: {way}, sold out, statements in MySQL / requests"), statements, 0.01);
            if way == "queue" {
                let confirms = figure(|round| round.confirms);
                self.at_most("6: queue, sold out, confirms of RabbitMQ / requests", confirms, 0.01);
            }
        }
        Ok(())
    }

    async fn sold_out_round(&self, way: &str) -> anyhow::Result<SoldOut> {
        let time = Duration::from_secs(if self.quick { 1 } else { 3 });
        let empty = ceilings::empty_http(CLIENTS, time).await?;
        let stand = Stand::start(way, 1, &[("OTEL_SDK_DISABLED", String::from("true"))]).await?;
        let campaign = compare::make_campaign(self.mysql, "sold out", 1).await?;
        let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd: Crowd::of(100, 10, 0.0) };
        anyhow::ensure!(load::run(self.mysql, way, &load).await?.is_clean(), "the sell-out was not clean");
        let path = format!("/v1/campaigns/{campaign}/claims");
        let body = |n: u64| format!("{{\"account_id\":{}}}", 1_000_000 + n);
        let seen = async || anyhow::Ok((self.statements().await?, stand.api_metric(CONFIRMS).await?));
        let before = seen().await?;
        anyhow::ensure!(way != "queue" || before.1 > 0.0, "no confirms are counted");
        let rate = ceilings::requests(stand.api()?, &path, Method::POST, body, CLIENTS, time).await?;
        let after = seen().await?;
        let requests = rate * time.as_secs_f64();
        let (statements, confirms) = ((after.0 - before.0) / requests, (after.1 - before.1) / requests);
        Ok(SoldOut { of_empty: rate / empty, statements, confirms })
    }

    /// What our own code takes for a claim.
    fn code(&mut self, target: &Path) -> anyhow::Result<()> {
        for code::Step { name, nanoseconds, instructions } in code::read(target)? {
            self.tell(&format!("9: {name}, ns a claim"), nanoseconds);
            self.tell(&format!("9: {name}, instructions a claim"), instructions);
        }
        Ok(())
    }

    /// A thousand campaigns at once, of which each is claimed from a little.
    async fn many_campaigns(&mut self) -> anyhow::Result<()> {
        let coupons = if self.quick { 50_000 } else { 100_000 };
        for setup in [&DEFAULT_QUEUE, &COALESCED] {
            let of = |campaigns| (setup, coupons, Crowd { campaigns, ..Crowd::of(coupons, CLIENTS, TRACE_RATIO) });
            let turns = self.in_turns([of(1), of(1_000)]).await?;
            let [one, thousand] = turns.map(|turns| self.median_of(&turns, |turn| turn.claims_per_second));
            self.at_least(&format!("5: {}, 1,000 campaigns / 1", setup.name), thousand / one, 0.7);
        }
        Ok(())
    }

    /// Latency when the crowd is half of what a way can take.
    async fn half_rate(&mut self) -> anyhow::Result<()> {
        for setup in [&DEFAULT_QUEUE, &COALESCED] {
            let (rate, seconds) = (self.rate_of(setup).await? / 2.0, if self.quick { 10.0 } else { 60.0 });
            let turn = steady(self.mysql, setup, rate, seconds).await?;
            let turn = self.note(turn);
            for (what, figure) in [
                ("p50 to the answer", (|turn| turn.result.p50_ms) as fn(&Turn) -> f64),
                ("p99 to the answer", |turn| turn.result.p99_ms),
                ("p99.9 to the answer", |turn| turn.result.p999_ms),
                ("p50 to the outcome", |turn| turn.result.outcome_p50_ms),
                ("p99 to the outcome", |turn| turn.result.outcome_p99_ms),
                ("p99.9 to the outcome", |turn| turn.result.outcome_p999_ms),
            ] {
                let measured = self.median_of(&[turn], figure);
                self.tell(&format!("7: {}, {what} at half rate, ms", setup.name), measured);
            }
        }
        Ok(())
    }

    /// What other values do to the rate, one setting at a time, and the strategies beside each other.
    async fn settings(&mut self) -> anyhow::Result<()> {
        static QUEUE: [Setup; 9] = [
            queue("queue", 1, &[]),
            queue("queue, CLAIMS_PER_MESSAGE=1", 1, &[("CLAIMS_PER_MESSAGE", "1")]),
            queue("queue, CLAIMS_PER_MESSAGE=10", 1, &[("CLAIMS_PER_MESSAGE", "10")]),
            queue("queue, BATCH_MAX=100", 1, &[("BATCH_MAX", "100")]),
            queue("queue, BATCH_MAX=2000", 1, &[("BATCH_MAX", "2000")]),
            queue("queue, PREFETCH=10", 1, &[("PREFETCH", "10")]),
            queue("queue, PREFETCH=1000", 1, &[("PREFETCH", "1000")]),
            queue("queue, REFILL_MAX=1000", 1, &[("REFILL_MAX", "1000")]),
            queue("queue, HTTP_WORKERS=1", 1, &[("HTTP_WORKERS", "1")]),
        ];
        static SKIPLOCK: [Setup; 6] = [
            skiplock("coalesced", &[]),
            skiplock("coalesced, CLAIM_GROUPS=1", &[("CLAIM_GROUPS", "1")]),
            skiplock("coalesced, CLAIM_GROUPS=4", &[("CLAIM_GROUPS", "4")]),
            skiplock("coalesced, GROUP_MAX=20", &[("GROUP_MAX", "20")]),
            skiplock("coalesced, GROUP_MAX=100", &[("GROUP_MAX", "100")]),
            skiplock("coalesced, HTTP_WORKERS=1", &[("HTTP_WORKERS", "1")]),
        ];
        static STRATEGIES: [Setup; 5] = [
            skiplock("select-update", &[("STRATEGY", "select-update")]),
            skiplock("single-statement", &[("STRATEGY", "single-statement")]),
            skiplock("scattered", &[("STRATEGY", "scattered")]),
            skiplock("for-update", &[("STRATEGY", "for-update")]),
            skiplock("blind-update", &[("STRATEGY", "blind-update")]),
        ];
        self.against_the_first(QUEUE.each_ref(), 30_000).await?;
        self.against_the_first(SKIPLOCK.each_ref(), 30_000).await?;
        self.against_the_first(STRATEGIES.each_ref(), 5_000).await
    }

    async fn against_the_first<const N: usize>(&mut self, setups: [&Setup; N], claims: u64) -> anyhow::Result<()> {
        let loads = setups.map(|setup| (setup, claims, Crowd::of(claims, CLIENTS, TRACE_RATIO)));
        let rates = self.in_turns(loads).await?.map(|turns| self.median_of(&turns, |turn| turn.claims_per_second));
        let mut measured = setups.iter().zip(rates);
        let (first, rate_of_first) = measured.next().context("setups to compare")?;
        for (setup, rate) in measured {
            self.tell(&format!("settings: {} / {}", setup.name, first.name), rate / rate_of_first);
        }
        Ok(())
    }

    /// Memory over a long run of both ways beside each other, and how soon a service is ready.
    async fn endurance(&mut self) -> anyhow::Result<()> {
        let seconds = if self.quick { 20.0 } else { 600.0 };
        let (queue, coalesced) = tokio::try_join!(
            steady(self.mysql, &DEFAULT_QUEUE, ENDURANCE_RATE, seconds),
            steady(self.mysql, &COALESCED, ENDURANCE_RATE, seconds),
        )?;
        for turn in [queue, coalesced] {
            let memory = turn.memory.clone();
            self.note(turn);
            self.check_memory(&format!("with 1,000 connections for {seconds} s"), &memory);
            for Memory { program, fifths_mib, ready_in_seconds, .. } in memory {
                // A quick run is over while caches still fill.
                if let [_, second, .., last] = fifths_mib.as_slice()
                    && !self.quick
                {
                    let name = format!("8: {program}, memory in the last fifth of {seconds} s / in the second");
                    self.at_most(&name, last / second, 1.1);
                }
                self.at_most(&format!("8: {program}, ready after its start, s"), ready_in_seconds, 1.0);
            }
        }
        Ok(())
    }

    /// A consumer that comes late: all claims wait in the queue when it starts.
    async fn backlog(&mut self, namespace: &Namespace) -> anyhow::Result<()> {
        let claims = if self.quick { 100_000 } else { 1_000_000 };
        terminal::note(&format!("a queue of {claims} claims"));
        let environment = [("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))];
        let stand = Stand::start("queue", 0, &environment).await?;
        let campaign = compare::make_campaign(self.mysql, "backlog", claims / 10).await?;
        let crowd = Crowd { followers: CLIENTS, patience: 600, ..Crowd::of(claims, 1_000 - CLIENTS, 0.0) };
        let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd };
        let watch = Watch::start(&stand.services);
        let late = async {
            until_all_wait(self.amqp, namespace).await?;
            let consumer = Service::start("queue-consumer", &environment).await?;
            watch.add(&consumer);
            anyhow::Ok(consumer)
        };
        let (result, consumer) = tokio::join!(load::run(self.mysql, "backlog", &load), late);
        drop(consumer?);
        let memory = watch.end();
        self.check_memory(&format!("with 1,000 connections and {claims} claims waiting"), &memory);
        self.note(Turn::new("backlog", result?, memory, Vec::new()));
        Ok(())
    }
}

impl Turn {
    fn new(name: &str, result: LoadResult, memory: Vec<Memory>, shares: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            claims_per_second: result.claims as f64 / result.outcome_seconds,
            accepted_per_second: result.claims as f64 / result.accept_seconds,
            memory,
            shares,
            // Nobody looks them up: most runs have no Jaeger beside them.
            result: LoadResult { trace_ids: Vec::new(), ..result },
        }
    }
}

async fn load_on(mysql: &Mysql, setup: &Setup, coupons: u64, crowd: Crowd) -> anyhow::Result<Turn> {
    terminal::note(&format!("{}: {} claims at {coupons} coupons", setup.name, crowd.accounts));
    let own = setup.environment.iter().map(|(name, value)| (*name, String::from(*value)));
    let environment: Vec<_> = own.chain([("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))]).collect();
    let stand = Stand::start(setup.way, setup.consumers, &environment).await?;
    let campaign = compare::make_campaigns(mysql, setup.name, crowd.campaigns, coupons).await?;
    let load = load::Arguments { url: stand.api()?.clone(), campaign, crowd };
    let watch = Watch::start(&stand.services);
    let result = load::run(mysql, setup.name, &load).await?;
    let memory = watch.end();
    let mut shares = Vec::new();
    for consumer in stand.services.iter().skip(1) {
        shares.push(consumer.metric("coupon_claims_total", "issued").await?);
    }
    Ok(Turn::new(setup.name, result, memory, shares))
}

/// So many claims a second over a thousand connections.
async fn steady(mysql: &Mysql, setup: &Setup, rate: f64, seconds: f64) -> anyhow::Result<Turn> {
    let accounts = format!("{:.0}", rate * seconds).parse()?;
    let followers = if setup.way == "queue" { CLIENTS } else { 0 };
    let of_rate = Crowd::of(accounts, 1_000 - followers, TRACE_RATIO);
    let crowd = Crowd { rate: Some(format!("{rate:.0}").parse()?), followers: CLIENTS, ..of_rate };
    load_on(mysql, setup, accounts, crowd).await
}

/// Waits until the queue of claims has stopped to grow.
async fn until_all_wait(amqp: &AmqpSettings, namespace: &Namespace) -> anyhow::Result<()> {
    let queues = Queues::new(namespace, amqp);
    let connection = broker::connect(amqp, "coupon-bench").await?;
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = broker::message_count(&connection, &queues.claims).await?.unwrap_or(0);
        if now > 0 && now == before {
            return Ok(());
        }
        before = now;
    }
}
