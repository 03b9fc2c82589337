//! What is known about the newest claims, in bounded memory: which were accepted, which coupons were pushed for them,
//! and which spans they have.

use std::collections::HashMap;

use crate::domain::ClaimKey;

/// Half the maximum number of claims kept: a few seconds' worth at the highest rate, in about 3 MB.
const HALF_MAX: usize = 32_768;

/// Keeps the newest claims in two halves: when the newer one is full, the older one is forgotten.
pub(super) struct Recent<T> {
    newer: HashMap<ClaimKey, T>,
    older: HashMap<ClaimKey, T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { newer: HashMap::new(), older: HashMap::new() }
    }
}

impl<T: Copy> Recent<T> {
    pub(super) fn insert(&mut self, claim: ClaimKey, learnt: T) {
        if self.newer.len() == HALF_MAX {
            self.older.clear();
            std::mem::swap(&mut self.newer, &mut self.older);
        }
        self.newer.insert(claim, learnt);
    }

    pub(super) fn get(&self, claim: &ClaimKey) -> Option<T> {
        self.newer.get(claim).or_else(|| self.older.get(claim)).copied()
    }

    pub(super) fn remove(&mut self, claim: &ClaimKey) {
        self.newer.remove(claim);
        self.older.remove(claim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, CampaignId, CouponId};

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
