//! Checks that an answer comes after the flush that makes it durable. Killing a process cannot show that, because the
//! operating system keeps what a killed process has written; the servers' counters can.
//!
//! Invariant: nobody else writes meanwhile, so that a counted flush belongs to the claim.

use anyhow::Context;
use coupon_core::{AccountId, CampaignId, ClaimKey};
use mysql_async::prelude::Queryable;

use crate::checkers::Check;
use crate::clients::{APIS, Clients};
use crate::journal::{Answer, Micros};
use crate::stage::Stage;

/// How many claims each API gets.
const CLAIMS: u64 = 5;

/// Accounts that no client of the load has.
const FIRST_ACCOUNT: u64 = 1 << 50;

/// Flushes of the binary log; there is one for each commit.
const MYSQL_FLUSHES: &str = "SELECT COUNT_MISC FROM performance_schema.file_summary_by_event_name \
                             WHERE EVENT_NAME = 'wait/io/file/sql/binlog'";

/// Batches that RabbitMQ's log has written and flushed.
const RABBITMQ_FLUSHES: &str = "maps:get(batches, maps:get(ra_log_wal, ra_counters:overview())).";

/// Sends claims to both APIs, one by one.
///
/// # Errors
/// A server does not report how often it has flushed.
pub async fn check(stage: &Stage, clients: &Clients) -> anyhow::Result<Check> {
    let mut seen = Vec::new();
    let campaign_id = CampaignId(clients.campaigns.numbers().next().context("a campaign")?);
    for n in 0..CLAIMS {
        for (is_queue, instance) in [(true, APIS[0]), (false, APIS[2])] {
            let account = FIRST_ACCOUNT + 2 * n + u64::from(is_queue);
            let before = flushes(stage, is_queue).await?;
            let answer = clients.claim(instance, ClaimKey { campaign_id, account_id: AccountId(account) }).await;
            let after = flushes(stage, is_queue).await?;
            seen.push((answer, after - before));
        }
    }
    let says = "Before 201 MySQL has flushed its binary log, and before 202 RabbitMQ the log of its queues.";
    Ok(Check::of("flushed", says, seen.iter(), |(answer, flushes)| {
        let is_answered = matches!(answer, Answer::Issued(_) | Answer::Accepted);
        (!is_answered || *flushes < 1).then(|| ((0, Micros::MAX), format!("{answer:?} after {flushes} flushes")))
    }))
}

async fn flushes(stage: &Stage, is_queue: bool) -> anyhow::Result<i64> {
    if is_queue {
        let printed = stage.server("rabbitmq")?.rabbitmqctl(&["eval", RABBITMQ_FLUSHES]).await?;
        return printed.trim().parse().with_context(|| printed.clone());
    }
    let mut conn = stage.mysql().await?;
    let count = conn.query_first(MYSQL_FLUSHES).await?;
    conn.disconnect().await?;
    count.context("the flushes of the binary log")
}
