//! The operator's command: schema, campaigns, audit, dead letters, trial tokens, forgetting accounts, reset.
//!
//! Results go to standard output, as a table or with `--json` for programs; progress and errors to standard error. Exit
//! codes: 0 done, 1 failed or an invariant is broken, 2 wrong usage, 3 not everything could be checked.

mod audit;
mod campaign;
mod dead;
mod doctor;
mod explain;
mod forget;
mod output;
mod reset;
mod servers;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coupon_core::mysql::{self, schema};
use coupon_core::settings;

use crate::servers::Servers;

/// Manages the coupon system: schema, campaigns, audit.
///
/// The defaults connect to the servers that `scripts/services up` or `docker compose up -d mysql redis rabbitmq` start.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  couponctl migrate\n  couponctl campaign create --id 1 --name 'Noon rush' --coupons 1000\n  couponctl audit --json"
)]
pub struct Couponctl {
    #[command(subcommand)]
    command: Command,

    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    servers: Servers,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the database if needed and bring its schema up to date.
    #[command(after_help = "Example:\n  couponctl migrate")]
    Migrate,
    /// Migrate, and create a campaign unless it exists: everything the services need before they start.
    #[command(
        mut_arg("id", |id| id.required(true).help("Its number")),
        after_help = "Example:\n  couponctl setup --id 1 --coupons 1000"
    )]
    Setup(campaign::Create),
    /// Create, restock, change and show campaigns.
    #[command(subcommand)]
    Campaign(campaign::Command),
    /// Check every invariant; exit with 1 if one is broken, with 3 if not all could be checked.
    #[command(after_help = "Example:\n  couponctl audit --campaign 1 --json")]
    Audit(audit::Arguments),
    /// Check how the servers are set up; exit with 1 if something is wrong, with 3 if a server could not be asked.
    #[command(after_help = "Example:\n  couponctl doctor\n  couponctl doctor --program queue-consumer --json")]
    Doctor(doctor::Arguments),
    /// Show how MySQL runs the statements of both ways: plans, rows read, locks, and a second claimer beside each.
    #[command(
        after_help = "Example:\n  couponctl explain --campaign 1\n  couponctl explain --campaign 1 --batch 100 --json"
    )]
    Explain(explain::Arguments),
    /// List, show, replay and delete the messages that could not be handled.
    #[command(subcommand)]
    Dead(dead::Command),
    /// Create keys and tokens, to try out an API that requires them.
    #[command(subcommand)]
    Token(token::Command),
    /// Remove an account's number from everything that is stored. Its coupons stay issued, to nobody.
    #[command(after_help = "Example:\n  couponctl forget --account 42")]
    Forget(forget::Arguments),
    /// Delete every campaign and coupon, their keys in Redis and their messages in RabbitMQ.
    #[command(after_help = "Example:\n  couponctl reset --yes")]
    Reset(reset::Arguments),
}

/// Runs the whole program.
///
/// # Errors
/// The command failed.
pub async fn main() -> anyhow::Result<ExitCode> {
    run(settings::parse(Couponctl::check)).await
}

impl Couponctl {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// One line that names the wrong value.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            Command::Setup(create) => create.check(),
            Command::Campaign(command) => command.check(),
            Command::Dead(command) => command.check(),
            Command::Reset(arguments) => arguments.check(&self.servers),
            Command::Explain(_)
            | Command::Migrate
            | Command::Audit(_)
            | Command::Doctor(_)
            | Command::Forget(_)
            | Command::Token(_) => Ok(()),
        }
    }
}

async fn run(couponctl: Couponctl) -> anyhow::Result<ExitCode> {
    let Couponctl { command, json, servers } = &couponctl;
    let json = *json;
    match command {
        Command::Migrate => {
            let applied = mysql::migrate(&servers.mysql).await?;
            output::migrated(&applied, schema::wanted(), json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Setup(create) => {
            mysql::migrate(&servers.mysql).await?;
            schema::work_on(&servers.mysql, async |mysql| campaign::set_up(mysql, create, json).await).await
        }
        Command::Campaign(command) => {
            schema::work_on(&servers.mysql, async |mysql| campaign::run(mysql, command, json).await).await
        }
        Command::Audit(arguments) => {
            schema::work_on(&servers.mysql, async |mysql| audit::run(mysql, servers, arguments, json).await).await
        }
        Command::Doctor(arguments) => doctor::run(servers, arguments, json).await,
        Command::Explain(arguments) => {
            schema::work_on(&servers.mysql, async |mysql| explain::run(mysql, arguments, json).await).await
        }
        Command::Dead(command) => dead::run(servers, command, json).await,
        Command::Token(command) => token::run(command, json),
        Command::Forget(arguments) => {
            schema::work_on(&servers.mysql, async |mysql| forget::run(mysql, servers, arguments, json).await).await
        }
        Command::Reset(arguments) => {
            schema::work_on(&servers.mysql, async |mysql| reset::run(mysql, servers, arguments, json).await).await
        }
    }
}
