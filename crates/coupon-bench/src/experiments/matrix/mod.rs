//! Measures both ways, their batches and their strategies at several sizes: with as many coupons as claims, and with a
//! tenth as many, which sell out on the way.
//!
//! Invariants: every load has its own services and campaign, and the same clients; the contenders take turns. A load
//! whose audit finds something wrong yields no figures.

mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use coupon_core::terminal;

use self::record::Turn;
pub use self::record::{COLUMNS, Cell, Matrix};
use super::load;
use crate::crowd::{CLIENTS, Crowd};
use crate::lab::campaigns::make_campaign;
use crate::lab::counters::Counters;
use crate::lab::cpu::{CpuTimes, SERVERS};
use crate::lab::machine::{Notes, Servers};
use crate::lab::memory::{Memory, Watch};
use crate::lab::setup::{
    BLIND_UPDATE, COALESCED, FOR_UPDATE, NO_BROKER, ONE_BY_ONE, QUEUE, SCATTERED, SELECT_UPDATE, SINGLE_STATEMENT,
    Setup,
};
use crate::lab::stand::Stand;
use crate::output;

/// The most claims for contenders that handle one at a time; fewer claims are enough to show their rate.
const FEW: u64 = 10_000;

/// The contenders, each with whether it handles many claims together.
static CONTENDERS: [(&Setup, bool); 9] = [
    (&QUEUE, true),
    (&COALESCED, true),
    (&NO_BROKER, true),
    (&ONE_BY_ONE, false),
    (&SELECT_UPDATE, false),
    (&SINGLE_STATEMENT, false),
    (&SCATTERED, false),
    (&FOR_UPDATE, false),
    (&BLIND_UPDATE, false),
];

/// How many contenders a quick run has.
const QUICK_CONTENDERS: usize = 5;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Under six minutes: 1,000 and 10,000 claims, three turns, and the five contenders that differ most.
    #[arg(long, conflicts_with_all = ["claims", "turns", "only"])]
    quick: bool,
    /// Sizes, in claims.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000,10000,100000", value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    claims: Vec<u64>,
    /// Turns of each load; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Only this contender, by its name in the report; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = contender)]
    only: Vec<String>,
    /// Continue with what the report holds, instead of starting over.
    #[arg(long)]
    resume: bool,
    /// Where to write all figures, as JSON, after each load.
    #[arg(long, value_name = "FILE", default_value = "target/compare/report.json")]
    pub report: PathBuf,
    #[command(flatten)]
    notes: Notes,
}

fn contender(text: &str) -> Result<String, String> {
    let names = CONTENDERS.map(|(setup, _)| setup.name);
    if names.contains(&text) { Ok(text.to_owned()) } else { Err(format!("must be one of: {}", names.join("; "))) }
}

/// One load of the matrix.
#[derive(Clone, Copy)]
struct Load {
    setup: &'static Setup,
    claims: u64,
    coupons: u64,
}

impl Arguments {
    /// Every load of a turn.
    fn loads(&self) -> Vec<Load> {
        let sizes = if self.quick { vec![1_000, 10_000] } else { self.claims.clone() };
        let contenders = CONTENDERS.iter().take(if self.quick { QUICK_CONTENDERS } else { CONTENDERS.len() });
        let mut loads = Vec::new();
        for claims in sizes {
            for coupons in [claims, claims / 10] {
                let is_wanted = |setup: &Setup| self.only.is_empty() || self.only.iter().any(|only| only == setup.name);
                let fit = contenders.clone().filter(|(_, takes_many)| *takes_many || claims <= FEW);
                let fit = fit.filter(|(setup, _)| is_wanted(setup));
                loads.extend(fit.map(|(setup, _)| Load { setup, claims, coupons }));
            }
        }
        loads
    }

    fn turns(&self) -> usize {
        if self.quick { 3 } else { self.turns as usize }
    }
}

