//! The coupons that were pushed last, for questions that come after their answer.
//!
//! Invariant: only coupons are kept, for a coupon never changes hands; "sold out" may be over when somebody asks.

use std::collections::HashMap;

use crate::domain::{ClaimKey, CouponId};

/// Half of what is kept at most: seconds of the highest rate, in about 3 MB.
const HALF_MAX: usize = 32_768;

/// Keeps the newest in two halves: when one is full, the older one is forgotten.
#[derive(Default)]
pub(super) struct Recent {
    newer: HashMap<ClaimKey, CouponId>,
    older: HashMap<ClaimKey, CouponId>,
}

impl Recent {
    pub(super) fn insert(&mut self, claim: ClaimKey, coupon: CouponId) {
        if self.newer.len() == HALF_MAX {
            self.older.clear();
            std::mem::swap(&mut self.newer, &mut self.older);
        }
        self.newer.insert(claim, coupon);
    }

    pub(super) fn get(&self, claim: &ClaimKey) -> Option<CouponId> {
        self.newer.get(claim).or_else(|| self.older.get(claim)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, CampaignId};

    #[test]
    fn the_newest_are_kept_and_the_oldest_forgotten() {
        let claim = |n: usize| ClaimKey { campaign_id: CampaignId(1), account_id: AccountId(n as u64) };
        let mut recent = Recent::default();
        for n in 0..=2 * HALF_MAX {
            recent.insert(claim(n), CouponId::random());
        }

        assert!((HALF_MAX..=2 * HALF_MAX).all(|n| recent.get(&claim(n)).is_some()));
        assert!((0..HALF_MAX).all(|n| recent.get(&claim(n)).is_none()));
    }
}
