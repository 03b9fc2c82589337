//! The measurements of a matrix: a cell for each load, with all of its turns.
//!
//! Invariant: medians are taken over turns; percentiles over the claims of all turns together, never averages of
//! percentiles.

use std::collections::BTreeMap;
use std::io;

use coupon_core::terminal::print;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::crowd::{Order, STEP};
use crate::lab::machine::{Machine, Servers};
use crate::lab::setup::Setup;
use crate::lab::stand::Way;
use crate::output::{Results, row, table};
use crate::statistics::{Latencies, median};

/// The version of the report's format; no other is read.
const FORM: u32 = 1;

/// Everything that a run has measured: the format of `report.json`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Matrix {
    form: u32,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub made_at: OffsetDateTime,
    pub revision: String,
    pub clients: u32,
    pub servers: Servers,
    pub machine: Machine,
    pub cells: Vec<Cell>,
    /// A line for each load whose audit found something.
    pub failures: Vec<String>,
}

/// A load, in all of its turns.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Cell {
    pub contender: String,
    pub way: Way,
    pub settings: BTreeMap<String, String>,
    pub claims: u64,
    pub coupons: u64,
    pub turns: Vec<Turn>,
}

/// One load.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Turn {
    /// The time from the first claim to the answer of the last.
    pub accept_seconds: f64,
    /// The time from the first claim to the last outcome.
    pub outcome_seconds: f64,
    pub issued: u64,
    pub sold_out: u64,
    pub to_answer: Latencies,
    pub to_outcome: Latencies,
    /// Outcomes in each step of 20 ms.
    pub outcomes: Vec<u32>,
    pub order: Order,
    /// CPU time for each claim, in microseconds, by program; `load` is the load generator.
    pub cpu_us: BTreeMap<String, f64>,
    /// MySQL's counters, for each claim.
    pub mysql: BTreeMap<String, f64>,
    /// The peak memory of each service, in MiB.
    pub peak_mib: BTreeMap<String, f64>,
}

