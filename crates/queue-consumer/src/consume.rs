//! Takes claims from RabbitMQ in batches, and acknowledges them once they have their outcome.
//!
//! Invariant: a message is acknowledged only after its claims have an outcome in MySQL, or are among the dead letters.
//! A batch is held and retried while its servers are away; a process that ends gives it back to the broker by closing
//! the connection. While a batch is held, or no connection brings claims, the service is not ready.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use coupon_core::age::end_of_life;
use coupon_core::rabbitmq::message::{self, Message};
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::settings::AmqpSettings;
use coupon_core::telemetry::metrics;
use coupon_core::telemetry::span::FutureExt as _;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{Claim, Error, InstallationId, Outcome, Result};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::batch::Settled;
use crate::dead_letters::{self, Letter};
use crate::foreign::Foreign;
use crate::settle::{Publishers, Settler};
use crate::steps;
use crate::trace::{self, BatchTrace};
use crate::trouble::Trouble;

/// Consumes claims until told to stop.
pub struct Consumer {
    pub settler: Settler,
    pub installation: InstallationId,
    pub queues: Queues,
    /// Why no claims arrive.
    pub connection: Trouble,
    /// Why the batch in hand is not settled.
    pub batch: Trouble,
    pub amqp: AmqpSettings,
    pub batch_max: u16,
    pub prefetch: u16,
}

/// A connection on which claims arrive.
pub struct Subscribed {
    connection: Connection,
    channel: Channel,
    deliveries: lapin::Consumer,
}

impl Consumer {
    /// Consumes, reconnecting whenever the broker was away or a connection has reached its maximum age.
    pub async fn run(&self, first: Result<Subscribed>, stop: &CancellationToken) -> Result<()> {
        let mut given = Given::default();
        let mut foreign = Foreign::new(self.installation);
        let mut first = Some(first);
        while !stop.is_cancelled() {
            let subscribed = match first.take() {
                Some(first) => first,
                None => self.subscribe().await,
            };
            let ended = match subscribed {
                Ok(subscribed) => self.consume(subscribed, stop, &mut given).await,
                Err(error) => Err(error),
            };
            given.tell();
            if let Err(error) = ended {
                self.connection.note(&error);
                tracing::debug!(%error, "connecting to RabbitMQ again");
                if matches!(error, Error::Foreign { .. }) {
                    foreign.stand_aside(&self.amqp, &self.queues, stop).await;
                } else {
                    let _ = tokio::time::timeout(RECONNECT_AFTER, stop.cancelled()).await;
                }
            }
        }
        Ok(())
    }

