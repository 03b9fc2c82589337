//! Listens for outcomes: queue-consumer publishes those of this instance's claims to the instance's own Redis channel.
//!
//! Invariant: a lost push delays a waiting request by a lookup at most, because every waiting claim is looked up when
//! the channel is heard again, and at a steady pace until then. A subscription that has silently gone deaf, as when
//! another Redis takes over the address, is noticed because this instance publishes to its own channel.

use std::pin::pin;
use std::time::{Duration, Instant};

use coupon_core::age::end_of_life;
use coupon_core::api::outcome_reader::OutcomeReader;
use coupon_core::redis::{Redis, push};
use coupon_core::{Error, Result};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

/// How often this instance publishes to its own channel.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// A subscription that hears nothing for this long is replaced.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// The pause before a failed subscription is tried again.
const SUBSCRIBE_AFTER: Duration = Duration::from_millis(250);

/// What this instance publishes to itself: a message without outcomes.
const NOTHING: &[u8] = b"";

/// Starts to listen on a channel until `stop`. A subscription is replaced when it reaches `max_age`.
pub fn listen(redis: Redis, channel: String, max_age: Duration, outcomes: OutcomeReader, stop: CancellationToken) {
    tokio::spawn(stop.clone().run_until_cancelled_owned(speak(redis.clone(), channel.clone())));
    let listener = Listener { redis, channel, max_age, outcomes };
    tokio::spawn(stop.run_until_cancelled_owned(listener.run()));
}

async fn speak(redis: Redis, channel: String) {
    let mut every = tokio::time::interval(SPEAK_EVERY);
    loop {
        every.tick().await;
        if let Err(error) = redis.publish(&channel, NOTHING).await {
            tracing::debug!(%error, "cannot publish to the channel of outcomes");
        }
    }
}

struct Listener {
    redis: Redis,
    channel: String,
    max_age: Duration,
    outcomes: OutcomeReader,
}

impl Listener {
    async fn run(self) {
        let mut is_deaf = false;
        loop {
            if let Err(error) = self.hear(&mut is_deaf).await {
                if !std::mem::replace(&mut is_deaf, true) {
                    tracing::warn!(%error, "outcomes are not pushed; waiting requests are answered by polling");
                }
                tokio::time::sleep(SUBSCRIBE_AFTER).await;
            }
        }
    }

    /// Subscribes, and passes on what it hears until the subscription is old.
    async fn hear(&self, is_deaf: &mut bool) -> Result<()> {
        let mut messages = pin!(self.redis.subscribe(&self.channel).await?);
        let old = end_of_life(self.max_age);
        let mut is_first = true;
        while Instant::now() < old {
            let message = tokio::time::timeout(DEAF_AFTER, messages.next())
                .await
                .map_err(|_| Error::Deadline { what: "hearing of outcomes", limit: DEAF_AFTER })?;
            let message = message.ok_or(Error::Away { what: "Redis" })?;
            if std::mem::take(&mut is_first) {
                // Anything published before this subscription is lost.
                self.outcomes.pushes_missed();
                if std::mem::take(is_deaf) {
                    tracing::info!("outcomes are pushed again");
                }
            }
            self.outcomes.pushed(&push::decode(&message)).await;
        }
        Ok(())
    }
}
