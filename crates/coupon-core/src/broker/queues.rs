//! The queues of an installation.
//!
//! Invariants: the queue is a quorum queue, so a confirmed claim is on disk; it refuses new claims when full instead of
//! dropping the oldest; a message that cannot be handled goes to the dead-letter queue, at least once, never away.

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::error::Result;
use crate::settings::{AmqpSettings, Namespace};

/// A claim is delivered again when a consumer ended with it, in hand or sent ahead. One that finds its servers away holds
/// its batch and waits instead, so this many deliveries mean that something about the claim ends consumers.
const DELIVERY_LIMIT: i64 = 100;

/// The queues of one installation.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Accepted claims.
    pub claims: ShortString,
    /// Messages that could not be handled, for an operator to look at.
    pub dead: ShortString,
    max: u32,
}

impl Queues {
    /// The queues of an installation.
    #[must_use]
    pub fn new(namespace: &Namespace, settings: &AmqpSettings) -> Self {
        Self {
            claims: format!("{namespace}.claims").into(),
            dead: format!("{namespace}.claims.dead").into(),
            max: settings.queue_max,
        }
    }

    /// Makes the queues if they aren't there. One that is keeps the limit it was made with.
    ///
    /// # Errors
    /// The broker's.
    pub async fn declare(&self, connection: &Connection) -> Result<()> {
        let (claims, dead) = (message_count(connection, &self.claims), message_count(connection, &self.dead));
        if claims.await?.is_some() && dead.await?.is_some() {
            return Ok(());
        }
        let channel = connection.create_channel().await?;
        // Without one of its own, RabbitMQ 4 drops a message that an operator gave back to the dead letters 20 times.
        let mut dead = quorum_queue(self.max);
        dead.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(i32::MAX)));
        let mut claims = quorum_queue(self.max);
        claims.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        claims.insert("x-dead-letter-exchange".into(), text(""));
        claims.insert("x-dead-letter-routing-key".into(), text(self.dead.as_str()));
        claims.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        channel.queue_declare(self.dead.clone(), QueueDeclareOptions::durable(), dead).await?;
        channel.queue_declare(self.claims.clone(), QueueDeclareOptions::durable(), claims).await?;
        Ok(())
    }
}

/// How many messages wait in a queue that no consumer holds, if the queue is there. On a channel of its own: the broker
/// closes one on which it is asked for a queue that isn't.
///
/// # Errors
/// The broker's.
pub async fn message_count(connection: &Connection, queue: &ShortString) -> Result<Option<u32>> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let count = match channel.queue_declare(queue.clone(), passive, FieldTable::default()).await {
        Ok(queue) => queue.message_count(),
        Err(error) if error.is_amqp_soft_error() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    channel.close(200, "done".into()).await?;
    Ok(Some(count))
}

/// Full queues refuse: the default would drop the oldest claim, which is the first come.
fn quorum_queue(max: u32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(i64::from(max)));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