    /// Consumes over one connection until it breaks, is old, or the process is told to stop. The consumer owns its
    /// connection: a pool would never hand it out a second time.
    async fn consume(&self, subscribed: Subscribed, stop: &CancellationToken, given: &mut Given) -> Result<()> {
        let Subscribed { connection, channel, mut deliveries } = subscribed;
        self.connection.is_over();
        tracing::info!(queue = %self.queues.claims, prefetch = self.prefetch, "consuming");
        let old = tokio::time::sleep_until(end_of_life(self.amqp.amqp_connection_age).into());
        tokio::pin!(old);
        let mut tell = tokio::time::interval(TELL_EVERY);
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = &mut old => break,
                _ = tell.tick() => {
                    given.tell();
                    continue;
                }
                first = deliveries.next() => first.ok_or(QUEUE_GONE)??,
                _ = check.tick() => {
                    self.check(&channel).await?;
                    continue;
                }
            };
            let batch = self.take_arrived(&first, &mut deliveries)?;
            let is_last = batch.is_last;
            self.handle(&channel, batch, stop, given).await?;
            if is_last {
                return Err(QUEUE_GONE);
            }
        }
        // Closing returns the prefetched messages to the queue.
        let close = connection.close(200, "stopping".into());
        rabbitmq::within(self.amqp.amqp_deadline, "closing the connection", async { Ok(close.await?) }).await
    }

    /// Makes a round trip to the broker, because a connection whose peer vanished silently delivers nothing, not even
    /// an error.
    async fn check(&self, channel: &Channel) -> Result<()> {
        // Setting the same prefetch again changes nothing.
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        rabbitmq::within(self.amqp.amqp_deadline.min(CHECK_DEADLINE), "a check of RabbitMQ", async { Ok(qos.await?) })
            .await
    }

    /// Connects, declares the queues or checks that they are as required, and subscribes to claims.
    ///
    /// # Errors
    /// An error of the broker, or [`Error::Unsafe`] if it may lose claims.
    pub async fn subscribe(&self) -> Result<Subscribed> {
        let connection = rabbitmq::connect(&self.amqp, "queue-consumer").await?;
        rabbitmq::within(self.amqp.amqp_deadline, "starting to consume", self.subscribe_on(connection)).await
    }

    async fn subscribe_on(&self, connection: Connection) -> Result<Subscribed> {
        self.queues.declare(&connection).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let deliveries = channel
            .basic_consume(self.queues.claims.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?;
        Ok(Subscribed { connection, channel, deliveries })
    }

    /// Takes the first delivery and any others that have already arrived, until the batch is full. Never waits for
    /// more.
    fn take_arrived(&self, first: &Delivery, deliveries: &mut lapin::Consumer) -> Result<Batch> {
        let mut batch = Batch::new(self.queues.claims.as_str(), self.installation);
        batch.add(first)?;
        while batch.claims.len() < usize::from(self.batch_max) {
            match deliveries.next().now_or_never() {
                Some(Some(delivery)) => batch.add(&delivery?)?,
                Some(None) => {
                    batch.is_last = true;
                    break;
                }
                None => break,
            }
        }
        Ok(batch)
    }

    async fn handle(&self, channel: &Channel, batch: Batch, stop: &CancellationToken, given: &mut Given) -> Result<()> {
        self.keep_poison(channel, batch.poison).await?;
        let (claims, publishers) = (batch.claims, batch.publishers);
        let (Some(last), mut trace) = (batch.last, batch.trace) else { return Ok(()) };
        let _in_flight = metrics::InFlight::claims(claims.len());
        metrics::batch(claims.iter().map(|claim| trace::time_in_queue(claim, trace.taken_at()).as_secs_f64()));

        let timeline = trace.begin(claims.len());
        let settled = Box::pin(self.settle_and_ack(channel, &claims, &publishers, last, stop, &timeline));
        let settled = settled.with_context(trace.context()).await;
        trace.end(&timeline, &settled);
        given.add(&settled?);
        Ok(())
    }

    async fn settle_and_ack(
        &self,
        channel: &Channel,
        claims: &[Claim],
        publishers: &Publishers,
        last: u64,
        stop: &CancellationToken,
        timeline: &Timeline,
    ) -> Result<Settled> {
        let settled = tokio::select! {
            settled = self.settle(claims, publishers, timeline) => settled?,
            // Stopping while the servers are away: the batch goes back to the queue.
            () = given_up(stop) => return Err(Error::Deadline { what: "the batch in hand", limit: GIVE_UP_AFTER }),
        };
        self.keep_unknown(claims, &settled).await?;
        // All deliveries before this one have been handled, so one ack covers the whole batch.
        let ack = channel.basic_ack(last, BasicAckOptions { multiple: true });
        let ack = rabbitmq::within(self.amqp.amqp_deadline, "acknowledging a batch", async { Ok(ack.await?) });
        timeline.step(&steps::ACK, claims.len(), ack).await?;
        Ok(settled)
    }

    /// Puts messages that hold no claims among the dead letters, with the reason. If that fails, as when the broker is
    /// short of memory, rejects them, and the broker moves them there itself, without the reason: they must not hold up
    /// claims.
    async fn keep_poison(&self, channel: &Channel, poison: Vec<Poison>) -> Result<()> {
        if poison.is_empty() {
            return Ok(());
        }
        let (tags, letters): (Vec<u64>, Vec<Letter>) = poison.into_iter().unzip();
        let kept = dead_letters::keep(&self.amqp, &self.queues, &letters).await;
        let done = async {
            for tag in tags {
                match &kept {
                    Ok(()) => channel.basic_ack(tag, BasicAckOptions::default()).await?,
                    Err(_) => channel.basic_reject(tag, BasicRejectOptions { requeue: false }).await?,
                }
            }
            Ok(())
        };
        if let Err(error) = &kept {
            tracing::warn!(%error, "messages that hold no claims go to the dead letters without the reason");
        }
        rabbitmq::within(self.amqp.amqp_deadline, "settling messages that hold no claims", done).await
    }

    /// Puts the claims of campaigns that do not exist among the dead letters.
    async fn keep_unknown(&self, claims: &[Claim], settled: &Settled) -> Result<()> {
        if settled.unknown.is_empty() {
            return Ok(());
        }
        let is_unknown = |claim: &&Claim| settled.unknown.contains(&claim.key());
        let claims: Vec<Claim> = claims.iter().filter(is_unknown).copied().collect();
        tracing::error!(reason = NO_CAMPAIGN, claims = claims.len(), "claims go to the dead letters");
        let letters = dead_letters::of_claims(&claims, self.installation, NO_CAMPAIGN)?;
        dead_letters::keep(&self.amqp, &self.queues, &letters).await
    }

    /// Settles a batch, retrying until it is done, because its claims were promised an outcome. Retries even after an
    /// error that needs an operator, such as a full disk: giving the batch back would only use up its deliveries.
    async fn settle(&self, claims: &[Claim], publishers: &Publishers, timeline: &Timeline) -> Result<Settled> {
        (|| self.settler.settle(claims, publishers, timeline))
            .retry(pauses())
            .notify(|error, pause| {
                metrics::retry(error.class().name());
                tracing::debug!(%error, ?pause, claims = claims.len(), "a batch waits");
                // Work that lost against others is retried immediately.
                if !error.is_conflict() {
                    self.batch.note(error);
                }
            })
            .await
            .inspect(|_| self.batch.is_over())
    }
}

