//! Hearing of outcomes: queue-consumer publishes those of this instance's claims to a channel of its own in Redis.
//!
//! Invariant: a push that is lost makes nobody late for longer than a lookup, because everyone who waits is looked up when
//! the channel is heard again, and at a pace all the while. A subscription that has gone deaf without a word, as when
//! another Redis has taken the address over, is noticed: this instance speaks to itself on it.

use std::pin::pin;
use std::time::{Duration, Instant};

use coupon_core::age::end_of_life;
use coupon_core::api::outcome_reader::OutcomeReader;
use coupon_core::redis::{Redis, push};
use coupon_core::{Error, Result};
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

/// How often this instance speaks to itself.
const SPEAK_EVERY: Duration = Duration::from_secs(1);

/// A subscription on which nothing is heard for this long is made anew.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// Before a subscription that could not be made is tried again.
const SUBSCRIBE_AFTER: Duration = Duration::from_millis(250);

/// Said to itself: a message without outcomes.
const NOTHING: &[u8] = b"";

/// Starts to listen on a channel, until `stop`. A subscription is replaced when it is as old as `max_age`.
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
                    tracing::warn!(%error, "outcomes are not pushed; those who wait are answered at a pace");
                }
                tokio::time::sleep(SUBSCRIBE_AFTER).await;
            }
        }
    }

    /// Subscribes, and hands on what is heard until the subscription is old.
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
                // What was published before this subscription is lost.
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
