//! What each way does with a burst: far more claims in a second than it can settle.
//!
//! Invariants: every burst has services and a campaign of its own, and equal clients; the cases take turns. A burst whose audit
//! fails gives no figures. A claim that is refused is a result, not a failure.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use coupon_core::terminal::{self, print};
use serde::Serialize;

use super::load;
use crate::crowd::{CLIENTS, Crowd};
use crate::lab::campaigns::make_campaign;
use crate::lab::machine::{Notes, Provenance};
use crate::lab::memory::{Memory, Watch};
use crate::lab::setup::{COALESCED, NO_BROKER, QUEUE, SELECT_UPDATE, Setup};
use crate::output::{self, Results, row, table};
use crate::statistics::{Latencies, median};

/// How long to wait for an outcome: as long as the largest burst takes on a slow machine.
const PATIENCE_SECONDS: u64 = 3_600;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Claims, each by an account of its own, at one coupon for each.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    claims: u64,
    /// How many of them are due in each second.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Connections that claim; each has one claim in flight, and the next one waits for it.
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    clients: u32,
    /// Turns of each burst. The medians are shown, and the percentiles of the claims of all turns.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// The file for all figures as JSON, written after each turn.
    #[arg(long, value_name = "FILE", default_value = "target/burst/report.json")]
    pub report: PathBuf,
    #[command(flatten)]
    notes: Notes,
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Bursts {
    #[serde(flatten)]
    provenance: Provenance,
    claims: u64,
    rate: u32,
    clients: u32,
    cases: Vec<Case>,
    /// One line for each burst whose audit failed.
    failures: Vec<String>,
}

/// A burst on one setup, with its turns.
#[derive(Debug, Serialize)]
struct Case {
    contender: &'static str,
    #[serde(skip)]
    setup: &'static Setup,
    turns: Vec<Turn>,
}

#[derive(Debug, Serialize)]
struct Turn {
    /// Claims that were answered with "accepted" or with their outcome.
    accepted: u64,
    /// Claims that were refused for now.
    refused: u64,
    /// Claims with another answer, or with none.
    failed: u64,
    /// From the first claim to the answer of the last.
    answer_seconds: f64,
    /// From the first claim to the last outcome.
    outcome_seconds: f64,
    to_answer: Latencies,
    to_outcome: Latencies,
    memory: Vec<Memory>,
}

/// Runs every burst, in turns.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Bursts> {
    let &Arguments { claims, rate, clients, turns, .. } = arguments;
    output::check_writable(&arguments.report)?;
    let case = |setup: &'static Setup| Case { contender: setup.name, setup, turns: Vec::new() };
    let mut bursts = Bursts {
        provenance: Provenance::ask(mysql, redis, amqp, &arguments.notes).await?,
        claims,
        rate,
        clients,
        cases: [&QUEUE, &NO_BROKER, &COALESCED, &SELECT_UPDATE].map(case).into(),
        failures: Vec::new(),
    };
    let crowd =
        Crowd { rate: Some(rate), followers: CLIENTS, patience: PATIENCE_SECONDS, ..Crowd::of(claims, clients, 0.0) };
    for turn in 1..=turns {
        for case in &mut bursts.cases {
            terminal::note(&format!("turn {turn} of {turns}: {}", case.contender));
            match case.burst(mysql, crowd.clone()).await.with_context(|| case.contender)? {
                Ok(turn) => case.turns.push(turn),
                Err(line) => bursts.failures.push(line),
            }
        }
        output::write(&arguments.report, &bursts)?;
    }
    Ok(bursts)
}

impl Case {
    /// Runs the burst once. Returns its figures, or a line that says what the audit found.
    async fn burst(&self, mysql: &Mysql, crowd: Crowd) -> anyhow::Result<Result<Turn, String>> {
        let stand = self.setup.start().await?;
        let campaign = make_campaign(mysql, self.contender, crowd.accounts).await?;
        let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
        let watch = Watch::start(stand.services());
        let result = load::run(mysql, self.contender, &load).await?;
        let memory = watch.end();
        load::drain(mysql, &stand).await?;
        if !result.keeps_promises() {
            return Ok(Err(format!("{}: audit {}", self.contender, result.audit)));
        }
        let course = result.course.context("the course of a load")?;
        Ok(Ok(Turn {
            accepted: result.claims - result.errors,
            refused: result.refused,
            failed: result.errors - result.refused,
            answer_seconds: result.accept_seconds,
            outcome_seconds: result.outcome_seconds,
            to_answer: course.to_answer,
            to_outcome: course.to_outcome,
            memory,
        }))
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of))
    }

    /// A latency of all turns together, in milliseconds.
    fn latency(&self, of: impl Fn(&Turn) -> &Latencies, share: f64) -> String {
        let all = Latencies::of_all(self.turns.iter().map(of));
        all.map_or_else(|_| String::from("?"), |all| format!("{:.0}", all.quantile_ms(share)))
    }

    fn row(&self) -> [String; 8] {
        let figure = |of: fn(&Turn) -> f64| format!("{:.0}", self.median(of));
        let quantiles = |of: fn(&Turn) -> &Latencies| format!("{} / {}", self.latency(of, 0.5), self.latency(of, 0.99));
        [
            figure(|turn| turn.accepted as f64),
            figure(|turn| turn.refused as f64),
            figure(|turn| turn.failed as f64),
            quantiles(|turn| &turn.to_answer),
            quantiles(|turn| &turn.to_outcome),
            format!("{:.1}", self.median(|turn| turn.answer_seconds)),
            format!("{:.1}", self.median(|turn| turn.outcome_seconds)),
            figure(|turn| turn.memory.iter().map(|service| service.peak_mib).sum()),
        ]
    }
}

impl Results for Bursts {
    fn print(&self) -> io::Result<()> {
        let title = format!("{} claims, {} a second", self.claims, self.rate);
        let counts = ["accepted", "refused", "failed"];
        let times = ["p50 / p99 to answer, ms", "to outcome, ms", "s to the last answer", "to the last outcome"];
        let columns = counts.into_iter().chain(times).chain(["memory of the services, MiB"]);
        let mut table = table([title].into_iter().chain(columns.map(String::from)));
        for case in self.cases.iter().filter(|case| !case.turns.is_empty()) {
            table.add_row(row(case.contender, case.row()));
        }
        print(&table)?;
        self.failures.iter().try_for_each(print)
    }

    fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}