/// Measures every load that the report does not hold yet.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Matrix> {
    let report = &arguments.report;
    output::check_writable(report)?;
    let servers = Servers::ask(mysql, redis, amqp).await?;
    let mut matrix = Matrix::new(&arguments.notes.revision, CLIENTS, servers);
    if arguments.resume {
        matrix = matrix.resumed(output::read(report, "matrix")?).context("--resume")?;
    }
    let mut loads = arguments.loads();
    let turns = arguments.turns();
    let all = loads.len() * turns;
    let (began, mut measured) = (Instant::now(), 0);
    for turn in 0..turns {
        // Each load goes first in turn, to even out whatever warms up or slows down.
        let by = turn % loads.len().max(1);
        loads.rotate_left(by);
        for load in &loads {
            let place = matrix.cell(load.setup, load.claims, load.coupons);
            if matrix.turns_of(place) > turn {
                continue;
            }
            let done = matrix.loads();
            terminal::note(&format!("load {} of {all}{}: {load}", done + 1, time_left(began, measured, all - done)));
            match load.measure(mysql).await? {
                Ok(turn) => matrix.keep(place, turn),
                Err(line) => matrix.fails(line),
            }
            measured += 1;
            output::write(report, &matrix)?;
        }
        loads.rotate_right(by);
    }
    Ok(matrix)
}

fn time_left(began: Instant, measured: usize, left: usize) -> String {
    if measured == 0 {
        return String::new();
    }
    let left = began.elapsed().div_f64(measured as f64).mul_f64(left as f64);
    format!(", about {} min left", left.as_secs().div_ceil(60))
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} claims for {} coupons", self.setup.name, self.claims, self.coupons)
    }
}

impl Load {
    /// Measures the load. Returns its figures, or a line that says what is wrong with its outcomes.
    async fn measure(self, mysql: &Mysql) -> anyhow::Result<Result<Turn, String>> {
        let Self { setup, claims, coupons } = self;
        let stand = setup.start().await?;
        let campaign = make_campaign(mysql, setup.name, coupons).await?;
        let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd: Crowd::of(claims, CLIENTS, 0.0) };
        let watch = Watch::start(stand.services());
        let (cpu, counters) = (cpu_times(&stand), Counters::read(mysql).await?);
        let result = load::run(mysql, setup.name, &load).await?;
        load::drain(mysql, &stand).await?;
        let cpu = cpu_times(&stand).since(&cpu);
        let counted = Counters::read(mysql).await?.since(&counters);
        if !result.is_clean() {
            return Ok(Err(format!("{self}: {} errors, audit {}", result.errors, result.audit)));
        }
        let course = result.course.context("what was seen of a load")?;
        let a_claim = |sum: f64| sum / claims as f64;
        Ok(Ok(Turn {
            accept_seconds: result.accept_seconds,
            outcome_seconds: result.outcome_seconds,
            issued: result.issued,
            sold_out: result.sold_out,
            to_answer: course.to_answer,
            to_outcome: course.to_outcome,
            outcomes: course.outcomes,
            order: course.order,
            cpu_us: cpu.iter().map(|(name, time)| (name.clone(), a_claim(time.as_secs_f64() * 1e6))).collect(),
            mysql: counted.iter().map(|(name, count)| (name.clone(), a_claim(*count as f64))).collect(),
            peak_mib: peaks(&watch.end()),
        }))
    }
}

fn peaks(memory: &[Memory]) -> BTreeMap<String, f64> {
    memory.iter().map(|memory| (memory.program.clone(), memory.peak_mib)).collect()
}

/// The CPU times of the services, the servers, and this program, which is the load.
fn cpu_times(stand: &Stand) -> CpuTimes {
    let services = stand.services().filter_map(|service| Some((service.program.as_str(), service.pid()?)));
    CpuTimes::of(services.chain([("load", std::process::id())]), &SERVERS)
}
