//! The obstacles that keep claims from being settled, if any: noted by the consumer, read by readiness, which also logs
//! them.

use std::sync::{Arc, Mutex, PoisonError};

use coupon_core::{Error, Result};

/// One possible obstacle. Clones share its state.
#[derive(Clone, Debug)]
pub struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    /// Creates an obstacle that is in the way until the work has begun.
    #[must_use]
    pub fn not_yet(what: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Some(Error::Away { what }))))
    }

    /// Creates an obstacle that is not in the way yet.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Records what is in the way now.
    pub fn note(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.as_stuck());
    }

    /// Records that nothing is in the way any more.
    pub fn is_over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether nothing is in the way.
    ///
    /// # Errors
    /// The obstacle.
    pub fn check(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Ok(()), |error| Err(error.as_stuck()))
    }
}