/// Why a claim is a dead letter.
const NO_CAMPAIGN: &str = "its campaign is not in the table campaign";

/// A delivery that holds no claims, and the letter kept of it.
type Poison = (u64, Letter);

/// The messages taken from the queue together.
struct Batch {
    ours: InstallationId,
    claims: Vec<Claim>,
    /// The instances that are told of their outcomes.
    publishers: Publishers,
    /// The last delivery with claims.
    last: Option<u64>,
    /// The messages that hold no claims.
    poison: Vec<Poison>,
    /// Whether no more deliveries come after this batch, which lapin reports only once.
    is_last: bool,
    trace: BatchTrace,
}

impl Batch {
    fn new(queue: &str, ours: InstallationId) -> Self {
        let trace = BatchTrace::new(queue);
        Self {
            ours,
            claims: Vec::new(),
            publishers: Publishers::new(),
            last: None,
            poison: Vec::new(),
            is_last: false,
            trace,
        }
    }

    /// Fails on claims of another installation: the batch then goes back to the queue along with everything else
    /// prefetched.
    fn add(&mut self, delivery: &Delivery) -> Result<()> {
        match message::decode(&delivery.properties, &delivery.data) {
            Ok(Message { installation: Some(theirs), .. }) if theirs != self.ours => {
                return Err(Error::Foreign { theirs, ours: self.ours });
            }
            Ok(Message { instance, claims, .. }) => {
                if let Some(instance) = instance {
                    self.publishers.entry(instance).or_default().extend(claims.iter().map(Claim::key));
                }
                if delivery.redelivered {
                    metrics::redeliveries(claims.len());
                }
                for (n, claim) in claims.iter().enumerate() {
                    self.trace.add(delivery, n, claim);
                }
                self.claims.extend(claims);
                self.last = Some(delivery.delivery_tag);
            }
            Err(reason) => {
                tracing::error!(reason, "a message that holds no claims goes to the dead letters");
                self.trace.add_poison(delivery);
                let properties = message::poison_properties(&delivery.properties, &reason);
                self.poison.push((delivery.delivery_tag, (properties, delivery.data.clone())));
            }
        }
        Ok(())
    }
}

/// How often the log reports the claims settled, while there are any.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Outcomes given since the last report in the log.
#[derive(Default)]
struct Given {
    issued: usize,
    sold_out: usize,
}

impl Given {
    fn add(&mut self, settled: &Settled) {
        let issued = settled.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Issued { .. })).count();
        let sold_out = settled.outcomes.len() - issued;
        metrics::claims("issued", issued);
        metrics::claims("sold_out", sold_out);
        self.issued += issued;
        self.sold_out += sold_out;
    }

    fn tell(&mut self) {
        if self.issued + self.sold_out > 0 {
            tracing::info!(issued = self.issued, sold_out = self.sold_out, "settled claims");
            *self = Self::default();
        }
    }
}

/// The longest pause between two tries of a batch, not counting jitter.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The pause before reconnecting: claims are waiting in the broker.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// How often an idle connection is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A broker that takes longer than this to answer counts as away.
const CHECK_DEADLINE: Duration = Duration::from_secs(3);

/// The broker cancels a consumer whose queue was deleted; the next connection declares the queue again.
const QUEUE_GONE: Error = Error::Away { what: "the queue" };

/// How long the servers of the batch in hand may stay away once the process has been told to stop.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Pauses between tries, with jitter so that many consumers don't come back at the same moment. The number of tries is
/// not limited here, but RabbitMQ's `consumer_timeout` limits their duration.
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
