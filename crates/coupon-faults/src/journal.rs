//! Every request of every client with its answer: what the checkers judge.
//!
//! Invariant: a request is written down once it is over, with the time it began; none is left out because it had no answer.

use std::sync::{Mutex, PoisonError};

use coupon_core::{ClaimKey, CouponId};
use serde::Serialize;
use tokio::time::Instant;

/// Microseconds since the load has begun.
pub type Micros = u64;

/// The addresses that clients know, by their place in [`crate::schedule::INSTANCES`].
pub type Instance = usize;

/// What a client knows after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The account holds this coupon.
    Issued(CouponId),
    /// None was left.
    SoldOut,
    /// 202: the claim will be decided.
    Accepted,
    /// The question for an outcome found none yet.
    Pending,
    /// Another status below 500: surely nothing happened.
    Refused(u16),
    /// 500 or above: what happened is not known.
    Failed(u16),
    /// No answer: what happened is not known.
    Silence,
}

impl Answer {
    /// Whether nobody can know what came of the request.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Silence)
    }

    /// Whether it says what came of the claim.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Issued(_) | Self::SoldOut)
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// POST.
    Claim,
    /// GET of a claim.
    Ask,
}

/// One request, from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Whose claim.
    pub claim: ClaimKey,
    /// What for.
    pub request: Request,
    /// To whom.
    pub instance: Instance,
    /// When it was sent.
    pub begun: Micros,
    /// When its answer was there, or given up.
    pub ended: Micros,
    /// What came.
    pub answer: Answer,
}

/// Coupons that were added to a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Restock {
    /// Of which campaign, by its number.
    pub campaign: u64,
    /// When it was begun: some of them may be there from then on.
    pub begun: Micros,
    /// When all of them were there for certain.
    pub ended: Micros,
    /// How many.
    pub coupons: u64,
}

/// What a run has seen.
pub struct Journal {
    began: Instant,
    operations: Mutex<Vec<Operation>>,
    restocks: Mutex<Vec<Restock>>,
}

impl Journal {
    /// An empty one, whose time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), operations: Mutex::default(), restocks: Mutex::default() }
    }

    /// The time.
    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When its time began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Writes a request down.
    pub fn add(&self, operation: Operation) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Writes down that coupons were added.
    pub fn restocked(&self, restock: Restock) {
        self.restocks.lock().unwrap_or_else(PoisonError::into_inner).push(restock);
    }

    /// All requests, in the order in which they ended.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All additions of coupons.
    pub fn restocks(&self) -> Vec<Restock> {
        self.restocks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}
