//! Where this process took the last coupon of each campaign: the next free ones lie behind it, and what was issued
//! before is not read again.
//!
//! Invariant: a mark is a hint. Without one, or when too little is found behind it, the look is from the beginning; only
//! such a look says anything about what is left.

use std::collections::HashMap;
use std::time::Duration;

use coupon_core::mysql::sql::Wanted;
use coupon_core::{CampaignId, ClaimKey, CouponId};
use moka::sync::Cache;

/// Others sell too: behind an old mark there may be many coupons of theirs to be read past.
const MARK_FOR: Duration = Duration::from_secs(1);

/// Campaigns with a mark; of more, some are looked at from the beginning.
const MARKS_MAX: u64 = 10_000;

/// The marks of all campaigns. Cheap to clone.
#[derive(Clone)]
pub struct Marks(Cache<CampaignId, CouponId>);

impl Default for Marks {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MARKS_MAX).time_to_live(MARK_FOR).build())
    }
}

impl Marks {
    /// The coupon to look behind.
    pub fn of(&self, campaign: CampaignId) -> Option<CouponId> {
        self.0.get(&campaign)
    }

    /// This coupon was taken.
    pub fn put(&self, campaign: CampaignId, taken: CouponId) {
        self.0.insert(campaign, taken);
    }

    /// Learns from a look: where all that was wanted was found, the next goes on behind it; else from the beginning.
    pub fn learn(&self, wanted: &[Wanted], found: &[(ClaimKey, CouponId)]) {
        let mut by_campaign: HashMap<CampaignId, (usize, Option<CouponId>)> = HashMap::new();
        for (claim, coupon) in found {
            let (count, last) = by_campaign.entry(claim.campaign_id).or_default();
            *count += 1;
            *last = (*last).max(Some(*coupon));
        }
        for wanted in wanted {
            match by_campaign.get(&wanted.campaign_id) {
                Some(&(count, Some(last))) if count == wanted.count => self.put(wanted.campaign_id, last),
                _ => self.0.invalidate(&wanted.campaign_id),
            }
        }
    }
}
