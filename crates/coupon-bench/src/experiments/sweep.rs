//! How the settings of a way act together: every combination of some values is measured, and shown as heat maps.
//!
//! Invariants: every load has services and a campaign of its own; the combinations take turns. A load that is not clean gives no
//! figure.

use std::fmt;
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
use crate::lab::setup::caller_samples;
use crate::lab::stand::{Stand, Way};
use crate::output::{self, Results, row, table};
use crate::statistics::median;

/// What is not a setting of a service: how many consumers run, and how many connections claim.
const CONSUMERS: &str = "consumers";
const CONNECTIONS: &str = "clients";

/// The settings of each way that decide how much work is done at once, with the largest value of each.
const OF_QUEUE: [(&str, u32); 6] = [
    (CONSUMERS, 64),
    (CONNECTIONS, 20_000),
    ("CLAIMS_PER_MESSAGE", 500),
    ("PREFETCH", 10_000),
    ("BATCH_MAX", 2_000),
    ("REFILL_MAX", 100_000),
];
const OF_SKIPLOCK: [(&str, u32); 4] =
    [(CONNECTIONS, 20_000), ("MYSQL_CONNECTIONS", 512), ("CLAIM_GROUPS", 64), ("GROUP_MAX", 2_000)];
const OF_REDIS: [(&str, u32); 4] =
    [(CONNECTIONS, 20_000), ("BATCHES", 64), ("BATCH_MAX", 2_000), ("REFILL_MAX", 100_000)];

/// The most combinations of one sweep: an hour for each turn, and more.
const COMBINATIONS_MAX: usize = 1_000;

/// A combination is good enough from this share of the highest rate on.
const GOOD_ENOUGH: f64 = 0.95;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The way to measure.
    #[arg(long, value_name = "WAY", value_enum, default_value_t = Way::Queue)]
    way: Way,
    /// A setting with the values to measure; may be given several times, the last two for the rows and the columns of the heat
    /// maps. For the queue: `consumers`, `clients`, `CLAIMS_PER_MESSAGE`, `PREFETCH`, `BATCH_MAX`, `REFILL_MAX`; by default 81
    /// combinations. For skiplock: `clients`, `MYSQL_CONNECTIONS`, `CLAIM_GROUPS`, `GROUP_MAX`; 18. For redis, which is the queue
    /// without its broker: `clients`, `BATCHES`, `BATCH_MAX`, `REFILL_MAX`; 9.
    #[arg(long, value_name = "SETTING=LIST", value_parser = axis)]
    over: Vec<Axis>,
    /// Claims of each load, each by an account of its own, at one coupon for each.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    claims: u64,
    /// Turns of each combination; the medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// The file for all figures as JSON, written after each load.
    #[arg(long, value_name = "FILE", default_value = "target/sweep/report.json")]
    pub report: PathBuf,
    #[command(flatten)]
    notes: Notes,
}

/// A setting and its values.
#[derive(Clone, Debug, Serialize)]
struct Axis {
    setting: &'static str,
    values: Vec<u32>,
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Sweep {
    #[serde(flatten)]
    provenance: Provenance,
    way: Way,
    claims: u64,
    axes: Vec<Axis>,
    points: Vec<Point>,
    /// One line for each load that was not clean.
    failures: Vec<String>,
}

/// A combination, with a figure of each kind for each turn.
#[derive(Debug, Serialize)]
struct Point {
    /// A value of each axis, in the order of the axes.
    values: Vec<u32>,
    claims_per_second: Vec<f64>,
    outcome_p99_ms: Vec<f64>,
}

impl Arguments {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let known: &[(&str, u32)] = match self.way {
            Way::Queue => &OF_QUEUE,
            Way::Skiplock => &OF_SKIPLOCK,
            Way::Redis => &OF_REDIS,
        };
        for (place, Axis { setting, .. }) in self.over.iter().enumerate() {
            if !known.iter().any(|(name, _)| name == setting) {
                return Err(format!("--over {setting}=… is no setting of the {} way", self.way));
            }
            if self.over.iter().take(place).any(|earlier| earlier.setting == *setting) {
                return Err(format!("--over {setting}=… is given twice"));
            }
        }
        let combinations = self.axes().iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
        if combinations.is_none_or(|count| count > COMBINATIONS_MAX) {
            return Err(format!("--over makes more than {COMBINATIONS_MAX} combinations"));
        }
        Ok(())
    }

