//! Runs `coupon-faults`; `--help` lists its options.
#![allow(clippy::expect_used, clippy::panic, reason = "a run ends where it cannot go on")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use coupon_core::settings::ServerUrl;
use coupon_core::terminal;
use coupon_faults::page::page;
use coupon_faults::report::Report;
use coupon_faults::run;
use coupon_faults::schedule::{Kind, QUIET_MS, Schedule};
use coupon_faults::stage::{Places, empty_folder};
use coupon_testkit::Servers;

/// Breaks the real programs and servers under load, and checks the answers to clients against what MySQL holds.
///
/// It needs, in the environment, the servers of `scripts/services --failures up`, and kills them;
/// `scripts/test-failures` starts those servers and this program.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  coupon-faults --faults 20 --seed 7\n  coupon-faults --replay target/failures/schedule.json"
)]
struct Arguments {
    /// Seed of the schedule, and of who claims what.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Number of faults; 20 of each kind by default.
    #[arg(long, value_name = "N", default_value_t = 420, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: u32,

    /// How long the load lasts, in minutes; 7 seconds for each fault by default.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: Option<u64>,

    /// Claims per second.
    #[arg(long, value_name = "N", default_value_t = 160, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Only these kinds of faults.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<Kind>,

    /// Play the schedule in this file instead of making one.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "faults", "minutes", "rate", "kinds"])]
    replay: Option<PathBuf>,

    /// Where the schedule, the report and the logs are written.
    #[arg(long, value_name = "FOLDER", default_value = "target/failures")]
    folder: PathBuf,

    /// The folder with producer-api, queue-consumer and skiplock-api; by default, that of this program.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,

    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Milliseconds of load for each fault, without `--minutes`.
const MS_A_FAULT: u64 = 7_000;

/// The exit code if the run could not be made, or proves nothing.
const NOTHING_SHOWN: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    main_with(&arguments).await.unwrap_or_else(|error| {
        terminal::error(&format!("{error:#}"));
        ExitCode::from(NOTHING_SHOWN)
    })
}

/// Exit codes: 0 if everything holds, 1 if something does not, 3 if the run proves nothing.
async fn main_with(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let schedule = schedule(arguments)?;
    let folder = std::path::absolute(&arguments.folder)?;
    let root = std::path::absolute(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?.canonicalize()?;
    let programs = match &arguments.programs {
        Some(folder) => std::path::absolute(folder)?,
        None => std::env::current_exe()?.parent().context("the folder of this program")?.to_owned(),
    };
    refuse_other_servers(&root)?;
    let places = Places { root, programs, logs: folder.join("logs") };
    empty_folder(&places.logs)?;
    let written = folder.join("schedule.json");
    std::fs::write(&written, serde_json::to_string_pretty(&schedule)?)?;
    terminal::note(&format!(
        "{} faults in {} s, seed {}: {}",
        schedule.faults.len(),
        schedule.load_ms / 1_000,
        schedule.seed,
        written.display()
    ));
    let mut code = None;
    // The report is shown before anything is cleaned up.
    let run = async |space| code = Some(show(&run::run(space, &schedule, &places).await, &folder, arguments.json));
    coupon_testkit::run(run).await;
    code.context("the run has not ended")?
}
/// Writes and prints a report.
fn show(report: &anyhow::Result<Report>, folder: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let report = report.as_ref().map_err(|error| anyhow!("{error:#}"))?;
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    std::fs::write(folder.join("report.html"), page(report))?;
    if json {
        terminal::print_json(report)?;
    } else {
        terminal::print(&report.text())?;
    }
    Ok(match report {
        Report { out_of_memory: true, .. } => ExitCode::from(NOTHING_SHOWN),
        report if report.is_clean() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Refuses servers that anybody else may use, because a run kills and empties its servers.
fn refuse_other_servers(root: &Path) -> anyhow::Result<()> {
    let ran = Command::new(root.join("scripts/services")).args(["--failures", "env"]).output()?;
    let own = String::from_utf8_lossy(&ran.stdout).into_owned();
    let Servers { mysql, redis, amqp } = Servers::from_environment();
    let urls = [mysql.mysql_url, redis.redis_url, amqp.amqp_url];
    let is_own = |url: &ServerUrl| own.lines().any(|line| line.ends_with(&format!("_URL={}", url.reveal())));
    match urls.iter().find(|url| !is_own(url)) {
        Some(url) => {
            bail!("{url} is not one of the servers of `scripts/services --failures`: run scripts/test-failures")
        }
        None => Ok(()),
    }
}

fn schedule(arguments: &Arguments) -> anyhow::Result<Schedule> {
    if let Some(file) = &arguments.replay {
        let text = std::fs::read_to_string(file).with_context(|| format!("--replay {}", file.display()))?;
        let schedule: Schedule = serde_json::from_str(&text).with_context(|| format!("--replay {}", file.display()))?;
        ensure!(schedule.rate > 0, "--replay {}: rate is 0", file.display());
        return Ok(schedule);
    }
    let kinds = if arguments.kinds.is_empty() { Kind::value_variants() } else { &arguments.kinds };
    let enough = u64::from(arguments.faults) * MS_A_FAULT + 2 * QUIET_MS;
    let load_ms = arguments.minutes.map_or(enough, |minutes| minutes * 60_000);
    Ok(Schedule::new(arguments.seed, kinds, arguments.faults as usize, load_ms, arguments.rate))
}
