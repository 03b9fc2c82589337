//! Coupons that were free a moment ago, read ahead for each campaign: a group that knows the ids needs only one
//! statement.
//!
//! Invariant: the ids are suggestions. Another instance may have taken or locked one; the statement then skips it, and
//! the claim gets another id. If there are none here, only MySQL can tell whether any are left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::mysql::coupons;
use coupon_core::mysql::sql::Wanted;
use coupon_core::{CampaignId, ClaimKey, CouponId, Result};
use moka::sync::Cache;
use mysql_async::Conn;
use rand::RngExt as _;

use crate::group::Group;
use crate::steps;

/// Ids per read: 8 KB of memory, and about one read for every four groups under load.
const READ_AHEAD: usize = 500;

/// The most free coupons an instance skips when it moves away from others: about 10 ms of reading an index.
const SKIP_MAX: usize = 200_000;

/// A read that takes longer has stepped over many issued coupons, or over their index entries that a snapshot keeps
/// alive.
const SLOW: Duration = Duration::from_millis(20);

/// How many campaigns' ids are kept; with more campaigns, some are read again for each group.
const CAMPAIGNS_MAX: u64 = 2_000;

/// Ids of a campaign are dropped after this time without a claim.
const KEEP_FOR: Duration = Duration::from_secs(10);

/// The ids of all campaigns. Cheap to clone.
#[derive(Clone)]
pub struct Ahead(Cache<CampaignId, Arc<Campaign>>);

#[derive(Default)]
struct Campaign {
    ids: Mutex<Ids>,
    /// Held by the task that reads; the tasks waiting for it find what it read.
    reading: tokio::sync::Mutex<()>,
}

/// The ids read of one campaign.
#[derive(Default)]
struct Ids {
    /// In descending order: the next one to issue is the last.
    free: Vec<CouponId>,
    /// The next read starts after this one, or from the beginning if there is none.
    after: Option<CouponId>,
    /// Other instances issue from the same place: the next read starts elsewhere.
    is_crowded: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(CAMPAIGNS_MAX).time_to_idle(KEEP_FOR).build())
    }
}

impl Ahead {
    /// Takes a coupon for each of these claims, as far as there are any, the first claims first. Sorted by account as
    /// well as by coupon: two groups with the same accounts then lock rows in the same order, which avoids deadlocks.
    ///
    /// # Errors
    /// An error of MySQL.
    pub async fn take(&self, conn: &mut Conn, group: &Group, claims: &[ClaimKey]) -> Result<Vec<(ClaimKey, CouponId)>> {
        let mut by_campaign: BTreeMap<CampaignId, Vec<ClaimKey>> = BTreeMap::new();
        for claim in claims {
            by_campaign.entry(claim.campaign_id).or_default().push(*claim);
        }
        let mut taken = Vec::with_capacity(claims.len());
        for (campaign, mut claims) in by_campaign {
            let ahead = self.0.get_with(campaign, Arc::default);
            let mut coupons = ahead.take(conn, group, campaign, claims.len()).await?;
            claims.truncate(coupons.len());
            claims.sort_unstable();
            coupons.sort_unstable();
            taken.extend(claims.into_iter().zip(coupons));
        }
        Ok(taken)
    }

    /// Takes back ids that were not needed and are, as far as we know, still free.
    pub fn give_back(&self, unused: &[(ClaimKey, CouponId)]) {
        for (claim, coupon) in unused {
            if let Some(campaign) = self.0.get(&claim.campaign_id) {
                campaign.ids().free.push(*coupon);
            }
        }
    }

    /// Drops the ids of these campaigns and moves elsewhere, because other instances issue from the same place.
    pub fn move_away(&self, campaigns: &BTreeSet<CampaignId>) {
        for campaign in campaigns.iter().filter_map(|campaign| self.0.get(campaign)) {
            let mut ids = campaign.ids();
            ids.free.clear();
            ids.is_crowded = true;
        }
    }
}

