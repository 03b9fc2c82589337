//! The journal of every request of every client with its answer, which the checkers judge.
//!
//! Invariant: a request is recorded once it is over, with the time it began; requests without an answer are recorded
//! too.

use std::sync::{Mutex, PoisonError};

use coupon_core::{ClaimKey, CouponId};
use serde::Serialize;
use tokio::time::Instant;

/// Microseconds since the load began.
pub type Micros = u64;

/// An instance that clients know, by its index in [`crate::schedule::INSTANCES`].
pub type Instance = usize;

/// What a client knows after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The account holds this coupon.
    Issued(CouponId),
    /// No coupon was left.
    SoldOut,
    /// 202: the claim will be decided.
    Accepted,
    /// The request for an outcome found none yet.
    Pending,
    /// Another status below 500: certainly nothing happened.
    Refused(u16),
    /// 500 or above: it is unknown what happened.
    Failed(u16),
    /// No answer: it is unknown what happened.
    Silence,
}

impl Answer {
    /// Whether the result of the request is unknown.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Silence)
    }

    /// Whether the answer gives the outcome of the claim.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Issued(_) | Self::SoldOut)
    }
}

/// The purpose of a request.
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
    /// The claim it is about.
    pub claim: ClaimKey,
    /// Its purpose.
    pub request: Request,
    /// The instance it was sent to.
    pub instance: Instance,
    /// When the request was sent.
    pub begun: Micros,
    /// When the answer arrived, or was given up on.
    pub ended: Micros,
    /// The answer.
    pub answer: Answer,
}

/// Coupons that were added to a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Restock {
    /// The number of the campaign.
    pub campaign: u64,
    /// When the addition began: some of the coupons may exist from then on.
    pub begun: Micros,
    /// When all of the coupons certainly existed.
    pub ended: Micros,
    /// How many coupons.
    pub coupons: u64,
}

/// Everything a run has observed.
pub struct Journal {
    began: Instant,
    operations: Mutex<Vec<Operation>>,
    restocks: Mutex<Vec<Restock>>,
}

impl Journal {
    /// Creates an empty journal, whose time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now(), operations: Mutex::default(), restocks: Mutex::default() }
    }

    /// The journal's time.
    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When the journal's time began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Records a request.
    pub fn add(&self, operation: Operation) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Records that coupons were added.
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
