//! The measurements of a suite run so far, and the rules by which it measures: loads in turns, medians, checks.

use std::io;

use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, Namespace, RedisSettings};
use coupon_core::terminal;
use serde::Serialize;

use super::turn::{TRACE_RATIO, Turn, load_on};
use crate::crowd::{CLIENTS, Crowd};
use crate::experiments::ceilings::Ceilings;
use crate::lab::machine::{Machine, Servers};
use crate::lab::setup::Setup;
use crate::output::{Results, figure, table};
use crate::statistics::median;

/// Everything that a run has measured.
#[derive(Debug, Serialize)]
pub struct Record {
    checks: Vec<Check>,
    /// The stages of each round.
    pub ceilings: Vec<Ceilings>,
    turns: Vec<Turn>,
    servers: Servers,
    machine: Machine,
    quick: bool,
}

/// A measured figure, and what it should be.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    measured: f64,
    wanted: String,
    holds: bool,
}

/// A load that is measured in turns with others: the way's setup, the number of coupons, and the crowd.
pub type Load<'a> = (&'a Setup, u64, Crowd);

impl Record {
    pub fn new(servers: Servers, quick: bool) -> Self {
        let (checks, ceilings, turns) = (Vec::new(), Vec::new(), Vec::new());
        Self { checks, ceilings, turns, servers, machine: Machine::this(), quick }
    }
}

impl Results for Record {
    fn print(&self) -> io::Result<()> {
        let mut table = table(["check", "measured", "wanted", "holds"]);
        for Check { name, measured, wanted, holds } in &self.checks {
            let holds = if *holds { "yes" } else { "NO" };
            table.add_row([name.into(), figure(format!("{measured:.2}")), wanted.into(), holds.into()]);
        }
        terminal::print(&table)
    }

    fn is_clean(&self) -> bool {
        self.turns.iter().all(|turn| turn.result.is_clean()) && self.checks.iter().all(|check| check.holds)
    }
}

/// A run in progress, with the servers that it uses.
pub struct Suite<'a> {
    pub mysql: &'a Mysql,
    pub redis: &'a RedisSettings,
    pub amqp: &'a AmqpSettings,
    pub namespace: &'a Namespace,
    pub quick: bool,
    pub record: Record,
}

impl Suite<'_> {
    fn check(&mut self, name: &str, measured: f64, wanted: &str, holds: bool) {
        terminal::note(&format!("{}: {name}: {measured:.2}, wanted {wanted}", if holds { "holds" } else { "FAILS" }));
        self.record.checks.push(Check { name: name.to_owned(), measured, wanted: wanted.to_owned(), holds });
    }

    pub fn at_least(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!(">= {wanted}"), measured >= wanted);
    }

    pub fn at_most(&mut self, name: &str, measured: f64, wanted: f64) {
        self.check(name, measured, &format!("<= {wanted}"), measured <= wanted);
    }

    /// Reports a figure that may be anything above 0.
    pub fn report(&mut self, name: &str, measured: f64) {
        self.check(name, measured, "reported", measured > 0.0);
    }

    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// Applies one load to a way started just for it. Returns its index among the turns.
    pub async fn turn(&mut self, (setup, coupons, crowd): Load<'_>) -> anyhow::Result<usize> {
        let turn = load_on(self.mysql, setup, coupons, crowd).await?;
        Ok(self.keep(turn))
    }

    /// Keeps a turn for the report. Returns its index among the turns.
    pub fn keep(&mut self, turn: Turn) -> usize {
        self.record.turns.push(turn);
        self.record.turns.len() - 1
    }

    /// Applies loads in turns, so that a slow moment of the machine affects them alike. Returns the turns of each.
    pub async fn in_turns<const N: usize>(&mut self, loads: [Load<'_>; N]) -> anyhow::Result<[Vec<usize>; N]> {
        let mut turns = [const { Vec::new() }; N];
        for _ in 0..self.rounds() {
            self.round(&loads, &mut turns).await?;
        }
        Ok(turns)
    }

    /// Applies each load once.
    pub async fn round(&mut self, loads: &[Load<'_>], turns: &mut [Vec<usize>]) -> anyhow::Result<()> {
        for (load, turns) in loads.iter().zip(turns) {
            turns.push(self.turn(load.clone()).await?);
        }
        Ok(())
    }

    pub fn median_of(&self, turns: &[usize], figure: impl Fn(&Turn) -> f64) -> f64 {
        let turns = turns.iter().filter_map(|&turn| self.record.turns.get(turn));
        median(turns.map(figure))
    }

    /// The median rate of a way in the large loads of this run. Makes one if there is none yet.
    pub async fn rate_of(&mut self, setup: &Setup) -> anyhow::Result<f64> {
        let is_one = |turn: &&Turn| turn.name == setup.name && turn.result.claims >= 10_000;
        if !self.record.turns.iter().any(|turn| is_one(&turn)) {
            self.turn((setup, 50_000, Crowd::of(50_000, CLIENTS, TRACE_RATIO))).await?;
        }
        let turns = self.record.turns.iter().filter(is_one);
        Ok(median(turns.map(|turn| turn.claims_per_second)))
    }
}
