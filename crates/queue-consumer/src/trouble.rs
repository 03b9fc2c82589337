//! What stands in the way of settling claims, if anything does: noted by the consumer, asked for by readiness, which also
//! logs it.

use std::sync::{Arc, Mutex, PoisonError};

use coupon_core::{Error, Result};

/// One thing that may be in the way. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    /// In the way until the work has begun.
    #[must_use]
    pub fn not_yet(what: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Some(Error::Away { what }))))
    }

    /// Nothing is in the way yet.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// This is in the way now.
    pub fn note(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.as_stuck());
    }

    /// Nothing is in the way any more.
    pub fn is_over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether nothing is in the way.
    ///
    /// # Errors
    /// What is.
    pub fn check(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Ok(()), |error| Err(error.as_stuck()))
    }
}
