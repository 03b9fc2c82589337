//! Goes through all states of a model of any size, with or without one of its guards. See `docs/RELIABILITY.md`.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum, value_parser};
use coupon_core::{settings, terminal};
use coupon_model::answers::Answers;
use coupon_model::guards::Guard;
use coupon_model::search::{Searched, all_states, shortest_path};
use coupon_model::skiplock::Skiplock;
use coupon_model::world::Queue;
use serde::Serialize;
use stateright::Model;

/// Goes through all states of a model; exits with 1 if something that must hold does not, with 3 if there are too many
/// states.
///
/// The defaults take about two million states of the queue way, 20 seconds and 250 MB of memory.
#[derive(Debug, Parser)]
#[command(
    name = "check",
    after_help = "Example:\n  cargo run --package coupon-model --example check -- skiplock --without read-committed-rows"
)]
struct Arguments {
    /// The model.
    #[arg(value_enum)]
    model: Which,
    /// Consumers or workers.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = value_parser!(u8).range(1..=4))]
    consumers: u8,
    /// The accounts that claim, in this order; the model `answers` uses only how many there are.
    #[arg(
        long, value_name = "ACCOUNTS", value_delimiter = ',', default_value = "1,2,1",
        value_parser = value_parser!(u64).range(1..=9)
    )]
    claims: Vec<u64>,
    /// Coupons at the start.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u8).range(0..=9))]
    coupons: u8,
    /// Most claims in a batch or group.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = value_parser!(u8).range(1..=9))]
    batch: u8,
    /// Most ids in a refill.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = value_parser!(u8).range(1..=9))]
    refill: u8,
    /// Faults that may happen in a run.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u8).range(0..=4))]
    faults: u8,
    /// Coupons that an operator may add in a run, at most one.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u8).range(0..=1))]
    restocks: u8,
    /// The guard to leave out.
    #[arg(long, value_name = "GUARD")]
    without: Option<Guard>,
    /// Stop after about this many steps; a million steps take about 100 MB of memory.
    #[arg(long, value_name = "COUNT", default_value_t = 20_000_000, value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    steps_max: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Queue,
    Skiplock,
    Answers,
}

/// The report to print.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    searched: Searched,
    seconds: f64,
    /// For each property that does not hold, the shortest path to a violation.
    paths: Vec<(&'static str, Vec<String>)>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = settings::parse(Arguments::check);
    let report = match arguments.model {
        Which::Queue => search(&arguments, |only| arguments.queue(only)),
        Which::Skiplock => search(&arguments, |only| arguments.skiplock(only)),
        Which::Answers => search(&arguments, |only| arguments.answers(only)),
    };
    let printed = if arguments.json { terminal::print_json(&report) } else { terminal::print(&report.text()) };
    printed?;
    Ok(ExitCode::from(match (report.searched.broken.is_empty(), report.searched.is_complete) {
        (false, _) => 1,
        (true, false) => 3,
        (true, true) => 0,
    }))
}

fn search<M>(arguments: &Arguments, model: impl Fn(Option<&'static str>) -> M) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + Display + PartialEq,
{
    let began = Instant::now();
    let steps_max = usize::try_from(arguments.steps_max).unwrap_or(usize::MAX);
    let searched = all_states(model(None), steps_max, |states| terminal::note(&format!("{states} states")));
    let seconds = began.elapsed().as_secs_f64();
    let path = |name: &&'static str| Some((*name, shortest_path(model(Some(name)))?));
    let paths = searched.broken.iter().filter_map(path).collect();
    Report { searched, seconds, paths }
}

impl Arguments {
    /// Checks the values against each other.
    fn check(&self) -> Result<(), String> {
        let guards: &[Guard] = match self.model {
            Which::Queue => &Guard::OF_QUEUE,
            Which::Skiplock => &Guard::OF_SKIPLOCK,
            Which::Answers => &Guard::OF_ANSWERS,
        };
        match self.without {
            Some(guard) if !guards.contains(&guard) => {
                let names: Vec<String> = guards.iter().map(ToString::to_string).collect();
                Err(format!("--without = '{guard}': this model has only {}", names.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn queue(&self, only: Option<&'static str>) -> Queue {
        Queue {
            consumers: self.consumers.into(),
            accounts: self.claims.clone(),
            coupons: self.coupons,
            batch_max: self.batch.into(),
            refill_max: self.refill.into(),
            faults: self.faults,
            restocks: self.restocks,
            without: self.without,
            only,
        }
    }

    fn skiplock(&self, only: Option<&'static str>) -> Skiplock {
        Skiplock {
            workers: self.consumers.into(),
            accounts: self.claims.clone(),
            coupons: self.coupons,
            group_max: self.batch.into(),
            faults: self.faults,
            restocks: self.restocks,
            without: self.without,
            only,
        }
    }

    fn answers(&self, only: Option<&'static str>) -> Answers {
        let accounts = self.claims.iter().copied().max().unwrap_or(1);
        Answers { accounts, coupons: self.coupons, restocks: self.restocks, without: self.without, only }
    }
}

impl Report {
    fn text(&self) -> String {
        let Searched { states, is_complete, broken, missed } = &self.searched;
        let all = if *is_complete { "all" } else { "the first" };
        let mut lines = vec![format!("{all} {states} states in {:.1} s", self.seconds)];
        if broken.is_empty() {
            lines.push(String::from("everything that must hold holds"));
        }
        lines.extend(missed.iter().map(|name| format!("does not happen in this size: {name}")));
        for (name, path) in &self.paths {
            lines.push(format!("does not hold: {name}"));
            lines.extend(path.iter().map(|sentence| format!("  {sentence}")));
        }
        lines.join("\n")
    }
}
