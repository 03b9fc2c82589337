//! Outcomes in Redis: written by queue-consumer, read by producer-api, so that a client who waits costs MySQL nothing.
//!
//! Invariant: a record is a hint. `issued` in it is true, for a coupon never changes hands; `sold_out` may have been
//! outlived by a restock, and a missing one says nothing. [`crate::claims`] asks MySQL where that matters.

use std::time::Duration;

use deadpool_redis::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::{self, AsyncCommands};
use uuid::Uuid;

use crate::domain::{ClaimKey, CouponId, Outcome};
use crate::error::Result;
use crate::keys;
use crate::settings::{Namespace, RedisSettings};

/// How long an outcome can be read from Redis; afterwards MySQL is asked. Who waits for one asks within seconds, and a
/// record takes 160 bytes: ten thousand claims a second keep 200 MB in use.
const TIME_TO_LIVE: Duration = Duration::from_mins(2);

/// Recorded in place of a coupon's 16 bytes.
const SOLD_OUT: &[u8] = b"-";

/// A connection to Redis that many tasks share: commands of all of them travel in one pipeline, and it reconnects by
/// itself. A pool would be wrong here: deadpool-redis pings on each checkout, which doubles the round trips.
///
/// # Errors
/// An address that redis-rs refuses. The server need not be there yet.
pub fn connect(settings: &RedisSettings) -> Result<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(settings.redis_deadline))
        .set_response_timeout(Some(settings.redis_deadline))
        // The caller decides when to try again; the manager reconnects for the next command.
        .set_number_of_retries(1)
        .set_pipeline_buffer_size(1024);
    let client = redis::Client::open(settings.redis_url.reveal())?;
    Ok(ConnectionManager::new_lazy_with_config(client, config)?)
}

/// The recorded outcomes of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Outcomes {
    redis: ConnectionManager,
    namespace: Namespace,
}

impl Outcomes {
    /// Over a shared connection.
    #[must_use]
    pub fn new(redis: ConnectionManager, namespace: Namespace) -> Self {
        Self { redis, namespace }
    }

    /// Records outcomes, all in one round trip. A `sold_out` never replaces an `issued`.
    ///
    /// # Errors
    /// Redis's.
    pub async fn write(&self, outcomes: &[(ClaimKey, Outcome)]) -> Result<()> {
        let seconds = TIME_TO_LIVE.as_secs();
        let mut pipeline = redis::pipe();
        for (claim, outcome) in outcomes {
            let key = keys::outcome(&self.namespace, *claim);
            match outcome {
                Outcome::Issued { coupon_id } => {
                    pipeline.cmd("SET").arg(key).arg(coupon_id.0.as_bytes()).arg("EX").arg(seconds).ignore();
                }
                Outcome::SoldOut => {
                    pipeline.cmd("SET").arg(key).arg(SOLD_OUT).arg("EX").arg(seconds).arg("NX").ignore();
                }
                Outcome::Pending => {}
            }
        }
        Ok(pipeline.query_async(&mut self.redis.clone()).await?)
    }

    /// The recorded outcomes of these claims, in their order; `Pending` where there is none.
    ///
    /// # Errors
    /// Redis's.
    pub async fn read(&self, claims: &[ClaimKey]) -> Result<Vec<Outcome>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = claims.iter().map(|claim| keys::outcome(&self.namespace, *claim)).collect();
        let values: Vec<Option<Vec<u8>>> = self.redis.clone().mget(keys).await?;
        Ok(values.iter().map(|value| decode(value.as_deref())).collect())
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        Ok(self.redis.clone().ping::<()>().await?)
    }
}

fn decode(value: Option<&[u8]>) -> Outcome {
    match value {
        Some(SOLD_OUT) => Outcome::SoldOut,
        Some(bytes) => {
            Uuid::from_slice(bytes).map_or(Outcome::Pending, |coupon| Outcome::Issued { coupon_id: CouponId(coupon) })
        }
        None => Outcome::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_nobody_wrote_says_nothing() {
        assert_eq!(decode(Some(b"garbage")), Outcome::Pending);
        assert_eq!(decode(None), Outcome::Pending);
        assert_eq!(decode(Some(b"-")), Outcome::SoldOut);
    }
}
