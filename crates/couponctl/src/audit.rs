//! `couponctl audit`: checks the invariants in MySQL, the outcomes recorded in Redis, and the dead letters.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use coupon_core::audit::{self, Answers, Broker, Report};
use coupon_core::mysql::Mysql;
use coupon_core::rabbitmq::Queues;
use coupon_core::redis::Redis;
use coupon_core::redis::keys;
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::terminal::{print, print_json, printable};
use coupon_core::{CampaignId, ClaimKey, Installation, Outcome, Result};
use deadpool_redis::redis::{self, AsyncCommands};
use futures_util::StreamExt;
use serde::Serialize;

use crate::campaign::must_exist;
use crate::dead::Letters;
use crate::output::{Printed, number, table};
use crate::servers::Servers;

/// Exit code of an audit that could not check everything.
const NOT_CHECKED: u8 = 3;

/// Outcomes read in one command.
const OUTCOMES_PER_READ: usize = 1_000;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Only this campaign; all by default.
    #[arg(long, value_name = "ID")]
    campaign: Option<CampaignId>,
    /// Leave Redis and RabbitMQ alone, for an installation without them.
    #[arg(long)]
    mysql_only: bool,
}

/// The verdict of an audit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was checked and holds.
    Clean,
    /// An invariant is broken.
    Broken,
    /// Everything that was checked holds, but something could not be checked.
    NotChecked,
}

impl Verdict {
    fn of(report: &Report, not_checked: &[String]) -> Self {
        match (report.clean, not_checked) {
            (false, _) => Self::Broken,
            (true, []) => Self::Clean,
            (true, _) => Self::NotChecked,
        }
    }

    fn exit_code(self) -> ExitCode {
        match self {
            Self::Clean => ExitCode::SUCCESS,
            Self::Broken => ExitCode::FAILURE,
            Self::NotChecked => ExitCode::from(NOT_CHECKED),
        }
    }
}

pub async fn run(mysql: &Mysql, servers: &Servers, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(campaign) = arguments.campaign {
        must_exist(mysql, campaign).await?;
    }
    let mut not_checked = Vec::new();
    let (mut reported, mut broker) = (Answers::default(), None);
    if !arguments.mysql_only {
        let installation = Installation::of(mysql, &servers.namespace.namespace).await?;
        match read_outcomes(servers, &installation, arguments.campaign).await {
            Ok(found) => reported = found,
            Err(error) => not_checked.push(format!("the outcomes in Redis: {error}; {}", error.remedy())),
        }
        match servers.message_count(|queues| queues.dead).await {
            Ok(Some(all)) => match dead_letters(servers, arguments.campaign, all).await {
                Ok(dead_letters) => broker = Some(Broker { dead_letters }),
                Err(error) => not_checked.push(format!("the dead letters in RabbitMQ: {error:#}")),
            },
            Ok(None) => not_checked.push(no_queue(servers)),
            Err(error) => not_checked.push(format!("the dead letters in RabbitMQ: {error}; {}", error.remedy())),
        }
    }
    let report = audit::audit(mysql, arguments.campaign, reported, broker).await?;
    let verdict = Verdict::of(&report, &not_checked);
    show(verdict, &report, &not_checked, json)?;
    Ok(verdict.exit_code())
}

/// Reads the outcomes recorded in Redis. Campaigns may have been restocked since, so they cannot prove that a "sold
/// out" was wrong.
async fn read_outcomes(
    servers: &Servers,
    installation: &Installation,
    campaign: Option<CampaignId>,
) -> Result<Answers> {
    let mut connection = Redis::new(&servers.redis)?;
    let outcomes = Outcomes::new(connection.clone(), installation.clone());
    let options = redis::ScanOptions::default().with_pattern(keys::outcomes(installation, campaign)).with_count(1_000);
    let mut found = connection.scan_options::<String>(options).await?;
    let mut claims: Vec<ClaimKey> = Vec::new();
    while let Some(key) = found.next().await {
        claims.extend(keys::claim_of_outcome(&key?));
    }
    drop(found);
    let mut reported = Answers::default();
    for claims in claims.chunks(OUTCOMES_PER_READ) {
        let read = outcomes.read(claims).await?;
        // An outcome that expired between the two commands says nothing.
        reported.outcomes.extend(claims.iter().copied().zip(read).filter(|(_, outcome)| *outcome != Outcome::Pending));
    }
    Ok(reported)
}

/// Counts the dead letters. With a campaign, only those that hold a claim of it, and those whose claims cannot be read.
async fn dead_letters(servers: &Servers, campaign: Option<CampaignId>, all: u32) -> anyhow::Result<u64> {
    let Some(campaign) = campaign.filter(|_| all > 0) else { return Ok(u64::from(all)) };
    let (mut letters, mut count) = (Letters::open(servers).await?, 0);
    while let Some(letter) = letters.next().await? {
        if letter.message.is_err() || letter.campaigns().contains(&campaign) {
            count += 1;
        }
    }
    letters.close().await?;
    Ok(count)
}

/// The services declare their queues when they start: if there are none, this is not where the services run.
fn no_queue(servers: &Servers) -> String {
    let (queues, address) = (Queues::new(&servers.namespace.namespace, &servers.amqp), &servers.amqp.amqp_url);
    format!(
        "the dead letters in RabbitMQ: {address} has no queue {}; give --namespace and --amqp-url as the services have them, \
         wait five seconds if the queue was deleted while producer-api runs, or give --mysql-only if none has ever run",
        queues.dead
    )
}

/// Prints the findings of an audit.
fn show(verdict: Verdict, report: &Report, not_checked: &[String], json: bool) -> Printed {
    /// `clean` is true only if everything was checked, so that a script need not read the rest.
    #[derive(Serialize)]
    struct Document<'a> {
        verdict: Verdict,
        #[serde(flatten)]
        report: &'a Report,
        not_checked: &'a [String],
    }

    if json {
        let report = &Report { clean: verdict == Verdict::Clean, ..report.clone() };
        return print_json(&Document { verdict, report, not_checked });
    }
    let mut table = table(["invariant", "checked", "broken", "examples"]);
    for finding in &report.invariants {
        table.add_row([
            Cell::new(finding.invariant),
            number(finding.checked),
            number(finding.broken),
            Cell::new(finding.examples.join("\n")),
        ]);
    }
    print(&table)?;
    for reason in not_checked {
        print(&format!("not checked: {}", printable(reason)))?;
    }
    let issued: u64 = report.campaigns.iter().map(|stock| stock.issued).sum();
    let free: u64 = report.campaigns.iter().map(|stock| stock.free).sum();
    let verdict = match verdict {
        Verdict::Clean => "clean",
        Verdict::Broken => "BROKEN",
        Verdict::NotChecked => "NOT ALL CHECKED; everything that was checked holds",
    };
    print(&format!("{verdict}: {} campaigns, {issued} coupons issued, {free} free", report.campaigns.len()))
}
