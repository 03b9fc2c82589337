//! The obstacles that keep claims from being settled, if any: noted by the consumer, read by readiness, which also logs
//! them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coupon_core::{Error, Result};
use tokio_util::sync::CancellationToken;

/// One possible obstacle. Clones share its state.
#[derive(Clone, Debug)]
pub struct Trouble {
    now: Arc<Mutex<Option<Error>>>,
    /// Cancelled once it is known whether the obstacle is in the way.
    known: CancellationToken,
}

/// How long the first connection may take before its absence counts.
const KNOWN_WITHIN: Duration = Duration::from_millis(1_500);

impl Trouble {
    /// Creates an obstacle that is in the way until the work has begun.
    #[must_use]
    pub fn not_yet(what: &'static str) -> Self {
        Self { now: Arc::new(Mutex::new(Some(Error::Away { what }))), known: CancellationToken::new() }
    }

    /// Creates an obstacle that is not in the way yet.
    #[must_use]
    pub fn none() -> Self {
        let known = CancellationToken::new();
        known.cancel();
        Self { now: Arc::default(), known }
    }

    /// Records what is in the way now.
    pub fn note(&self, error: &Error) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.as_stuck());
        self.known.cancel();
    }

    /// Records that nothing is in the way any more.
    pub fn is_over(&self) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.known.cancel();
    }

    /// Whether nothing is in the way.
    ///
    /// # Errors
    /// The obstacle.
    pub fn check(&self) -> Result<()> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Ok(()), |error| Err(error.as_stuck()))
    }

    /// The same once that is known: a start that takes a moment is no trouble.
    ///
    /// # Errors
    /// The obstacle.
    pub async fn check_when_known(&self) -> Result<()> {
        let _ = tokio::time::timeout(KNOWN_WITHIN, self.known.cancelled()).await;
        self.check()
    }
}
