//! The queues of an installation.
//!
//! Invariants: the queue is a quorum queue, so a confirmed claim is on disk; it refuses new claims when full instead of
//! dropping the oldest; a message that cannot be handled goes to the dead-letter queue, at least once, and is never
//! dropped. The arguments of the queues say all of this, so they are always declared with them: RabbitMQ refuses if a
//! queue exists with others.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Connection, ErrorKind};

use crate::error::{Error, Result};
use crate::settings::{AmqpSettings, Namespace, Order};

/// A claim is delivered again when a consumer ends while it holds the claim, whether it handles it or has only
/// prefetched it. A consumer that finds its servers away holds its batch and waits instead, so this many deliveries
/// mean that something about the claim ends consumers.
const DELIVERY_LIMIT: i64 = 100;

/// RabbitMQ's answer to arguments that differ from those that a queue was created with.
const PRECONDITION_FAILED: u16 = 406;

/// The queues of one installation.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Accepted claims.
    pub claims: ShortString,
    /// Messages that could not be handled, for an operator to look at.
    pub dead: ShortString,
    max: u32,
    order: Order,
    /// The virtual host that they are in.
    pub vhost: String,
}

impl Queues {
    /// The queues of an installation.
    #[must_use]
    pub fn new(namespace: &Namespace, settings: &AmqpSettings) -> Self {
        Self {
            claims: format!("{namespace}.claims").into(),
            dead: format!("{namespace}.claims.dead").into(),
            max: settings.queue_max,
            order: settings.order,
            vhost: settings.amqp_url.vhost(),
        }
    }

    /// Creates the queues, or checks that they exist with the right arguments.
    ///
    /// # Errors
    /// Any error from the broker, or [`Error::Unsafe`] if a queue exists with other arguments, by which it may lose
    /// claims.
    pub async fn declare(&self, connection: &Connection) -> Result<()> {
        // Both are declared, so that one start names everything that must be fixed.
        let dead = self.declare_one(connection, &self.dead, self.dead_arguments()).await;
        let claims = self.declare_one(connection, &self.claims, self.claims_arguments()).await;
        match (dead, claims) {
            (Err(Error::Unsafe(dead)), Err(Error::Unsafe(claims))) => Err(Error::Unsafe(format!("{claims}; {dead}"))),
            (dead, claims) => dead.and(claims),
        }
    }

    /// Like [`Self::declare`], but does not create the queue of claims: whoever publishes or consumes does so on missing
    /// it.
    ///
    /// # Errors
    /// Those of [`Self::declare`].
    pub async fn check(&self, connection: &Connection) -> Result<()> {
        if message_count(connection, &self.claims).await?.is_some() { self.declare(connection).await } else { Ok(()) }
    }

    /// Declares a queue on a channel of its own: the broker closes one on which it refuses something.
    async fn declare_one(&self, connection: &Connection, queue: &ShortString, arguments: FieldTable) -> Result<()> {
        let channel = connection.create_channel().await?;
        match channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await {
            Ok(_) => Ok(channel.close(200, "done".into()).await?),
            Err(error) => Err(differs(&error, queue, &self.vhost).unwrap_or_else(|| error.into())),
        }
    }

    fn claims_arguments(&self) -> FieldTable {
        let mut arguments = quorum_queue(self.max, DELIVERY_LIMIT);
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(self.dead.as_str()));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        if self.order == Order::Exact {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        arguments
    }

    /// The dead letters get a limit of their own: without one, RabbitMQ 4 drops a message that an operator has given
    /// back to them 20 times.
    fn dead_arguments(&self) -> FieldTable {
        quorum_queue(self.max, i64::from(i32::MAX))
    }
}

/// The error for a queue that exists with other arguments: what RabbitMQ says, and what to do about it.
fn differs(error: &lapin::Error, queue: &ShortString, vhost: &str) -> Option<Error> {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return None };
    (refusal.get_id() == PRECONDITION_FAILED).then(|| {
        Error::Unsafe(format!(
            "the queue {queue} exists with other arguments, with which it may lose claims ({}): let consumers empty it, \
             delete it with `rabbitmqctl delete_queue -p {vhost} {queue}` and start again; if only x-max-length \
             or x-single-active-consumer differs, QUEUE_MAX or ORDER may be set to what it has",
            refusal.get_message()
        ))
    })
}

/// What the broker says about a queue.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// How many messages wait in it that no consumer holds.
    pub messages: u32,
    /// How many consumers it has.
    pub consumers: u32,
}

/// How many messages wait in a queue and are held by no consumer, if the queue exists.
///
/// # Errors
/// Any error from the broker.
pub async fn message_count(connection: &Connection, queue: &ShortString) -> Result<Option<u32>> {
    Ok(counts(connection, queue).await?.map(|counts| counts.messages))
}

/// What the broker says about a queue, if it exists. It is asked on a channel of its own, because the broker closes a
/// channel on which it is asked for a queue that does not exist.
///
/// # Errors
/// Any error from the broker.
pub async fn counts(connection: &Connection, queue: &ShortString) -> Result<Option<Counts>> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let counts = match channel.queue_declare(queue.clone(), passive, FieldTable::default()).await {
        Ok(queue) => Counts { messages: queue.message_count(), consumers: queue.consumer_count() },
        Err(error) if error.is_amqp_soft_error() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    channel.close(200, "done".into()).await?;
    Ok(Some(counts))
}

/// The arguments of a quorum queue that refuses messages when full: the default would drop the oldest claim, which came
/// first.
fn quorum_queue(max: u32, delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(max)));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(delivery_limit));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
