//! Puts load on the APIs and measures the results.
//!
//! ```text
//! this ─> experiments ─┬─> lab     services it starts, campaigns, memory ──────┬─> crowd  who claims, and how ─> output
//!    ├─────────────────┴─> traces  where the time of claims went, from Jaeger ─┘
//!    └─> report  a page of the measurements ─> experiments
//! ```
//! Results go to standard output, progress to standard error. Exit codes: 0 done and clean, 1 failed or an invariant is
//! broken, 2 wrong usage.
//!
//! Invariant: no dependency runs against an arrow.

mod crowd;
mod experiments;
mod lab;
mod output;
mod report;
mod statistics;
mod traces;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::settings::{AmqpSettings, MysqlSettings, RedisSettings, TlsSettings};
use coupon_core::{service, telemetry};

use experiments::{
    against, burst, ceilings, compare, load, matrix, order, pushes, suite, sweep, tracing_cost, unguarded,
};
use output::show;

/// Puts load on the APIs and audits the results.
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
    /// Claim from one campaign at one API with many accounts, wait for every outcome, audit.
    #[command(
        after_help = "Example:\n  coupon-bench load --url http://127.0.0.1:8080 --campaign 1 --accounts 10000 --rate 2000"
    )]
    Load(load::Arguments),
    /// Create a campaign for each way, put the same load on both, and print the results side by side.
    #[command(after_help = "Example:\n  coupon-bench compare --coupons 1000 --accounts 10000 --repeats 1000")]
    Compare(Box<compare::Arguments>),
    /// Ask Jaeger where the time of a run's traced claims went; print that, and one claim of each way as a waterfall.
    #[command(
        after_help = "Example:\n  coupon-bench traces --report target/demo/report.json --jaeger http://127.0.0.1:16686"
    )]
    Traces(traces::Arguments),
    /// Measure what tracing costs: off, 1 % and 100 % in turns. Starts the services itself, from the folder of this
    /// program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench tracing-cost --rounds 5 --coupons 20000")]
    TracingCost(tracing_cost::Arguments),
    /// Measure each stage alone, and print the limit that follows for each way.
    #[command(after_help = "Example:\n  coupon-bench ceilings --seconds 10")]
    Ceilings(ceilings::Arguments),
    /// Compare two carriers for pushes of outcomes: a channel in Redis, and RabbitMQ's direct reply-to.
    #[command(after_help = "Example:\n  coupon-bench pushes --rate 200 --outcomes 100")]
    Pushes(pushes::Arguments),
    /// Measure this build against another one: the same loads on both, in turns. Starts the services of both itself, in
    /// databases `coupon_before` and `coupon_after`, which it empties; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench against --before ../other/target/release")]
    Against(against::Arguments),
    /// Measure both ways, their batches and strategies at several sizes, in turns. Starts the services itself, from the folder
    /// of this program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench matrix --quick --report target/compare/report.json")]
    Matrix(matrix::Arguments),
    /// Measure how close each way comes to first come, first served: with 1 to 8 replicas, with all running, and with one stopped
    /// or killed in the middle. Starts the services itself, from the folder of this program; nothing else should use the
    /// servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench order --coupons 1000 --accounts 10000 --replicas 1,4")]
    Order(order::Arguments),
    /// Measure what each way does with far more claims in a second than it can settle. Starts the services itself, from the folder
    /// of this program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench burst --claims 50000 --rate 50000")]
    Burst(burst::Arguments),
    /// Measure every combination of some settings of a way, and print heat maps. Starts the services itself, from the folder of this
    /// program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench sweep --way queue --over consumers=1,4 --over PREFETCH=5,20,100")]
    Sweep(sweep::Arguments),
    /// Turn reports of `matrix` into a page or a Markdown table; several are shown side by side.
    #[command(
        after_help = "Example:\n  coupon-bench report target/compare/report.json --page target/compare/report.html"
    )]
    Report(report::Arguments),
    /// Show what goes wrong, and how often, without each guard that the services have, and that nothing does with it.
    /// Uses a table of its own, `coupon_unguarded`, and drops it.
    #[command(name = "unsafe", after_help = "Example:\n  coupon-bench unsafe --claims 2000 --connections 16")]
    Unguarded(unguarded::Arguments),
    /// Measure every figure of docs/PERFORMANCE.md, write them as checks, and fail if one does not hold. Starts the
    /// services itself, from the folder of this program; nothing else should use the servers meanwhile.
    #[command(after_help = "Example:\n  coupon-bench suite --quick --report target/bench/report.json")]
    Suite(suite::Arguments),
}

