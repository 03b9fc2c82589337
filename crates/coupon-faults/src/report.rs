//! The report of a run: a table by kind of fault, the checks, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::checkers::Check;
use crate::effects::{Effect, upper_bound};
use crate::journal::Micros;
use crate::timeline::Second;

/// The setting of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The seed of the schedule.
    pub seed: u64,
    /// Claims per second.
    pub rate: u32,
    /// The commit of the checkout.
    pub commit: String,
    /// The servers with their versions.
    pub servers: String,
    /// The machine.
    pub machine: String,
    /// How the programs were built.
    pub build: String,
}

/// Everything that a run has found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The setting of the run.
    pub setting: Setting,
    /// How long the load lasted, in microseconds.
    pub lasted: Micros,
    /// Claims sent, including repeated ones.
    pub claims: u64,
    /// Accounts that claimed.
    pub accounts: u64,
    /// Coupons issued.
    pub issued: u64,
    /// How many answers there were of each kind.
    pub answers: BTreeMap<String, u64>,
    /// Each second of the load.
    pub seconds: Vec<Second>,
    /// Each fault.
    pub faults: Vec<Effect>,
    /// Each guarantee checked.
    pub checks: Vec<Check>,
    /// Starts of programs that failed because a server was away, and were repeated.
    pub repeated_starts: u32,
    /// The most by which the run itself was late, in microseconds.
    pub late: Micros,
    /// Whether the operating system killed a program: the run then proves nothing.
    pub out_of_memory: bool,
}

/// A row of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// How many faults of this kind were made.
    pub faults: u64,
    /// How many of them touched a claim.
    pub bit: u64,
    /// Requests without a certain answer.
    pub unknown: u64,
    /// Redelivered messages.
    pub redelivered: f64,
    /// Claims that succeeded without an answer.
    pub recovered: u64,
    /// The time from each heal to the first success.
    pub heals: Vec<Micros>,
    /// Findings about claims lost while such a fault was active.
    pub lost: u64,
    /// All other findings while such a fault was active.
    pub wrong: u64,
    /// Faults with a finding.
    pub bad: u64,
}