    fn axes(&self) -> Vec<Axis> {
        let axis = |setting, values: &[u32]| Axis { setting, values: values.to_vec() };
        match self.way {
            _ if !self.over.is_empty() => self.over.clone(),
            Way::Queue => vec![
                axis(CONSUMERS, &[1, 2, 4]),
                axis("CLAIMS_PER_MESSAGE", &[1, 10, 100]),
                axis("PREFETCH", &[5, 20, 100]),
                axis("BATCH_MAX", &[100, 500, 2_000]),
            ],
            Way::Skiplock => vec![
                axis("MYSQL_CONNECTIONS", &[4, 16]),
                axis("CLAIM_GROUPS", &[1, 2, 4]),
                axis("GROUP_MAX", &[20, 100, 500]),
            ],
            Way::Redis => vec![axis("BATCHES", &[1, 2, 4]), axis("BATCH_MAX", &[100, 500, 2_000])],
        }
    }
}

fn axis(text: &str) -> Result<Axis, String> {
    const LIKE: &str = "must be like PREFETCH=10,50,200";

    let (name, list) = text.split_once('=').ok_or(LIKE)?;
    let known = OF_QUEUE.into_iter().chain(OF_SKIPLOCK).chain(OF_REDIS).find(|(known, _)| *known == name);
    let (setting, max) = known.ok_or_else(|| format!("{name} is not among the settings that --help lists"))?;
    let values: Vec<u32> = list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| LIKE)?;
    match values.iter().max() {
        _ if values.contains(&0) => Err(format!("{LIKE}, with values from 1 on")),
        Some(most) if *most > max => Err(format!("{setting} is at most {max}")),
        _ => Ok(Axis { setting, values }),
    }
}

/// Every combination of values, the last axis changing fastest.
fn combinations(axes: &[Axis]) -> Vec<Vec<u32>> {
    axes.iter().fold(vec![Vec::new()], |shorter, axis| {
        let longer =
            |short: &Vec<u32>| axis.values.iter().map(|value| [short, &[*value][..]].concat()).collect::<Vec<_>>();
        shorter.iter().flat_map(longer).collect()
    })
}

/// Measures every combination, in turns.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Sweep> {
    let &Arguments { way, claims, turns, .. } = arguments;
    output::check_writable(&arguments.report)?;
    let axes = arguments.axes();
    let point = |values| Point { values, claims_per_second: Vec::new(), outcome_p99_ms: Vec::new() };
    let mut sweep = Sweep {
        provenance: Provenance::ask(mysql, redis, amqp, &arguments.notes).await?,
        way,
        claims,
        points: combinations(&axes).into_iter().map(point).collect(),
        axes,
        failures: Vec::new(),
    };
    let all = sweep.points.len();
    for turn in 1..=turns {
        for place in 0..all {
            let Some(point) = sweep.points.get_mut(place) else { continue };
            let name = Combination(&sweep.axes, &point.values).to_string();
            terminal::note(&format!("turn {turn} of {turns}, {} of {all}: {name}", place + 1));
            let result = point.load(mysql, way, &sweep.axes, claims).await.with_context(|| name.clone())?;
            if result.is_clean() {
                point.claims_per_second.push(result.claims_per_second());
                point.outcome_p99_ms.push(result.outcome_p99_ms);
            } else {
                sweep.failures.push(format!("{name}: {} errors, audit {}", result.errors, result.audit));
            }
            output::write(&arguments.report, &sweep)?;
        }
    }
    Ok(sweep)
}

impl Point {
    async fn load(&self, mysql: &Mysql, way: Way, axes: &[Axis], claims: u64) -> anyhow::Result<load::LoadResult> {
        let (mut consumers, mut clients, mut environment) = (1, CLIENTS, vec![caller_samples()]);
        for (axis, value) in axes.iter().zip(&self.values) {
            match axis.setting {
                CONSUMERS => consumers = usize::try_from(*value)?,
                CONNECTIONS => clients = *value,
                setting => environment.push((setting, value.to_string())),
            }
        }
        let stand = Stand::start(way, consumers, &environment).await?;
        let campaign = make_campaign(mysql, "sweep", claims).await?;
        let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd: Crowd::of(claims, clients, 0.0) };
        let result = load::run(mysql, "sweep", &load).await?;
        load::drain(mysql, &stand).await?;
        Ok(result)
    }

    /// The median of all turns, or NaN if none was clean.
    fn rate(&self) -> f64 {
        median(self.claims_per_second.iter().copied())
    }
}

/// The best combination, and the one with the smallest values that is good enough.
fn best_and_knee(points: &[Point]) -> Option<(&Point, &Point)> {
    let best = points.iter().filter(|point| !point.rate().is_nan()).max_by(|a, b| a.rate().total_cmp(&b.rate()))?;
    let size = |point: &Point| point.values.iter().map(|value| f64::from(*value).ln()).sum::<f64>();
    let is_good = |point: &&Point| point.rate() >= GOOD_ENOUGH * best.rate();
    let knee = points.iter().filter(is_good).min_by(|a, b| size(a).total_cmp(&size(b)))?;
    Some((best, knee))
}

