//! `couponctl forget`: removes an account's number from everything that is stored. Its coupons stay issued, to a number
//! that identifies nobody, so that stock and audit do not change.
//!
//! Invariant: the order leaves nothing that could bring the number back: dead letters can be replayed, so none may hold
//! it; then comes MySQL, the source of truth; then the outcomes derived from it.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use coupon_core::mysql::{Mysql, campaigns, coupons, sql};
use coupon_core::redis::{connect, keys};
use coupon_core::terminal::{print, print_json};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId, Installation, Result};
use deadpool_redis::redis::AsyncCommands;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use serde::Serialize;
use uuid::Uuid;

use crate::campaign::history;
use crate::dead::Letters;
use crate::servers::Servers;

/// Campaigns read in one statement.
const CAMPAIGNS_PER_READ: usize = 1_000;

#[derive(Args, Debug)]
pub struct Arguments {
    /// The account.
    #[arg(long, value_name = "N")]
    account: AccountId,
    /// Leave Redis and RabbitMQ alone, for an installation without them.
    #[arg(long)]
    mysql_only: bool,
}

/// How much data held the account's number.
#[derive(Debug, Default, Serialize)]
struct Forgotten {
    coupons: usize,
    /// None if Redis was left alone.
    outcomes: Option<u64>,
    /// Messages waiting in the queue; none of them was checked.
    messages_not_looked_into: u32,
}

pub async fn run(mysql: &Mysql, servers: &Servers, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    if !arguments.mysql_only {
        // Comes first, because an outcome left in Redis would contradict its coupon.
        servers.reach_redis().await.context("nothing was changed")?;
        no_dead_letter_has(servers, arguments.account).await?;
    }
    let campaigns = mysql.run(async |mut conn: Conn| campaigns::all(&mut conn).await).await?;
    let claim = |campaign_id| ClaimKey { campaign_id, account_id: arguments.account };
    let claims: Vec<ClaimKey> = campaigns.iter().map(|campaign| claim(campaign.id)).collect();
    let mut forgotten = Forgotten::default();
    for claims in claims.chunks(CAMPAIGNS_PER_READ) {
        let asked = claims.to_vec();
        let held = mysql.run(async move |mut conn: Conn| coupons::coupons_of(&mut conn, &asked).await).await?;
        for (claim, coupon) in held {
            make_anonymous(mysql, claim, coupon).await?;
            forgotten.coupons += 1;
        }
    }
    if !arguments.mysql_only {
        forgotten.outcomes = Some(delete_outcomes(mysql, servers, &claims).await?);
        forgotten.messages_not_looked_into = servers.message_count(|queues| queues.claims).await?.unwrap_or(0);
    }
    show(arguments.account, &forgotten, json)?;
    Ok(ExitCode::SUCCESS)
}

async fn no_dead_letter_has(servers: &Servers, account: AccountId) -> anyhow::Result<()> {
    let mut letters = Letters::open(servers).await?;
    let mut found = BTreeSet::new();
    while let Some(letter) = letters.next().await? {
        if letter.names(account) {
            found.insert(letter.id.to_string());
        }
    }
    letters.close().await?;
    anyhow::ensure!(
        found.is_empty(),
        "nothing was changed: dead letters name account {account}; replay those that hold claims with `couponctl dead replay \
         {ids}`, delete the others with `couponctl dead purge --yes {ids}`, and run this again",
        ids = Vec::from_iter(found).join(" ")
    );
    Ok(())
}

/// Replaces the account with a number that no account has: account numbers end where signed numbers do.
async fn make_anonymous(mysql: &Mysql, claim: ClaimKey, coupon: CouponId) -> Result<()> {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let nobody = random | (AccountId::MAX.0 + 1);
    let CampaignId(campaign) = claim.campaign_id;
    mysql
        .run(async move |mut conn: Conn| {
            let mut transaction = conn.start_transaction(TxOpts::default()).await?;
            transaction.exec_drop(sql::FORGET, (nobody, campaign, coupon.0, claim.account_id.0)).await?;
            let line = (None, String::from("the account of a coupon"));
            history::write(&mut transaction, claim.campaign_id, "forget", line).await?;
            Ok(transaction.commit().await?)
        })
        .await
}

async fn delete_outcomes(mysql: &Mysql, servers: &Servers, claims: &[ClaimKey]) -> Result<u64> {
    let installation = Installation::of(mysql, &servers.namespace.namespace).await?;
    let mut redis = connect(&servers.redis)?;
    let mut deleted = 0;
    // One by one, because each campaign may be in a different slot of a cluster.
    for claim in claims {
        deleted += redis.unlink::<_, u64>(keys::outcome(&installation, *claim)).await?;
    }
    Ok(deleted)
}

fn show(account: AccountId, forgotten: &Forgotten, json: bool) -> std::io::Result<()> {
    if json {
        return print_json(forgotten);
    }
    let Forgotten { coupons, outcomes, messages_not_looked_into } = forgotten;
    let outcomes = outcomes.map(|outcomes| format!(", {outcomes} outcomes in Redis")).unwrap_or_default();
    print(&format!("account {account} is forgotten: {coupons} coupons{outcomes}"))?;
    if *messages_not_looked_into > 0 {
        print(&format!(
            "{messages_not_looked_into} messages wait in the queue, which may hold claims of it: run this again when the \
             queue is empty"
        ))?;
    }
    Ok(())
}