/// Runs the whole program.
///
/// # Errors
/// The command failed.
pub async fn main() -> anyhow::Result<ExitCode> {
    let (mut bench, spans) = service::settings(Bench::check);
    bench.command.trust(&bench.mysql.tls);
    // The other commands measure what tracing costs, or make no claims.
    let spans = spans.filter(|_| matches!(bench.command, Command::Load(_) | Command::Compare(_)));
    let telemetry = telemetry::start_spans("coupon-bench", spans, &bench.mysql.tls);
    let is_clean = run(&bench).await;
    tokio::task::spawn_blocking(|| telemetry.stop()).await?;
    Ok(if is_clean? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Bench {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Load(arguments) => arguments.crowd.check(),
            Command::Compare(arguments) => arguments.check(),
            Command::Sweep(arguments) => arguments.check(),
            Command::Report(arguments) => arguments.check(),
            _ => Ok(()),
        }
    }
}

impl Command {
    /// Passes the settings that say which servers are trusted to the commands that take server addresses of their own.
    fn trust(&mut self, tls: &TlsSettings) {
        match self {
            Self::Load(arguments) => arguments.crowd.tls = tls.clone(),
            Self::Compare(arguments) => arguments.trust(tls),
            Self::Traces(arguments) => arguments.trust(tls),
            _ => {}
        }
    }
}

/// Runs the command. Returns whether every audit was clean and every check holds.
async fn run(Bench { command, json, mysql, redis, amqp }: &Bench) -> anyhow::Result<bool> {
    let json = *json;
    match command {
        Command::Load(arguments) => {
            let load = async |mysql: &Mysql| {
                load::probe(mysql, "--url", arguments).await?;
                show(&vec![load::run(mysql, "load", arguments).await?], json, None)
            };
            schema::work_on(mysql, load).await
        }
        Command::Compare(arguments) => {
            let report = arguments.report.as_deref();
            let compare = async |mysql: &Mysql| show(&compare::run(mysql, redis, amqp, arguments).await?, json, report);
            schema::work_on(mysql, compare).await
        }
        Command::Traces(arguments) => show(&traces::run(arguments).await?, json, None),
        Command::TracingCost(arguments) => {
            let measure = async |mysql: &Mysql| show(&tracing_cost::run(mysql, arguments).await?, json, None);
            schema::work_on(mysql, measure).await
        }
        Command::Ceilings(arguments) => {
            let measure = async |mysql: &Mysql| show(&ceilings::run(mysql, redis, amqp, arguments).await?, json, None);
            schema::work_on(mysql, measure).await
        }
        Command::Pushes(arguments) => show(&pushes::run(redis, amqp, arguments).await?, json, None),
        Command::Against(arguments) => show(&against::run(mysql, arguments).await?, json, None),
        Command::Matrix(arguments) => {
            let report = &arguments.report;
            let measure =
                async |mysql: &Mysql| show(&matrix::run(mysql, redis, amqp, arguments).await?, json, Some(report));
            Box::pin(schema::work_on(mysql, measure)).await
        }
        Command::Order(arguments) => {
            let measure = async |mysql: &Mysql| show(&order::run(mysql, redis, amqp, arguments).await?, json, None);
            Box::pin(schema::work_on(mysql, measure)).await
        }
        Command::Burst(arguments) => {
            let measure = async |mysql: &Mysql| show(&burst::run(mysql, redis, amqp, arguments).await?, json, None);
            Box::pin(schema::work_on(mysql, measure)).await
        }
        Command::Sweep(arguments) => {
            let measure = async |mysql: &Mysql| show(&sweep::run(mysql, redis, amqp, arguments).await?, json, None);
            Box::pin(schema::work_on(mysql, measure)).await
        }
        Command::Report(arguments) => report::run(arguments, json).map(|()| true),
        Command::Unguarded(arguments) => {
            let measure = async |mysql: &Mysql| show(&unguarded::run(mysql, arguments).await?, json, None);
            schema::work_on(mysql, measure).await
        }
        Command::Suite(arguments) => {
            let measure = async |mysql: &Mysql| {
                let record = suite::run(mysql, redis, amqp, arguments).await?;
                show(&record, json, Some(&arguments.report))
            };
            // Boxed, because its future is larger than all others together.
            Box::pin(schema::work_on(mysql, measure)).await
        }
    }
}
