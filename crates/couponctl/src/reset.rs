//! `couponctl reset --yes`: deletes everything, in an order that leaves nothing stale: first the queues and Redis, then
//! MySQL, the source of truth.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::redis::{Redis, keys};
use coupon_core::{Installation, Result, terminal};
use deadpool_redis::redis::{self, AsyncCommands};
use futures_util::StreamExt;
use lapin::options::QueuePurgeOptions;
use mysql_async::TxOpts;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::output;
use crate::servers::Servers;

/// Keys deleted in one command.
const KEYS_PER_DELETE: usize = 1_000;

/// Claims wait for at most this long behind the deletion of the coupons.
const PATIENCE: &str = "SET SESSION lock_wait_timeout = 1";

const NOTHING: &str = "nothing was deleted";
const HALFWAY: &str = "not everything was deleted: run this again";

#[derive(Args, Debug)]
pub struct Arguments {
    /// Really delete everything.
    #[arg(long)]
    yes: bool,
    /// Leave Redis and RabbitMQ alone, for an installation without them.
    #[arg(long)]
    mysql_only: bool,
}

impl Arguments {
    /// Fails unless `--yes` confirms the deletion.
    pub fn check(&self, servers: &Servers) -> Result<(), String> {
        if self.yes {
            return Ok(());
        }
        let Servers { mysql, redis, amqp, namespace, .. } = servers;
        let others = if self.mysql_only {
            String::new()
        } else {
            format!(
                ", the keys of the namespace {} in {}, and the messages of its queues in {}",
                namespace.namespace, redis.redis_url, amqp.amqp_url
            )
        };
        Err(format!("this deletes every campaign and coupon in {}{others}; add --yes to do it", mysql.mysql_url))
    }
}

/// What was deleted besides campaigns and coupons; zero if Redis and RabbitMQ were left alone.
#[derive(Default, Serialize)]
struct Deleted {
    messages: u32,
    keys: usize,
}

pub async fn run(mysql: &Mysql, servers: &Servers, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    // A load in progress would keep adding coupons to deleted campaigns.
    let lock = campaigns::lock_for_operator(mysql).await?;
    let mut deleted = Deleted::default();
    if !arguments.mysql_only {
        // Comes first, because nothing brings back the messages in the queues.
        servers.reach_redis().await.context(NOTHING)?;
        deleted.messages = empty_queues(servers).await.context(NOTHING)?;
        let installation = Installation::of(mysql, &servers.namespace.namespace).await?;
        deleted.keys = delete_keys(servers, &installation).await.context("only the queues were emptied")?;
    }
    // Polls nothing else meanwhile, so that a signal does not end this halfway.
    let left = if arguments.mysql_only { NOTHING } else { "MySQL still has every campaign and coupon" };
    tokio::task::block_in_place(|| Handle::current().block_on(empty_tables(mysql, left)))?;
    lock.release().await;
    output::done("every campaign and coupon was deleted", &deleted, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Empties the coupons first: TRUNCATE waits for every transaction that has read them, such as a backup's or an audit's,
/// and claims wait behind it. If it gives up, nothing has changed; campaigns without their coupons would seem to be sold
/// out.
async fn empty_tables(mysql: &Mysql, left: &str) -> anyhow::Result<()> {
    let mut conn = mysql.connection_of_its_own().await.with_context(|| String::from(left))?;
    let ids = [conn.id()];
    let truncate = async {
        conn.query_drop(PATIENCE).await?;
        Ok(conn.query_drop("TRUNCATE coupon").await?)
    };
    match mysql.attended(&ids, truncate).await {
        Err(error) if error.is_conflict() => anyhow::bail!(
            "{left}: a transaction that has read the coupons is open, such as a backup's or an audit's, or a lock on their \
             table; run this again when it has ended"
        ),
        emptied => emptied.context(HALFWAY)?,
    }
    let delete = async {
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        for table in ["campaign", "coupon_load", "campaign_change"] {
            transaction.query_drop(format!("DELETE FROM {table}")).await?;
        }
        Ok(transaction.commit().await?)
    };
    mysql.attended(&ids, delete).await.context(HALFWAY)
}

/// Empties the queues instead of deleting them: messages in a queue that was recreated while its consumers still
/// listened to the old one may reach none of them.
async fn empty_queues(servers: &Servers) -> Result<u32> {
    let connection = rabbitmq::connect(&servers.amqp, "couponctl").await?;
    let queues = Queues::new(&servers.namespace.namespace, &servers.amqp);
    let (missing, mut messages, mut are_there) = (queues.claims.clone(), 0, false);
    for queue in [queues.claims, queues.dead] {
        if rabbitmq::message_count(&connection, &queue).await?.is_some() {
            let channel = connection.create_channel().await?;
            messages += channel.queue_purge(queue, QueuePurgeOptions::default()).await?;
            are_there = true;
        }
    }
    if !are_there {
        // Either no service has ever run, or they run elsewhere, with claims in their queues.
        let address = &servers.amqp.amqp_url;
        terminal::note(&format!("{address} has no queue {missing}; see that --namespace is that of the services"));
    }
    let _ = connection.close(200, "done".into()).await;
    Ok(messages)
}

async fn delete_keys(servers: &Servers, installation: &Installation) -> Result<usize> {
    let mut connection = Redis::new(&servers.redis)?;
    let options = redis::ScanOptions::default().with_pattern(keys::all(installation)).with_count(1_000);
    let found: Vec<redis::RedisResult<String>> = connection.scan_options(options).await?.collect().await;
    let found = found.into_iter().collect::<redis::RedisResult<Vec<String>>>()?;
    for keys in found.chunks(KEYS_PER_DELETE) {
        connection.unlink::<_, ()>(keys).await?;
    }
    Ok(found.len())
}