/// A combination, written as settings.
struct Combination<'a>(&'a [Axis], &'a [u32]);

impl fmt::Display for Combination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.iter().zip(self.1).map(|(axis, value)| format!("{}={value}", axis.setting));
        f.write_str(&pairs.collect::<Vec<_>>().join(" "))
    }
}

/// A cell of a heat map: the rate, and how near it is to the best.
fn cell(rate: f64, best: f64) -> String {
    if rate.is_nan() {
        return String::from("–");
    }
    let shade = match rate / best {
        0.95.. => '█',
        0.85.. => '▓',
        0.7.. => '▒',
        0.5.. => '░',
        _ => ' ',
    };
    format!("{shade} {rate:.0}")
}

impl Results for Sweep {
    fn print(&self) -> io::Result<()> {
        let best = best_and_knee(&self.points);
        let highest = best.map_or(f64::NAN, |(best, _)| best.rate());
        let (outer, inner) = self.axes.split_at(self.axes.len().saturating_sub(2));
        let (rows, columns) = inner.split_at(inner.len().saturating_sub(1));
        let columns = columns.first().map(|axis| &axis.values[..]).unwrap_or_default();
        let in_a_map = combinations(inner).len();
        for (above, points) in combinations(outer).iter().zip(self.points.chunks(in_a_map)) {
            let title = format!("claims a second, {} {}", self.way, Combination(outer, above));
            let name = inner.iter().map(|axis| axis.setting).collect::<Vec<_>>().join(" by ");
            print(&format!("\n{}: {name}", title.trim_end()))?;
            let header = [String::new()].into_iter().chain(columns.iter().map(u32::to_string));
            let mut map = table(header);
            for (beside, points) in combinations(rows).iter().zip(points.chunks(columns.len())) {
                let cells = points.iter().map(|point| cell(point.rate(), highest));
                map.add_row(row(&beside.iter().map(u32::to_string).collect::<String>(), cells));
            }
            print(&map)?;
        }
        print(&"\n█ from 95 % of the best on, ▓ from 85, ▒ from 70, ░ from 50")?;
        if let Some((best, knee)) = best {
            let line = |point: &Point| {
                let p99 = median(point.outcome_p99_ms.iter().copied());
                format!("{}: {:.0} a second, p99 {p99:.0} ms", Combination(&self.axes, &point.values), point.rate())
            };
            print(&format!("the best  {}", line(best)))?;
            print(&format!("the knee  {}, the smallest values from 95 % on", line(knee)))?;
        }
        self.failures.iter().try_for_each(print)
    }

    fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(values: &[u32], rates: &[f64]) -> Point {
        Point { values: values.to_vec(), claims_per_second: rates.to_vec(), outcome_p99_ms: Vec::new() }
    }

    #[test]
    fn the_last_setting_changes_fastest() {
        let axes = ["PREFETCH=1,2", "BATCH_MAX=10,20"].map(|text| axis(text).unwrap());

        assert_eq!(combinations(&axes), [[1, 10], [1, 20], [2, 10], [2, 20]]);
        assert_eq!(Combination(&axes, &[2, 10]).to_string(), "PREFETCH=2 BATCH_MAX=10");
        assert_eq!(combinations(&[]), [Vec::<u32>::new()]);
    }

    #[test]
    fn the_knee_has_the_smallest_values_that_are_good_enough() {
        let points = [
            point(&[1, 10], &[900.0, 2_000.0, 800.0]),
            point(&[2, 10], &[960.0]),
            point(&[1, 30], &[970.0]),
            point(&[4, 30], &[1_000.0]),
            point(&[1, 1], &[]),
        ];

        let (best, knee) = best_and_knee(&points).unwrap();

        assert_eq!((&best.values[..], &knee.values[..]), (&[4, 30][..], &[2, 10][..]));
        assert!(best_and_knee(&[point(&[1], &[])]).is_none(), "no clean load");
    }

    #[test]
    fn an_odd_setting_is_named() {
        for text in ["PREFETCH", "PREFETCH=", "PREFETCH=1,", "PREFETCH=-1", "PREFETCH=0", "PREFETCH=10001", "LISTEN=1"]
        {
            assert!(axis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cell_shows_how_near_it_is_to_the_best() {
        let cells = [100.0, 90.0, 75.0, 60.0, 10.0, f64::NAN].map(|rate| cell(rate, 100.0));

        assert_eq!(cells, ["█ 100", "▓ 90", "▒ 75", "░ 60", "  10", "–"]);
    }
}
