//! How fast RabbitMQ takes in and gives out messages like those of the services.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use coupon_core::rabbitmq::{self, Queues, message};
use coupon_core::settings::{AmqpSettings, Namespace};
use coupon_core::{AccountId, CampaignId, Claim, InstallationId};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BATCH, together};

/// Claims in a message: about as many as wait at the same moment with 256 clients.
const CLAIMS_PER_MESSAGE: usize = 32;

/// Messages in flight on each connection: those of two HTTP workers.
const MESSAGES_IN_FLIGHT: usize = 8;

/// Messages sent ahead to each consumer.
const PREFETCH: u16 = 200;

/// Claims per second.
pub struct Rates {
    pub publish: f64,
    pub consume: f64,
}

/// Publishes for a while to a queue like the one for claims, then consumes everything in it.
pub async fn measure(settings: &AmqpSettings, connections: usize, time: Duration) -> anyhow::Result<Rates> {
    let installation = InstallationId(Uuid::new_v4());
    let namespace: Namespace = format!("bench-{installation}").parse().map_err(anyhow::Error::msg)?;
    let queues = Queues::new(&namespace, settings);
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(rabbitmq::connect(settings, "coupon-bench").await?);
    }
    let first = open.first().context("a connection")?;
    queues.declare(first).await?;
    let claims = || queues.claims.clone();
    let (waiting, all) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let publishers = channels(&open).await?.into_iter();
    let publish =
        together(publishers.map(|it| publish(it, claims(), installation, Arc::clone(&waiting), time))).await?;
    let consumers = channels(&open).await?.into_iter();
    let consume = together(consumers.map(|it| consume(it, claims(), Arc::clone(&waiting), all.clone()))).await?;
    delete(&first.create_channel().await?, queues).await?;
    Ok(Rates { publish, consume })
}

async fn channels(connections: &[Connection]) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for connection in connections {
        channels.push(connection.create_channel().await?);
    }
    Ok(channels)
}

/// Publishes until the time is over, and returns how many claims were confirmed; they are added to `waiting`.
async fn publish(
    channel: Channel,
    queue: ShortString,
    installation: InstallationId,
    waiting: Arc<AtomicUsize>,
    time: Duration,
) -> anyhow::Result<u64> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let claim =
        Claim { campaign_id: CampaignId(1), account_id: AccountId(1_000_000), accepted_at_ms: 1_900_000_000_000 };
    let body = message::encode(&[claim; CLAIMS_PER_MESSAGE])?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let began = Instant::now();
    let mut confirms = FuturesUnordered::new();
    let mut confirmed = 0;
    loop {
        while confirms.len() < MESSAGES_IN_FLIGHT && began.elapsed() < time {
            let properties = message::properties(installation, std::iter::empty());
            confirms.push(channel.basic_publish("".into(), queue.clone(), options, &body, properties).await?);
        }
        let Some(confirm) = confirms.next().await else { break };
        confirm?;
        confirmed += CLAIMS_PER_MESSAGE;
    }
    waiting.fetch_add(confirmed, Ordering::Relaxed);
    Ok(confirmed as u64)
}

/// Consumes, with an ack for each batch, until none of the waiting claims are left, and returns how many it got.
async fn consume(
    channel: Channel,
    queue: ShortString,
    waiting: Arc<AtomicUsize>,
    all: CancellationToken,
) -> anyhow::Result<u64> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = channel.basic_consume(queue, "".into(), options, arguments).await?;
    let (mut consumed, mut unacknowledged) = (0, 0);
    while let Some(delivery) = all.run_until_cancelled(deliveries.next()).await {
        let delivery = delivery.context("a delivery")??;
        let message = message::decode(&delivery.properties, &delivery.data).map_err(anyhow::Error::msg)?;
        let claims = message.claims.len();
        consumed += claims as u64;
        unacknowledged += claims;
        let is_last = waiting.fetch_sub(claims, Ordering::Relaxed) <= claims;
        if unacknowledged >= BATCH || is_last {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            unacknowledged = 0;
        }
        if is_last {
            all.cancel();
        }
    }
    Ok(consumed)
}

async fn delete(channel: &Channel, queues: Queues) -> anyhow::Result<()> {
    for queue in [queues.claims, queues.dead] {
        channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    }
    Ok(())
}
