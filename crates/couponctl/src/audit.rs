//! `couponctl audit`: the invariants in MySQL, the outcomes that Redis has answered, and the dead letters.

use std::process::ExitCode;

use clap::Args;
use coupon_core::audit::{self, Answers, Broker, Report};
use coupon_core::mysql::Mysql;
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::redis::Redis;
use coupon_core::redis::keys;
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::{CampaignId, ClaimKey, Installation, Outcome, Result};
use deadpool_redis::redis::{self, AsyncCommands};
use futures_util::StreamExt;
use serde::Serialize;

use crate::{Couponctl, campaign, output};

/// Exit code of an audit that could not check everything.
const NOT_CHECKED: u8 = 3;

/// Outcomes read in one command.
const OUTCOMES_PER_READ: usize = 1_000;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Only this campaign; all unless given.
    #[arg(long, value_name = "ID")]
    campaign: Option<CampaignId>,
    /// Leave Redis and RabbitMQ alone, for an installation that has none.
    #[arg(long)]
    mysql_only: bool,
}

/// What an audit comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was checked, and holds.
    Clean,
    /// An invariant is broken.
    Broken,
    /// What was checked holds, but something could not be checked.
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

pub async fn run(mysql: &Mysql, couponctl: &Couponctl, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(campaign) = arguments.campaign {
        campaign::must_exist(mysql, campaign).await?;
    }
    let mut not_checked = Vec::new();
    let (mut reported, mut broker) = (Answers::default(), None);
    if !arguments.mysql_only {
        let installation = Installation::of(mysql, &couponctl.namespace.namespace).await?;
        match read_outcomes(couponctl, &installation, arguments.campaign).await {
            Ok(found) => reported = found,
            Err(error) => not_checked.push(format!("the outcomes in Redis: {error}")),
        }
        match dead_letters(couponctl).await {
            Ok(dead_letters) => broker = Some(Broker { dead_letters }),
            Err(error) => not_checked.push(format!("the dead letters in RabbitMQ: {error}")),
        }
    }
    let report = audit::audit(mysql, arguments.campaign, reported, broker).await?;
    let verdict = Verdict::of(&report, &not_checked);
    output::audit(verdict, &report, &not_checked, couponctl.json)?;
    Ok(verdict.exit_code())
}

/// The outcomes recorded in Redis. Campaigns may have been restocked since, so they are no proof of a wrong "sold out".
async fn read_outcomes(
    couponctl: &Couponctl,
    installation: &Installation,
    campaign: Option<CampaignId>,
) -> Result<Answers> {
    let mut connection = Redis::new(&couponctl.redis)?;
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
        // One that ran out between the two commands says nothing.
        reported.outcomes.extend(claims.iter().copied().zip(read).filter(|(_, outcome)| *outcome != Outcome::Pending));
    }
    Ok(reported)
}

async fn dead_letters(couponctl: &Couponctl) -> Result<u64> {
    let connection = rabbitmq::connect(&couponctl.amqp, "couponctl").await?;
    let queues = Queues::new(&couponctl.namespace.namespace, &couponctl.amqp);
    let count = rabbitmq::message_count(&connection, &queues.dead).await?;
    let _ = connection.close(200, "done".into()).await;
    // No queue, no dead letters.
    Ok(count.map_or(0, u64::from))
}
