//! Taking claims from RabbitMQ in batches, and acknowledging them when they have their outcome.
//!
//! Invariant: a message is acknowledged only after its claim has an outcome in MySQL. A batch whose servers are away is
//! held and tried again; a process that ends gives it back to the broker by closing the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use coupon_core::broker::{self, Queues};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Claim, Error, Result};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio_util::sync::CancellationToken;

use crate::settle::Settler;

/// Consumes until told to stop.
pub struct Consumer {
    pub settler: Settler,
    pub queues: Queues,
    pub consuming: Arc<AtomicBool>,
    pub amqp: AmqpSettings,
    pub batch_max: u16,
    pub prefetch: u16,
}

impl Consumer {
    /// Consumes, connecting again whenever the broker was away.
    pub async fn run(&self, stop: &CancellationToken) -> Result<()> {
        let mut pauses = pauses().build();
        while !stop.is_cancelled() {
            let ended = self.consume(stop).await;
            if self.consuming.swap(false, Ordering::Relaxed) {
                pauses = self::pauses().build();
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    let pause = pauses.next().unwrap_or(PAUSE_MAX);
                    tracing::warn!(%error, ?pause, "connecting to RabbitMQ again");
                    let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                }
            }
        }
        Ok(())
    }

    /// Consumes over one connection until it breaks or the process is told to stop. A consumer owns its connection for
    /// life: a pool would have nothing to hand out twice.
    async fn consume(&self, stop: &CancellationToken) -> Result<()> {
        let connection = broker::connect(&self.amqp, "queue-consumer").await?;
        let (channel, mut deliveries) =
            broker::within(self.amqp.amqp_deadline, "starting to consume", self.subscribe(&connection)).await?;
        self.consuming.store(true, Ordering::Relaxed);
        tracing::info!(queue = %self.queues.claims, prefetch = self.prefetch, "consuming");
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                first = deliveries.next() => first.ok_or(Error::Broken(String::from("the consumer ended"))),
            };
            // The broker cancels a consumer whose queue was deleted; the next connection declares it again.
            let Ok(first) = first else { return Err(Error::Deadline { what: "the queue", limit: Duration::ZERO }) };
            let batch = self.take_arrived(first?, &mut deliveries)?;
            self.handle(&channel, batch, stop).await?;
        }
        // What was sent ahead goes back to the queue with this.
        let close = connection.close(200, "stopping".into());
        broker::within(self.amqp.amqp_deadline, "closing the connection", async { Ok(close.await?) }).await
    }

    async fn subscribe(&self, connection: &Connection) -> Result<(Channel, lapin::Consumer)> {
        let channel = connection.create_channel().await?;
        self.queues.declare(&channel).await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let deliveries = channel
            .basic_consume(self.queues.claims.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        Ok((channel, deliveries))
    }

    /// The first delivery and whatever else is here already, up to a batch: never waits for more.
    fn take_arrived(&self, first: Delivery, deliveries: &mut lapin::Consumer) -> Result<Vec<Delivery>> {
        let mut batch = vec![first];
        while batch.len() < usize::from(self.batch_max) {
            match deliveries.next().now_or_never() {
                Some(Some(delivery)) => batch.push(delivery?),
                // Nothing more for now, or the end, which the next wait finds.
                Some(None) | None => break,
            }
        }
        Ok(batch)
    }

    async fn handle(&self, channel: &Channel, batch: Vec<Delivery>, stop: &CancellationToken) -> Result<()> {
        let mut claims = Vec::with_capacity(batch.len());
        let mut last = None;
        for delivery in batch {
            match broker::decode(&delivery.properties, &delivery.data) {
                Ok(claim) => {
                    claims.push(claim);
                    last = Some(delivery.delivery_tag);
                }
                Err(reason) => {
                    tracing::error!(reason, "a message that is no claim goes to the dead letters");
                    channel.basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue: false }).await?;
                }
            }
        }
        let Some(last) = last else { return Ok(()) };
        tokio::select! {
            settled = self.settle(&claims) => settled?,
            // Stopping while the servers are away: the batch goes back to the queue.
            () = given_up(stop) => return Err(Error::Deadline { what: "the batch in hand", limit: GIVE_UP_AFTER }),
        }
        // All deliveries before this one have been handled, so one acknowledgement does for the batch.
        Ok(channel.basic_ack(last, BasicAckOptions { multiple: true }).await?)
    }

    /// Settles a batch, again and again while its servers are away: the claims in it were promised an outcome.
    async fn settle(&self, claims: &[Claim]) -> Result<()> {
        (|| self.settler.settle(claims))
            .retry(pauses())
            .when(Error::is_retryable)
            .notify(|error, pause| tracing::warn!(%error, ?pause, claims = claims.len(), "a batch waits"))
            .await?;
        Ok(())
    }
}

const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the servers of a batch in hand may stay away once the process was told to stop.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Pauses between tries, with jitter so that many consumers don't come back at the same moment. The tries themselves
/// have no limit here: RabbitMQ's `consumer_timeout` is one.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
}

async fn given_up(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GIVE_UP_AFTER).await;
}
