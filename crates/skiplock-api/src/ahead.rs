//! Coupons that were free a moment ago, read ahead for each campaign: a group that knows the ids needs one statement.
//!
//! Invariant: they are suggestions. Another instance may have taken or locked one; the statement passes over it, and the
//! claim gets another id. What is left when none are found here is for MySQL to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coupon_core::mysql::coupons;
use coupon_core::mysql::sql::Wanted;
use coupon_core::{CampaignId, ClaimKey, CouponId, Result};
use moka::future::Cache;
use mysql_async::Conn;
use tokio::sync::Mutex;

use crate::steps;
use crate::strategy::Group;

/// Ids read at once: 8 KB of memory, and a read for every fourth group of a crowd.
const READ_AHEAD: usize = 500;

/// Campaigns that ids are kept of; of more, some are read again for each group.
const CAMPAIGNS_MAX: u64 = 2_000;

/// Ids of a campaign that nobody claims from are dropped.
const KEEP_FOR: Duration = Duration::from_secs(10);

/// The ids of all campaigns. Cheap to clone.
#[derive(Clone)]
pub struct Ahead(Cache<CampaignId, Arc<Mutex<Ids>>>);

/// What was read of one campaign.
#[derive(Default)]
struct Ids {
    /// In descending order: the next is the last.
    free: Vec<CouponId>,
    /// The next read goes on behind this one; without it, from the beginning.
    behind: Option<CouponId>,
    /// Whether there was as much as was asked for: then there is more behind it.
    was_full: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(CAMPAIGNS_MAX).time_to_idle(KEEP_FOR).build())
    }
}

impl Ahead {
    /// A coupon for each of these claims, as far as there are any, the first claims first. In order of accounts as well as
    /// of coupons: two groups with the same accounts then meet in one order, not crosswise.
    ///
    /// # Errors
    /// MySQL's.
    pub async fn take(&self, conn: &mut Conn, group: &Group, claims: &[ClaimKey]) -> Result<Vec<(ClaimKey, CouponId)>> {
        let mut by_campaign: BTreeMap<CampaignId, Vec<ClaimKey>> = BTreeMap::new();
        for claim in claims {
            by_campaign.entry(claim.campaign_id).or_default().push(*claim);
        }
        let mut taken = Vec::with_capacity(claims.len());
        for (campaign, mut claims) in by_campaign {
            let ids = self.0.get_with(campaign, async { Arc::default() }).await;
            let mut coupons = ids.lock().await.take(conn, group, campaign, claims.len()).await?;
            claims.truncate(coupons.len());
            claims.sort_unstable();
            coupons.sort_unstable();
            taken.extend(claims.into_iter().zip(coupons));
        }
        Ok(taken)
    }

    /// Some of these were not to be had: others sell from the same place.
    pub async fn move_away(&self, lost: &HashMap<ClaimKey, CouponId>) {
        for claim in lost.keys() {
            if let Some(ids) = self.0.get(&claim.campaign_id).await {
                ids.lock().await.move_away();
            }
        }
    }
}

impl Ids {
    async fn take(
        &mut self,
        conn: &mut Conn,
        group: &Group,
        campaign_id: CampaignId,
        count: usize,
    ) -> Result<Vec<CouponId>> {
        if self.free.len() < count {
            self.read(conn, group, campaign_id, count).await?;
        }
        Ok(self.free.split_off(self.free.len().saturating_sub(count)))
    }

    /// Reads on, and from the beginning if there is nothing more.
    async fn read(&mut self, conn: &mut Conn, group: &Group, campaign_id: CampaignId, count: usize) -> Result<()> {
        let mut wanted = Wanted { campaign_id, count: READ_AHEAD.max(count), behind: self.behind };
        let step = if wanted.behind.is_some() { &steps::LOCK_BEHIND } else { &steps::LOCK };
        let mut free = group.step(step, coupons::free_coupons_of_nobody(conn, wanted)).await?;
        if free.is_empty() && wanted.behind.take().is_some() {
            free = group.step(&steps::LOCK, coupons::free_coupons_of_nobody(conn, wanted)).await?;
        }
        self.behind = free.last().copied();
        self.was_full = free.len() == wanted.count;
        // What was left of the read before is the next.
        free.reverse();
        free.append(&mut self.free);
        self.free = free;
        Ok(())
    }

    /// To any place, where there is much left; else from the beginning, which is where the rest is found quickest.
    fn move_away(&mut self) {
        self.free.clear();
        self.behind = self.was_full.then(CouponId::random);
    }
}
