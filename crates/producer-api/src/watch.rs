//! Checks the broker: that it takes claims, and that it keeps what it confirms, because its queues are as they were
//! declared and no policy overrides that. Readiness repeats the check and logs what it finds.
//!
//! Invariant: a service does not start on a broker that would lose accepted claims, and accepts none once a check has
//! found that. Whatever cannot be checked is taken to be as it was last found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::rabbitmq::{self, Danger, Policies};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Error, Result};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use tokio::sync::Mutex;

use crate::channel::{Broker, Opened};

/// Each half of a check fails if it takes longer than this.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// How often a check includes the queues' arguments, the right to publish and the policies.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// How often it includes them while claims are rejected.
const CHECK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// No queue has this name: a message to it shows that the broker takes messages, and goes nowhere.
const NOWHERE: &str = "coupon.check";

/// Checks the broker, and lets claims through or not. Clones share their state.
#[derive(Clone)]
pub struct Watch {
    broker: Broker,
    policies: Policies,
    seen: Arc<Mutex<Seen>>,
}

/// The state kept between checks.
#[derive(Default)]
struct Seen {
    /// The checks' own channel, so that a check never delays publishing.
    channel: Option<Opened>,
    checked_at: Option<Instant>,
    /// The danger that policies pose, as last reported.
    danger: Option<Error>,
    /// Whether the last query for policies failed.
    is_blind: bool,
}

impl Watch {
    /// Declares the queues if they do not exist, and makes the first check.
    ///
    /// # Errors
    /// The broker would lose accepted claims. An unreachable broker is not an error: claims get 503 meanwhile.
    pub async fn start(broker: Broker, settings: &AmqpSettings) -> Result<Self> {
        let watch = Self { broker, policies: Policies::new(settings)?, seen: Arc::default() };
        match watch.check().await {
            Err(error @ Error::Unsafe(_)) => Err(error),
            _ => Ok(watch),
        }
    }

    /// Whether the broker takes claims and keeps them. If the check fails because of the connection, the connection is
    /// given up.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn check(&self) -> Result<()> {
        let mut seen = self.seen.lock().await;
        let every = if self.broker.keeps_claims().is_ok() { CHECK_EVERY } else { CHECK_AGAIN_AFTER };
        let is_due = seen.checked_at.is_none_or(|at| at.elapsed() >= every);
        if !is_due {
            self.takes_claims(&mut seen.channel, false).await?;
            return self.broker.keeps_claims();
        }
        seen.checked_at = Some(Instant::now());
        let Seen { channel, .. } = &mut *seen;
        let (taken, policies) = tokio::join!(self.takes_claims(channel, true), self.ask_for_policies());
        seen.note(policies);
        match (taken, &seen.danger) {
            (Err(error @ Error::Unsafe(_)), _) => self.broker.set_danger(Some(error)),
            (_, Some(danger)) => self.broker.set_danger(Some(danger.shared())),
            (Ok(()), None) => self.broker.set_danger(None),
            // It is not known whether the queues are as required: claims are accepted or rejected as before.
            (Err(error), None) => return Err(error),
        }
        self.broker.keeps_claims()
    }

    async fn takes_claims(&self, channel: &mut Option<Opened>, with_arguments: bool) -> Result<()> {
        let number = self.broker.number();
        let checked = rabbitmq::within(CHECK_DEADLINE, "a check of RabbitMQ", async {
            self.publish_nowhere(channel, with_arguments).await?;
            if with_arguments { self.broker.check_queues().await } else { Ok(()) }
        });
        let checked = checked.await;
        if checked.as_ref().is_err_and(Error::blames_the_connection) {
            self.broker.give_up(number);
        }
        checked
    }

    /// Checks that the queue exists and that a message to [`NOWHERE`] is confirmed.
    async fn publish_nowhere(&self, channel: &mut Option<Opened>, anew: bool) -> Result<()> {
        // The channel is kept for the next check only when this one succeeds, because the broker closes a channel on
        // which it refuses something. So a deleted queue is declared again by the next check, not by the one that
        // misses it.
        let opened = match channel.take().filter(|channel| channel.is_usable(self.broker.number())) {
            // The broker caches what a channel in use may do: a right that was revoked shows only on a new channel.
            Some(_) if anew => self.broker.open_channel().await?,
            Some(opened) => opened,
            None => self.broker.open().await?,
        };
        opened.accepts()?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        opened.channel.queue_declare(self.broker.queues().claims.clone(), passive, FieldTable::default()).await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let publish = opened.channel.basic_publish("".into(), NOWHERE.into(), options, b"", properties);
        match publish.await?.await? {
            Confirmation::Ack(_) => {
                *channel = Some(opened);
                Ok(())
            }
            _ => Err(Error::Away { what: "the broker's confirm" }),
        }
    }

    async fn ask_for_policies(&self) -> Result<Vec<Danger>> {
        rabbitmq::within(CHECK_DEADLINE, "RabbitMQ's HTTP API", self.policies.dangers(self.broker.queues())).await
    }
}

impl Seen {
    fn note(&mut self, policies: Result<Vec<Danger>>) {
        match policies {
            Ok(dangers) => {
                let dangers: Vec<String> = dangers.iter().map(Danger::to_string).collect();
                self.danger = (!dangers.is_empty()).then(|| Error::Unsafe(dangers.join("; ")));
                self.is_blind = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(%error, "RabbitMQ's policies are not checked: {}", error.remedy());
                }
            }
        }
    }
}