impl Matrix {
    pub fn new(revision: &str, clients: u32, servers: Servers) -> Self {
        Self {
            form: FORM,
            made_at: OffsetDateTime::now_utc(),
            revision: revision.to_owned(),
            clients,
            servers,
            machine: Machine::this(),
            cells: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Continues from what an earlier run measured.
    pub fn resumed(self, earlier: Self) -> anyhow::Result<Self> {
        let alike = |matrix: &Self| (matrix.form, matrix.revision.clone(), matrix.clients, matrix.servers.clone());
        anyhow::ensure!(alike(&self) == alike(&earlier), "the report is of another revision, other clients or servers");
        anyhow::ensure!(self.machine == earlier.machine, "the report is of another machine");
        Ok(earlier)
    }

    /// The index of a cell, which is created if it does not exist.
    pub fn cell(&mut self, setup: &Setup, claims: u64, coupons: u64) -> usize {
        let is_it = |cell: &Cell| cell.contender == setup.name && cell.claims == claims && cell.coupons == coupons;
        self.cells.iter().position(is_it).unwrap_or_else(|| {
            let settings = setup.environment.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
            let (contender, settings) = (setup.name.to_owned(), settings.collect());
            self.cells.push(Cell { contender, way: setup.way, settings, claims, coupons, turns: Vec::new() });
            self.cells.len() - 1
        })
    }

    pub fn turns_of(&self, place: usize) -> usize {
        self.cells.get(place).map_or(0, |cell| cell.turns.len())
    }

    /// How many loads were measured.
    pub fn loads(&self) -> usize {
        self.cells.iter().map(|cell| cell.turns.len()).sum::<usize>() + self.failures.len()
    }

    pub fn keep(&mut self, place: usize, turn: Turn) {
        if let Some(cell) = self.cells.get_mut(place) {
            cell.turns.push(turn);
        }
    }

    pub fn fails(&mut self, line: String) {
        self.failures.push(line);
    }

    /// Checks that this program can read the report.
    ///
    /// # Errors
    /// The report has another format.
    pub fn check(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.form == FORM, "the report has form {}, and this program reads form {FORM}", self.form);
        Ok(self)
    }

    /// The sizes, each with its cells.
    pub fn by_size(&self) -> BTreeMap<(u64, u64), Vec<&Cell>> {
        let mut sizes: BTreeMap<(u64, u64), Vec<&Cell>> = BTreeMap::new();
        for cell in self.cells.iter().filter(|cell| !cell.turns.is_empty()) {
            sizes.entry((cell.claims, cell.coupons)).or_default().push(cell);
        }
        sizes
    }
}

impl Cell {
    pub fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of))
    }

    /// Claims per second, up to the last outcome, in each turn.
    pub fn rates(&self) -> Vec<f64> {
        self.turns.iter().map(|turn| self.claims as f64 / turn.outcome_seconds).collect()
    }

    pub fn rate(&self) -> f64 {
        median(self.rates())
    }

    pub fn accepted_rate(&self) -> f64 {
        self.median(|turn| self.claims as f64 / turn.accept_seconds)
    }

    /// The latencies of all claims of all turns: to the answer, and to the outcome.
    pub fn latencies(&self) -> anyhow::Result<[Latencies; 2]> {
        let all = |of: fn(&Turn) -> &Latencies| Latencies::of_all(self.turns.iter().map(of));
        Ok([all(|turn| &turn.to_answer)?, all(|turn| &turn.to_outcome)?])
    }

    /// CPU time for each claim, in microseconds, by program.
    pub fn cpu_us(&self) -> BTreeMap<&str, f64> {
        self.figures(|turn| &turn.cpu_us)
    }

    /// CPU time of services and servers for each claim, in microseconds.
    pub fn cost_us(&self) -> f64 {
        self.cpu_us().iter().filter(|(program, _)| **program != "load").map(|(_, us)| us).sum()
    }

    /// The share of the cores that neither the load nor what it was applied to used, from 0 to 1.
    pub fn idle(&self, cores: usize) -> f64 {
        let used = self.cpu_us().values().sum::<f64>() * self.rate() / 1e6;
        (1.0 - used / cores as f64).max(0.0)
    }

    /// MySQL's counters, for each claim.
    pub fn mysql(&self) -> BTreeMap<&str, f64> {
        self.figures(|turn| &turn.mysql)
    }

    fn figures(&self, of: fn(&Turn) -> &BTreeMap<String, f64>) -> BTreeMap<&str, f64> {
        let names = self.turns.iter().flat_map(|turn| of(turn).keys());
        names.map(|name| (name.as_str(), self.median(|turn| of(turn).get(name).copied().unwrap_or(0.0)))).collect()
    }

    /// Outcomes by time, in seconds, in the turn whose rate is the median.
    pub fn course(&self) -> Vec<(f64, f64)> {
        let rate = self.rate();
        let is_it = |(_, of): &(&Turn, f64)| of.total_cmp(&rate).is_eq();
        let Some((turn, _)) = self.turns.iter().zip(self.rates()).find(is_it) else { return Vec::new() };
        let sums = turn.outcomes.iter().scan(0.0, |sum, count| {
            *sum += f64::from(*count);
            Some(*sum)
        });
        let at = |step: usize| STEP.as_secs_f64() * (step + 1) as f64;
        [(0.0, 0.0)].into_iter().chain(sums.enumerate().map(|(step, sum)| (at(step), sum))).collect()
    }
}

/// The columns of every table of a size.
pub const COLUMNS: [&str; 7] = [
    "claims a second",
    "least to most",
    "accepted a second",
    "p50 / p99 to the answer, ms",
    "p50 / p99 to the outcome, ms",
    "CPU µs a claim",
    "coupons that went to somebody later",
];

impl Cell {
    /// The cell's row in a table.
    pub fn row(&self) -> anyhow::Result<[String; 7]> {
        let rates = self.rates();
        let [least, most] = [f64::min, f64::max].map(|of| rates.iter().copied().reduce(of).unwrap_or(f64::NAN));
        let [answer, outcome] = self
            .latencies()?
            .map(|latencies| format!("{:.1} / {:.1}", latencies.quantile_ms(0.5), latencies.quantile_ms(0.99)));
        Ok([
            format!("{:.0}", self.rate()),
            format!("{least:.0} to {most:.0}"),
            format!("{:.0}", self.accepted_rate()),
            answer,
            outcome,
            format!("{:.0}", self.cost_us()),
            format!("{:.1} %", self.median(|turn| turn.order.displaced) * 100.0),
        ])
    }
}

impl Results for Matrix {
    fn print(&self) -> io::Result<()> {
        for ((claims, coupons), cells) in self.by_size() {
            let title = format!("{claims} claims for {coupons} coupons");
            let mut table = table([title].into_iter().chain(COLUMNS.map(String::from)));
            for cell in cells {
                table.add_row(row(&cell.contender, cell.row().map_err(io::Error::other)?));
            }
            print(&table)?;
            print(&"")?;
        }
        self.failures.iter().try_for_each(print)
    }

    fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}
