//! Load on the APIs, and what came of it: claims by many accounts over HTTP, latencies, outcomes, audit.
//!
//! ```text
//! plan  who claims when ─> load  clients POST, followers wait for outcomes ─> audit ─> report
//!                                                                  traces  where their time went, from Jaeger ─┘
//! ```
//! Results go to standard output, progress to standard error. Exit codes: 0 done and clean, 1 failed or an invariant is
//! broken, 2 wrong usage.

mod ceilings;
mod client;
mod code;
mod compare;
mod jaeger;
mod load;
mod memory;
mod plan;
mod report;
mod stand;
mod suite;
mod traceparent;
mod traces;
mod tracing_cost;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::settings::{self, AmqpSettings, MysqlSettings, RedisSettings};
use coupon_core::terminal;

/// Puts load on the APIs and audits what came of it.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  coupon-bench load --url http://127.0.0.1:8081 --campaign 1 --accounts 10000 --repeats 1000\n  coupon-bench compare --coupons 1000 --accounts 10000 --repeats 1000 --report target/demo/report.json"
)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,

    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    mysql: MysqlSettings,

    #[command(flatten)]
    redis: RedisSettings,

    #[command(flatten)]
    amqp: AmqpSettings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Claim from one campaign at one API by many accounts, wait for every outcome, audit.
    #[command(
        after_help = "Example:\n  coupon-bench load --url http://127.0.0.1:8080 --campaign 1 --accounts 10000 --rate 2000"
    )]
    Load(load::Arguments),
    /// Make a campaign for each way, let the same crowd at both, and print them side by side.
    #[command(after_help = "Example:\n  coupon-bench compare --coupons 1000 --accounts 10000 --repeats 1000")]
    Compare(Box<compare::Arguments>),
    /// Print where the time of a run's traced claims went, and one claim of each way as a waterfall, from Jaeger.
    #[command(
        after_help = "Example:\n  coupon-bench traces --report target/demo/report.json --jaeger http://127.0.0.1:16686"
    )]
    Traces(traces::Arguments),
    /// Measure what tracing costs: off, 1 % and 100 % in turns. Starts the services itself, from the folder of this
    /// program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench tracing-cost --rounds 5 --coupons 20000")]
    TracingCost(tracing_cost::Arguments),
    /// Measure what each stage does alone, and print the limit that follows for each way.
    #[command(after_help = "Example:\n  coupon-bench ceilings --seconds 10")]
    Ceilings(ceilings::Arguments),
    /// Measure every figure of docs/PERFORMANCE.md, write them as checks, and fail if one does not hold. Starts the services
    /// itself, from the folder of this program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench suite --quick --report target/bench/report.json")]
    Suite(suite::Arguments),
}

/// The whole program.
pub async fn main() -> ExitCode {
    let bench: Bench = settings::parse();
    if let Err(line) = bench.check() {
        settings::refuse(&[line]);
    }
    match run(&bench).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            terminal::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Bench {
    /// What is wrong with values that are right one by one.
    ///
    /// # Errors
    /// One line that names it.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Load(arguments) => arguments.crowd.check(),
            Command::Compare(arguments) => arguments.check(),
            _ => Ok(()),
        }
    }
}

/// Whether every audit was clean.
async fn run(bench: &Bench) -> anyhow::Result<bool> {
    if let Command::Traces(arguments) = &bench.command {
        traces::run(arguments, bench.json).await?;
        return Ok(true);
    }
    let mysql = Mysql::new(&bench.mysql);
    schema::check(&mysql).await?;
    let clean = match &bench.command {
        Command::Load(arguments) => {
            let result = load::run(&mysql, "load", arguments).await?;
            report::ways(std::slice::from_ref(&result), bench.json)?;
            result.is_clean()
        }
        Command::Compare(arguments) => compare::run(&mysql, &bench.redis, arguments, bench.json).await?,
        Command::Traces(_) => true,
        Command::TracingCost(arguments) => tracing_cost::run(&mysql, arguments, bench.json).await?,
        Command::Ceilings(arguments) => {
            let ceilings = ceilings::measure(&mysql, &bench.redis, &bench.amqp, arguments).await?;
            report::ceilings(&ceilings, bench.json)?;
            true
        }
        Command::Suite(arguments) => suite::run(&mysql, &bench.redis, &bench.amqp, arguments, bench.json).await?,
    };
    mysql.close().await;
    Ok(clean)
}
