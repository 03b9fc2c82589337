//! RabbitMQ as both of its users see it: the queue, its limits, and the message that carries claims.
//!
//! Invariants: the queue is a quorum queue, so a confirmed claim is on disk; it refuses new claims when full instead of
//! dropping the oldest; a message that cannot be handled goes to the dead-letter queue, at least once, never away.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Connection};
use opentelemetry::Context;

use crate::domain::Claim;
use crate::error::{Error, Result};
use crate::settings::{AmqpSettings, Namespace};
use crate::telemetry::span;

/// A claim is delivered again when a consumer ended with it, in hand or sent ahead. One that finds its servers away holds
/// its batch and waits instead, so this many deliveries mean that something about the claim ends consumers.
const DELIVERY_LIMIT: i64 = 100;

/// Says what the body of a message is, so that a consumer can tell an older form from a newer one.
const MESSAGE_TYPE: &str = "claims.v1";

/// Claims in one message, whoever sends it: what a consumer takes is bounded by this times its prefetch.
pub const CLAIMS_PER_MESSAGE_MAX: usize = 500;

/// AMQP's number for a message that is written to disk.
const PERSISTENT: u8 = 2;

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

/// The body of a message: claims that arrived together.
///
/// # Errors
/// None in practice: a claim is three numbers.
pub fn encode(claims: &[Claim]) -> Result<Vec<u8>> {
    serde_json::to_vec(claims).map_err(|error| Error::Broken(format!("cannot encode claims: {error}")))
}

/// The properties of a message, which carries the context of each of its claims on, in their order.
#[must_use]
pub fn properties<'a>(contexts: impl Iterator<Item = &'a Context>) -> AMQPProperties {
    BasicProperties::default()
        .with_headers(span::message_headers(contexts))
        .with_content_type("application/json".into())
        .with_type(MESSAGE_TYPE.into())
        .with_delivery_mode(PERSISTENT)
}

/// The claims in a message.
///
/// # Errors
/// Why it holds none: a poison message, which stays one however often it is delivered.
pub fn decode(properties: &AMQPProperties, body: &[u8]) -> Result<Vec<Claim>, String> {
    match properties.kind() {
        Some(kind) if kind.as_str() == MESSAGE_TYPE => {}
        Some(kind) => return Err(format!("its type is {kind}, not {MESSAGE_TYPE}")),
        None => return Err(format!("it has no type; {MESSAGE_TYPE} was expected")),
    }
    let claims: Vec<Claim> =
        serde_json::from_slice(body).map_err(|error| format!("its body is no list of claims: {error}"))?;
    match claims.len() {
        1..=CLAIMS_PER_MESSAGE_MAX => Ok(claims),
        claims => Err(format!("it holds {claims} claims; 1 to {CLAIMS_PER_MESSAGE_MAX} were expected")),
    }
}

/// A try to connect takes milliseconds. One that hangs, as at an address that leads nowhere for now, makes room for the
/// next.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Connects to the broker under a name that its management page shows.
///
/// # Errors
/// The broker's, or the deadline.
pub async fn connect(settings: &AmqpSettings, name: &str) -> Result<Connection> {
    let properties = connection_properties(name);
    within(settings.amqp_deadline.min(CONNECT_DEADLINE), "connecting to RabbitMQ", async {
        Ok(Connection::connect(settings.amqp_url.reveal(), properties).await?)
    })
    .await
}

/// What every connection of ours tells the broker. No automatic recovery: after a failure a channel is opened anew,
/// because confirms and acknowledgements of the old one are void.
#[must_use]
pub fn connection_properties(name: &str) -> lapin::ConnectionProperties {
    lapin::ConnectionProperties::default().with_connection_name(name.into())
}

/// Ends `work` with the broker at a deadline: lapin itself waits for ever while the broker blocks its publishers.
///
/// # Errors
/// Those of the work, or [`Error::Deadline`].
pub async fn within<T>(limit: Duration, what: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Deadline { what, limit }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, CampaignId};

    fn no_contexts() -> std::iter::Empty<&'static Context> {
        std::iter::empty()
    }

    #[test]
    fn claims_survive_their_message() {
        let claim = |account| Claim {
            campaign_id: CampaignId(1),
            account_id: AccountId(account),
            accepted_at_ms: 1_900_000_000_000,
        };
        let claims = [claim(u64::MAX), claim(7)];

        assert_eq!(decode(&properties(no_contexts()), &encode(&claims).unwrap()).unwrap(), claims);
    }

    #[test]
    fn a_poison_message_is_told_by_its_reason() {
        let body = br#"[{"campaign_id":1,"account_id":2,"accepted_at_ms":3}]"#;
        let properties = || properties(no_contexts());

        assert!(decode(&BasicProperties::default(), body).unwrap_err().contains("no type"));
        assert!(decode(&properties().with_type("claims.v9".into()), body).unwrap_err().contains("claims.v9"));
        assert!(decode(&properties(), b"[{\"campaign_id\":1}]").unwrap_err().contains("account_id"));
        assert!(decode(&properties(), b"[]").unwrap_err().contains("0 claims"));
        assert!(decode(&properties(), b"\xff").is_err());
    }
}
