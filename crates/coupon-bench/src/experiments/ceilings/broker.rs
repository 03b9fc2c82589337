//! How fast RabbitMQ takes in and gives out messages like those of the services.

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
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use uuid::Uuid;

use super::BATCH;

/// Claims in a message: about as many as wait at the same moment with 256 clients.
const CLAIMS_PER_MESSAGE: usize = 32;

/// Messages in flight: those of two HTTP workers.
const MESSAGES_IN_FLIGHT: usize = 8;

/// Messages sent ahead to a consumer.
const PREFETCH: u16 = 200;

/// Claims per second.
pub struct Rates {
    pub publish: f64,
    pub consume: f64,
}

/// Publishes for a while to a queue like the one for claims, then consumes everything in it.
pub async fn measure(settings: &AmqpSettings, time: Duration) -> anyhow::Result<Rates> {
    let installation = InstallationId(Uuid::new_v4());
    let namespace: Namespace = format!("bench-{installation}").parse().map_err(anyhow::Error::msg)?;
    let queues = Queues::new(&namespace, settings);
    let connection = rabbitmq::connect(settings, "coupon-bench").await?;
    queues.declare(&connection).await?;
    let (publish, confirmed) = publish(&connection, &queues, installation, time).await?;
    let consume = consume(&connection, &queues, confirmed).await?;
    delete(&connection.create_channel().await?, queues).await?;
    Ok(Rates { publish, consume })
}

/// Returns the claims per second, and how many claims are in the queue afterwards.
async fn publish(
    connection: &Connection,
    queues: &Queues,
    installation: InstallationId,
    time: Duration,
) -> anyhow::Result<(f64, usize)> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let claim =
        Claim { campaign_id: CampaignId(1), account_id: AccountId(1_000_000), accepted_at_ms: 1_900_000_000_000 };
    let body = message::encode(&[claim; CLAIMS_PER_MESSAGE])?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let began = Instant::now();
    let mut confirms = FuturesUnordered::new();
    let mut confirmed = 0;
    while began.elapsed() < time {
        while confirms.len() < MESSAGES_IN_FLIGHT {
            let properties = message::properties(installation, std::iter::empty());
            confirms.push(channel.basic_publish("".into(), queues.claims.clone(), options, &body, properties).await?);
        }
        confirms.next().await.context("a confirm")??;
        confirmed += CLAIMS_PER_MESSAGE;
    }
    let rate = confirmed as f64 / began.elapsed().as_secs_f64();
    while let Some(confirm) = confirms.next().await {
        confirm?;
        confirmed += CLAIMS_PER_MESSAGE;
    }
    Ok((rate, confirmed))
}

/// Returns the claims per second, with an ack for each batch.
async fn consume(connection: &Connection, queues: &Queues, claims: usize) -> anyhow::Result<f64> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let began = Instant::now();
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(queues.claims.clone(), "".into(), options, FieldTable::default()).await?;
    let (mut consumed, mut unacknowledged) = (0, 0);
    while consumed < claims {
        let delivery = deliveries.next().await.context("a delivery")??;
        let message = message::decode(&delivery.properties, &delivery.data).map_err(anyhow::Error::msg)?;
        consumed += message.claims.len();
        unacknowledged += message.claims.len();
        if unacknowledged >= BATCH || consumed >= claims {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            unacknowledged = 0;
        }
    }
    Ok(consumed as f64 / began.elapsed().as_secs_f64())
}

async fn delete(channel: &Channel, queues: Queues) -> anyhow::Result<()> {
    for queue in [queues.claims, queues.dead] {
        channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    }
    Ok(())
}
