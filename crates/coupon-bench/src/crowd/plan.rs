//! Plans who claims from which campaign, and in which order: every account once, and some of them again later on.

use coupon_core::CampaignId;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom, index};
use rand::{RngExt, SeedableRng};

/// Makes the order the same in every run, so that both ways meet the same crowd.
const SEED: u64 = 0x00C0_FFEE;

/// The campaigns that a crowd claims from; their ids are consecutive.
#[derive(Clone, Copy, Debug)]
pub struct Campaigns {
    pub first: CampaignId,
    pub count: u64,
}

impl Campaigns {
    /// The campaign that an account claims from.
    pub fn of(self, account: u64) -> CampaignId {
        CampaignId(self.first.0 + account % self.count)
    }

    pub fn ids(self) -> impl Iterator<Item = CampaignId> {
        (0..self.count).map(move |n| self.of(n))
    }
}

/// The accounts `first..first + accounts` in random order, with `repeats` further claims of accounts that claimed
/// before mixed in at random.
pub fn claims(first: u64, accounts: u64, repeats: u64) -> Vec<u64> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut fresh: Vec<u64> = (first..first + accounts).collect();
    fresh.shuffle(&mut rng);
    let total = fresh.len() + if fresh.is_empty() { 0 } else { usize::try_from(repeats).unwrap_or(usize::MAX) };
    // The first claim has no earlier one to repeat.
    let mut is_repeat = vec![false; total];
    for slot in index::sample(&mut rng, total.saturating_sub(1), total - fresh.len()) {
        if let Some(slot) = is_repeat.get_mut(slot + 1) {
            *slot = true;
        }
    }
    let mut order: Vec<u64> = Vec::with_capacity(total);
    let mut claimed = 0;
    for is_repeat in is_repeat {
        // Every account that has claimed is equally likely, however often it has.
        let place = if is_repeat { rng.random_range(0..claimed) } else { claimed };
        claimed += usize::from(!is_repeat);
        order.extend(fresh.get(place));
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_account_claims_and_only_known_ones_repeat() {
        let order = claims(1, 1_000, 100);

        assert_eq!(order.len(), 1_100);
        assert_eq!(order.iter().collect::<HashSet<_>>(), (1..=1_000).collect::<Vec<_>>().iter().collect());
        assert_eq!(order, claims(1, 1_000, 100), "the same crowd in every run");
    }

    #[test]
    fn repeats_are_spread_over_those_who_have_claimed() {
        let order = claims(1, 20, 200);
        let most = (1..=20).map(|account| order.iter().filter(|other| **other == account).count()).max();

        assert!(most.is_some_and(|most| most < 50), "{most:?} of 220 claims by one of 20 accounts");
    }

    #[test]
    fn a_crowd_may_be_small() {
        assert!(claims(1, 0, 5).is_empty());
        assert_eq!(claims(7, 1, 3), [7, 7, 7, 7]);
    }
}
