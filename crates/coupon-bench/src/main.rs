//! Load on the APIs, and what came of it: claims by many accounts over HTTP, latencies, outcomes, audit.
//!
//! ```text
//! plan  who claims when ─> load  clients POST, followers wait for outcomes ─> audit ─> report
//! ```
//! Results go to standard output, progress to standard error. Exit codes: 0 done and clean, 1 failed or an invariant is
//! broken, 2 wrong usage.

mod client;
mod compare;
mod load;
mod plan;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::settings::{self, MysqlSettings, RedisSettings};

/// Puts load on the APIs and audits what came of it.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  coupon-bench load --url http://127.0.0.1:8081 --campaign 1 --accounts 10000 --repeats 1000\n  coupon-bench compare --coupons 1000 --accounts 10000 --repeats 1000 --report target/demo/report.json"
)]
struct Bench {
    #[command(subcommand)]
    command: Command,

    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    mysql: MysqlSettings,

    #[command(flatten)]
    redis: RedisSettings,
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
    Compare(compare::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench: Bench = settings::parse();
    match run(&bench).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether every audit was clean.
async fn run(bench: &Bench) -> anyhow::Result<bool> {
    let mysql = Mysql::new(&bench.mysql);
    schema::check(&mysql).await?;
    let clean = match &bench.command {
        Command::Load(arguments) => {
            let result = load::run(&mysql, "load", arguments).await?;
            report::ways(std::slice::from_ref(&result), bench.json);
            result.is_clean()
        }
        Command::Compare(arguments) => compare::run(&mysql, &bench.redis, arguments, bench.json).await?,
    };
    mysql.close().await;
    Ok(clean)
}