impl Report {
    /// Whether everything holds and the run proves something.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.out_of_memory
            && self.checks.iter().all(|check| check.broken == 0)
            && self.faults.iter().all(|fault| fault.played.error.is_none())
    }

    /// The rows of the table, by kind.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, Row> {
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        for effect in &self.faults {
            let row = rows.entry(effect.played.fault.kind.name()).or_default();
            row.faults += 1;
            row.bit += u64::from(effect.bit);
            row.unknown += effect.unknown;
            row.redelivered += effect.counted.first().copied().unwrap_or(0.0);
            row.recovered += effect.recovered;
            row.heals.extend(effect.heal);
            let (lost, wrong) = self.found_during(effect);
            row.lost += lost;
            row.wrong += wrong;
            row.bad += u64::from(effect.bit && lost + wrong > 0);
        }
        rows
    }

    /// How many findings a fault may have caused: lost claims, and others.
    fn found_during(&self, effect: &Effect) -> (u64, u64) {
        let during = |check: &Check| {
            let overlaps = |(from, to): &&(Micros, Micros)| *from <= effect.played.healed && *to >= effect.played.began;
            check.spans.iter().filter(overlaps).count() as u64
        };
        let of = |is_wanted: fn(&str) -> bool| self.checks.iter().filter(|one| is_wanted(one.name)).map(during).sum();
        (of(|name| name == "lost"), of(|name| name != "lost"))
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.table());
        let mut checks = Table::new();
        checks.load_style(presets::NOTHING).set_header(["check", "checked", "broken", "what must hold"]);
        for check in &self.checks {
            let figures = [check.checked, check.broken].map(figure);
            let cells = [Cell::new(check.name)].into_iter().chain(figures).chain([Cell::new(check.says)]);
            checks.add_row(cells.collect::<Vec<_>>());
        }
        let _ = writeln!(text, "{checks}");
        for check in self.checks.iter().filter(|check| check.broken > 0) {
            for finding in &check.findings {
                let at = finding.from / 1_000;
                let _ = writeln!(text, "{}: at {at} ms: {}", check.name, finding.says);
            }
        }
        for fault in &self.faults {
            if let Some(error) = &fault.played.error {
                let _ = writeln!(text, "{} of {}: {error}", fault.played.fault.kind.name(), fault.played.fault.target);
            }
        }
        let Setting { seed, rate, commit, servers, machine, build } = &self.setting;
        let _ = writeln!(
            text,
            "{} claims of {} accounts at {rate} a second, {} issued; answers: {:?}\nseed {seed}, commit {commit}, {build}; {servers}; {machine}",
            self.claims, self.accounts, self.issued, self.answers
        );
        let _ = writeln!(text, "the run itself was late by {} ms at most", self.late / 1_000);
        let _ = write!(text, "{}", self.verdict());
        text
    }

    /// How many faults had begun by the time of the first finding, if its time is known.
    fn first_wrong(&self) -> Option<usize> {
        let ends = self.checks.iter().flat_map(|check| &check.spans).map(|(_, to)| *to);
        let first = ends.filter(|to| *to < Micros::MAX).min()?;
        Some(self.faults.iter().filter(|fault| fault.played.began <= first).count())
    }

    /// The verdict in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let bit = self.faults.iter().filter(|fault| fault.bit).count();
        let missed = self.faults.len() - bit;
        let counts = format!("{bit} faults, and {missed} that touched no claim");
        if self.out_of_memory {
            format!("NOTHING SHOWN: memory ran out; {counts}")
        } else if self.is_clean() {
            format!("clean: {counts}")
        } else {
            let first = self.first_wrong().map_or_else(String::new, |n| format!(" for the first time after {n}"));
            format!("BROKEN{first}: {counts}")
        }
    }

    /// The sum of all rows.
    #[must_use]
    pub fn sum(&self) -> Row {
        let mut all = Row::default();
        for row in self.rows().into_values() {
            all.faults += row.faults;
            all.bit += row.bit;
            all.unknown += row.unknown;
            all.redelivered += row.redelivered;
            all.recovered += row.recovered;
            all.heals.extend(row.heals);
            all.lost += row.lost;
            all.wrong += row.wrong;
            all.bad += row.bad;
        }
        all
    }

    fn table(&self) -> Table {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let cells = |kind: String, row: Row| {
            [Cell::new(kind)].into_iter().chain(figures(row).into_iter().map(right)).collect::<Vec<_>>()
        };
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(columns());
        for (kind, row) in self.rows() {
            table.add_row(cells(kind, row));
        }
        table.add_row(cells(String::from("all"), self.sum()));
        table
    }
}

/// The names of the table's columns.
#[must_use]
pub fn columns() -> [&'static str; 10] {
    [
        "fault",
        "faults",
        "bit",
        "unknown",
        "redelivered",
        "recovered",
        "heal p50 / max, ms",
        "lost",
        "wrong",
        "95 % bound",
    ]
}

/// The figures of a row, in the order of the columns.
#[must_use]
pub fn figures(mut row: Row) -> [String; 9] {
    row.heals.sort_unstable();
    let ms = |micros: Option<&Micros>| micros.map_or_else(|| String::from("-"), |micros| (micros / 1_000).to_string());
    [
        row.faults.to_string(),
        row.bit.to_string(),
        row.unknown.to_string(),
        row.redelivered.to_string(),
        row.recovered.to_string(),
        format!("{} / {}", ms(row.heals.get(row.heals.len() / 2)), ms(row.heals.last())),
        row.lost.to_string(),
        row.wrong.to_string(),
        format!("{:.1} %", 100.0 * upper_bound(row.bad, row.bit)),
    ]
}

fn figure(number: u64) -> Cell {
    Cell::new(number).set_alignment(CellAlignment::Right)
}
