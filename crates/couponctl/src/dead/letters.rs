//! The dead letters as they wait in their queue.
//!
//! Invariant: a letter that was looked at stays where it is, in its order, unless it was acknowledged. The broker takes back
//! what is open when the connection ends, at the end of the queue: so all are looked at before that.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use coupon_core::mysql::{self, Mysql};
use coupon_core::rabbitmq::message::{self, Message};
use coupon_core::rabbitmq::{self, Queues, message_count};
use coupon_core::{CampaignId, Claim, Result};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions, ConfirmSelectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use lapin::{Channel, Connection};
use mysql_async::Conn;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::servers::Servers;

/// Which letter: the same for as long as it is there, and for the same claims again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LetterId(u64);

impl LetterId {
    /// Of its body.
    fn of(body: &[u8]) -> Self {
        let (id, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, body).as_u64_pair();
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
    /// What it holds, or why that is no claims.
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
        Self { id: LetterId::of(&body), reason, message, body, properties, tag }
    }

    pub fn claims(&self) -> &[Claim] {
        self.message.as_ref().map_or(&[], |message| &message.claims)
    }

    pub fn campaigns(&self) -> BTreeSet<CampaignId> {
        self.claims().iter().map(|claim| claim.campaign_id).collect()
    }
}

/// How long a command waits for another one to be done with the dead letters.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The queue of dead letters, while it is looked into: by one command at a time, for what one holds another does not see.
pub struct Letters {
    _lock: Conn,
    connection: Connection,
    pub channel: Channel,
    queues: Queues,
    deadline: Duration,
    /// Letters that were there at first and have not been taken yet.
    left: u32,
}

impl Letters {
    /// Looks into the queue, which must be there.
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
            anyhow::bail!("{} has no queues of the namespace {namespace}: --namespace names it", servers.amqp.amqp_url);
        };
        Ok(Self { _lock: lock, connection, channel, queues, deadline, left })
    }

    /// How many there are that were not taken yet.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The queue of claims.
    pub fn claims(&self) -> &ShortString {
        &self.queues.claims
    }

    /// The next of those that were there at first.
    pub async fn next(&mut self) -> Result<Option<Letter>> {
        if self.left == 0 {
            return Ok(None);
        }
        let get = self.channel.basic_get(self.queues.dead.clone(), BasicGetOptions::default());
        let got = rabbitmq::within(self.deadline, "reading a dead letter", async { Ok(get.await?) }).await?;
        // Somebody else may have taken the rest.
        self.left = if got.is_some() { self.left - 1 } else { 0 };
        Ok(got.map(|message| Letter::new(message.delivery)))
    }

    /// Is done with a letter: it is gone.
    pub async fn done(&self, letter: &Letter) -> Result<()> {
        let ack = self.channel.basic_ack(letter.tag, BasicAckOptions::default());
        rabbitmq::within(self.deadline, "acknowledging a dead letter", async { Ok(ack.await?) }).await
    }

    /// Gives the others back, in the order in which they were.
    pub async fn close(mut self) -> Result<()> {
        while self.next().await?.is_some() {}
        let close = self.connection.close(200, "done".into());
        rabbitmq::within(self.deadline, "giving back dead letters", async { Ok(close.await?) }).await
    }
}

/// Held for as long as the connection is.
async fn lock(servers: &Servers) -> anyhow::Result<Conn> {
    let mut conn = Mysql::new(&servers.mysql).connection_of_its_own().await?;
    let whose = format!("{}/{}", conn.opts().db_name().unwrap_or_default(), servers.namespace.namespace);
    let is_locked = mysql::lock(&mut conn, "dead", &whose, LOCK_WAIT).await?;
    anyhow::ensure!(is_locked, "another couponctl looks into the dead letters; run this again when it is done");
    Ok(conn)
}
