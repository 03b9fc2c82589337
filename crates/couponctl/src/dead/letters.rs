//! Reads the dead letters in their queue.
//!
//! Invariant: a letter that was read keeps its place in the queue unless it was acknowledged. When the connection ends,
//! the broker requeues unacknowledged letters at the end of the queue, so all of them are read before that.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use coupon_core::mysql::{self, Mysql};
use coupon_core::rabbitmq::message::{self, Message};
use coupon_core::rabbitmq::{self, Queues, message_count};
use coupon_core::{AccountId, CampaignId, Claim, Result};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, ConfirmSelectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use lapin::{Channel, Connection};
use mysql_async::Conn;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::servers::Servers;

/// The id of a letter. It stays the same while the letter waits, and is the same for another letter with the same type,
/// sender and body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LetterId(u64);

impl LetterId {
    fn of(properties: &AMQPProperties, body: &[u8]) -> Self {
        let text = |part: &Option<ShortString>| part.as_ref().map(ToString::to_string).unwrap_or_default();
        let (kind, sender) = (text(properties.kind()), text(properties.app_id()));
        let content = [kind.as_bytes(), sender.as_bytes(), body].join(&0);
        let (id, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, &content).as_u64_pair();
        Self(id >> 16)
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| String::from("must be 12 hexadecimal digits, as `couponctl dead list` prints them"))
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A dead letter.
pub struct Letter {
    pub id: LetterId,
    pub reason: String,
    /// The message in it, or the reason why it holds no claims.
    pub message: Result<Message, String>,
    pub body: Vec<u8>,
    pub properties: AMQPProperties,
    tag: u64,
}

impl Letter {
    fn new(delivery: Delivery) -> Self {
        let reason = message::reason(&delivery.properties).unwrap_or_else(|| String::from("not said"));
        let message = message::decode(&delivery.properties, &delivery.data);
        let Delivery { data: body, properties, delivery_tag: tag, .. } = delivery;
        Self { id: LetterId::of(&properties, &body), reason, message, body, properties, tag }
    }

    pub fn claims(&self) -> &[Claim] {
        self.message.as_ref().map_or(&[], |message| &message.claims)
    }

    /// Whether it holds a claim of this account or, if it cannot be read, anything that looks like its number.
    pub fn names(&self, account: AccountId) -> bool {
        let number = account.to_string();
        let mut numbers = self.body.split(|byte| !byte.is_ascii_digit());
        self.claims().iter().any(|claim| claim.account_id == account)
            || self.message.is_err() && numbers.any(|digits| digits == number.as_bytes())
    }

    pub fn campaigns(&self) -> BTreeSet<CampaignId> {
        self.claims().iter().map(|claim| claim.campaign_id).collect()
    }
}

/// How long a command waits for another one to finish with the dead letters.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The queue of dead letters while a command reads it. Only one command may read it at a time, because letters held by
/// one are invisible to another.
pub struct Letters {
    _lock: Conn,
    connection: Connection,
    pub channel: Channel,
    queues: Queues,
    deadline: Duration,
    /// How many of the letters that waited at the start have not been read yet.
    left: u32,
}

impl Letters {
    /// Opens the queue, which must exist.
    pub async fn open(servers: &Servers) -> anyhow::Result<Self> {
        let (namespace, deadline) = (&servers.namespace.namespace, servers.amqp.amqp_deadline);
        let lock = lock(servers).await?;
        let connection = rabbitmq::connect(&servers.amqp, "couponctl").await?;
        let queues = Queues::new(namespace, &servers.amqp);
        let opened = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok((channel, message_count(&connection, &queues.dead).await?))
        };
        let (channel, count) = rabbitmq::within(deadline, "looking at the dead letters", opened).await?;
        let Some(left) = count else {
            anyhow::bail!(
                "{} has no queue {}: check --namespace; if the queue was deleted, start a service, which creates it again",
                servers.amqp.amqp_url,
                queues.dead
            );
        };
        Ok(Self { _lock: lock, connection, channel, queues, deadline, left })
    }

    /// How many letters have not been read yet.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The name of the queue of claims.
    pub fn claims(&self) -> &ShortString {
        &self.queues.claims
    }

    /// Reads the next of the letters that waited at the start.
    pub async fn next(&mut self) -> Result<Option<Letter>> {
        if self.left == 0 {
            return Ok(None);
        }
        let get = self.channel.basic_get(self.queues.dead.clone(), BasicGetOptions::default());
        let got = rabbitmq::within(self.deadline, "reading a dead letter", async { Ok(get.await?) }).await?;
        // Another consumer may have taken the rest.
        self.left = if got.is_some() { self.left - 1 } else { 0 };
        Ok(got.map(|message| Letter::new(message.delivery)))
    }

    /// Removes a letter from the queue.
    pub async fn done(&self, letter: &Letter) -> Result<()> {
        let ack = self.channel.basic_ack(letter.tag, BasicAckOptions::default());
        rabbitmq::within(self.deadline, "acknowledging a dead letter", async { Ok(ack.await?) }).await
    }

    /// Gives the other letters back, in their original order.
    pub async fn close(mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        let close = self.connection.close(200, "done".into());
        rabbitmq::within(self.deadline, "giving back dead letters", async { Ok(close.await?) }).await
    }
}

/// Takes a lock that is held for as long as the connection is open.
async fn lock(servers: &Servers) -> anyhow::Result<Conn> {
    let mut conn = Mysql::new(&servers.mysql).connection_of_its_own().await?;
    let whose = format!("{}/{}", conn.opts().db_name().unwrap_or_default(), servers.namespace.namespace);
    let is_locked = mysql::lock(&mut conn, "dead", &whose, LOCK_WAIT).await?;
    anyhow::ensure!(is_locked, "another couponctl is reading the dead letters; run this again when it is done");
    Ok(conn)
}
