//! `couponctl doctor`: checks whether the servers are set up as the services need them.
//!
//! ```text
//! mysql ──┐
//! redis ──┼─> sheet, a finding for each check ─> report
//! rabbitmq┘
//! ```
//!
//! Invariants: the doctor changes nothing it finds, and leaves nothing behind; it asks each server over a connection of
//! its own, because the services' connections refuse to work with the very faults to be checked here.

mod mysql;
mod rabbitmq;
mod redis;
mod report;
mod sheet;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::sheet::{Sheet, Verdict};
use crate::servers::Servers;

/// How long the checks of one server may take in total.
const SERVER_MAX: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub struct Arguments {
    /// Check what this program needs, with the users in the addresses; by default, what all programs need.
    #[arg(long, value_name = "NAME")]
    program: Option<Program>,
}

/// The programs whose rights are checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Program {
    ProducerApi,
    QueueConsumer,
    SkiplockApi,
    Couponctl,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::ProducerApi => "producer-api",
            Self::QueueConsumer => "queue-consumer",
            Self::SkiplockApi => "skiplock-api",
            Self::Couponctl => "couponctl",
        }
    }
}

pub async fn run(servers: &Servers, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let programs = arguments.program.map_or_else(|| Program::value_variants().to_vec(), |program| vec![program]);
    let sheets = [
        within(Sheet::of("MySQL"), async |sheet| mysql::check(sheet, servers, &programs).await).await,
        within(Sheet::of("Redis"), async |sheet| redis::check(sheet, servers, &programs).await).await,
        within(Sheet::of("RabbitMQ"), async |sheet| rabbitmq::check(sheet, servers, &programs).await).await,
    ];
    let findings: Vec<_> = sheets.into_iter().flat_map(Sheet::into_findings).collect();
    let worst = sheet::worst(&findings);
    report::report(&findings, worst, json)?;
    Ok(match worst {
        Verdict::Ok | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Wrong => ExitCode::FAILURE,
        Verdict::NotChecked => ExitCode::from(3),
    })
}

/// Checks one server; if the checks are cut short, the sheet says so in the driver's own words.
async fn within(mut sheet: Sheet, check: impl AsyncFnOnce(&mut Sheet) -> anyhow::Result<()>) -> Sheet {
    match tokio::time::timeout(SERVER_MAX, check(&mut sheet)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => sheet.not_checked("the rest", &format!("{error:#}")),
        Err(_) => sheet.not_checked("the rest", &format!("it took longer than {SERVER_MAX:?}")),
    }
    sheet
}
