//! What the consumers of the queue way work with: the size of the model, MySQL, Redis and the claims.
//!
//! Invariant: a claim keeps its place, by which consumers and the broker name it.

use coupon_core::{Claim, CouponId};

use crate::guards::Guard;
use crate::mysql::Mysql;
use crate::said::Judged;

/// The size of the model, and the guard left out of it.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The number of consumers.
    pub consumers: usize,
    /// The accounts that claim, in this order; one may claim again.
    pub accounts: Vec<u64>,
    /// Coupons at the start.
    pub coupons: u8,
    /// The most claims in a batch.
    pub batch_max: usize,
    /// The most ids in a refill.
    pub refill_max: usize,
    /// The number of faults that may happen in a run.
    pub faults: u8,
    /// Coupons that may be added in a run.
    pub restocks: u8,
    /// The guard that is left out.
    pub without: Option<Guard>,
    /// The only property to check; otherwise all that must hold whatever fails.
    pub only: Option<&'static str>,
}

impl Default for Queue {
    /// The smallest model worth searching: two consumers, two accounts and one coupon, and nothing fails.
    fn default() -> Self {
        Self {
            consumers: 2,
            accounts: vec![1, 2],
            coupons: 1,
            batch_max: 1,
            refill_max: 1,
            faults: 0,
            restocks: 0,
            without: None,
            only: None,
        }
    }
}

/// The servers and claims that consumers work with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct World {
    /// The source of truth.
    pub mysql: Mysql,
    /// The hints, which may be stale or lost.
    pub redis: Redis,
    /// The claims that the broker has confirmed, in this order, and what the judge knows about each.
    pub claims: Vec<(Claim, Judged)>,
    /// Advances only when the difference could be observed.
    pub clock: u64,
}

/// The keys of the campaign. The records of outcomes are not among them: no consumer reads them ([`crate::answers`]).
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Redis {
    /// Ids of free coupons.
    pub list: Vec<CouponId>,
    /// The last id that was put into the list.
    pub refilled_to: Option<CouponId>,
    /// The refill lock, if it is held.
    pub lock: Option<Holder>,
}

/// The holder of the refill lock.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Holder {
    /// This consumer.
    Consumer(usize),
    /// A consumer that has died, or has given up its refill.
    Nobody,
}

impl World {
    /// The claims in these places.
    pub fn claims(&self, places: &[usize]) -> Vec<Claim> {
        places.iter().filter_map(|place| self.claims.get(*place)).map(|(claim, _)| *claim).collect()
    }

    /// A timestamp later than those of all claims so far, and not later than those of any claims to come.
    pub fn now(&mut self) -> u64 {
        if self.claims.last().is_some_and(|(claim, _)| claim.accepted_at_ms == self.clock) {
            self.clock += 1;
        }
        self.clock
    }
}

impl Redis {
    /// Marks the lock of a consumer that will no longer free it.
    pub fn abandon(&mut self, n: usize) {
        if self.lock == Some(Holder::Consumer(n)) {
            self.lock = Some(Holder::Nobody);
        }
    }
}