impl Campaign {
    async fn take(
        &self,
        conn: &mut Conn,
        group: &Group,
        campaign_id: CampaignId,
        count: usize,
    ) -> Result<Vec<CouponId>> {
        if self.ids().free.len() < count {
            let _reading = self.reading.lock().await;
            if self.ids().free.len() < count {
                self.read(conn, group, campaign_id, count).await?;
            }
        }
        let free = &mut self.ids().free;
        let rest = free.len().saturating_sub(count);
        Ok(free.split_off(rest))
    }

    /// Reads on and, if that finds too few, starts again from the beginning.
    async fn read(&self, conn: &mut Conn, group: &Group, campaign_id: CampaignId, count: usize) -> Result<()> {
        // Taken out, so that a failed read is not retried from the same place.
        let (mut after, is_crowded) = {
            let mut ids = self.ids();
            (ids.after.take(), std::mem::take(&mut ids.is_crowded))
        };
        let mut wanted = Wanted { campaign_id, count: READ_AHEAD.max(count), after };
        if is_crowded {
            after = group.step(&steps::AWAY, any_free_coupon(conn, campaign_id)).await?;
        }
        loop {
            wanted.after = after.take();
            let step = if wanted.after.is_some() { &steps::LOCK_AFTER } else { &steps::LOCK };
            let began = Instant::now();
            let found = group.step(step, coupons::free_coupons_of_nobody(conn, wanted)).await?;
            if self.ids().add(wanted, found, began.elapsed()) >= count || wanted.after.is_none() {
                return Ok(());
            }
        }
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Picks one of the first [`SKIP_MAX`] free coupons at random.
async fn any_free_coupon(conn: &mut Conn, campaign_id: CampaignId) -> Result<Option<CouponId>> {
    let mut offset = SKIP_MAX;
    while offset > 0 {
        offset = rand::rng().random_range(0..offset);
        // None means that there are fewer.
        let found = coupons::free_coupon_at(conn, campaign_id, offset).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

impl Ids {
    /// Adds the ids that a read has found, and returns how many there are now.
    fn add(&mut self, wanted: Wanted, mut found: Vec<CouponId>, took: Duration) -> usize {
        let is_full = found.len() == wanted.count;
        // A read from the beginning steps only over entries that a snapshot keeps, which the next read need not repeat.
        let goes_on = is_full && (wanted.after.is_none() || took < SLOW);
        self.after = found.last().copied().filter(|_| goes_on);
        found.reverse();
        if wanted.after.is_some() {
            // The ids left over from the previous read come next.
            found.append(&mut self.free);
        }
        self.free = found;
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { campaign_id: CampaignId(1), count: 3, after: None };
    const QUICK: Duration = Duration::ZERO;

    fn coupons(ids: &[u128]) -> Vec<CouponId> {
        ids.iter().map(|id| CouponId(uuid::Uuid::from_u128(*id))).collect()
    }

    #[test]
    fn a_full_read_is_gone_on_with() {
        let mut ids = Ids::default();

        ids.add(WANTED, coupons(&[1, 2, 3]), QUICK);
        let after = ids.after;
        ids.free.truncate(1);
        ids.add(Wanted { after, ..WANTED }, coupons(&[4, 5, 6]), QUICK);

        assert_eq!(after, Some(coupons(&[3])[0]));
        assert_eq!(ids.free, coupons(&[6, 5, 4, 3]), "what was left is the next");
        assert_eq!(ids.after, Some(coupons(&[6])[0]));
    }

    #[test]
    fn a_read_from_the_beginning_holds_what_was_left_and_a_short_one_is_the_end() {
        let mut ids = Ids { free: coupons(&[2, 1]), after: None, is_crowded: false };

        let count = ids.add(WANTED, coupons(&[1, 2]), QUICK);

        assert_eq!((count, ids.free, ids.after), (2, coupons(&[2, 1]), None));
    }

    #[test]
    fn after_a_slow_read_behind_a_coupon_the_next_is_from_the_beginning() {
        let after = Some(CouponId(uuid::Uuid::from_u128(1)));
        let mut ids = Ids::default();

        ids.add(Wanted { after, ..WANTED }, coupons(&[7, 8, 9]), SLOW);
        assert_eq!(ids.after, None);
        ids.add(WANTED, coupons(&[2, 3, 4]), SLOW);
        assert_eq!(ids.after, Some(coupons(&[4])[0]), "and the one after that is not");
    }
}
