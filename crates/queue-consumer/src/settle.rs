//! A batch of claims becomes outcomes: reserve, issue, and look up whatever is left; again until nothing is.
//!
//! Most claims are first claims of their account, so the conditional UPDATE comes first and says whether all went
//! through. Invariants: an account's coupon is decided by that UPDATE and the unique key in MySQL, by nothing before
//! it; "sold out" is said of a claim only when the proof of it is older than a look that found no coupon of its account.

use std::collections::{BTreeMap, HashMap, HashSet};

use coupon_core::mysql::{Mysql, coupons};
use coupon_core::outcomes::Outcomes;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{CampaignId, Claim, ClaimKey, CouponId, Error, Outcome, Result};
use mysql_async::Conn;

use crate::reserve::{Reservations, Reserved};
use crate::steps;

/// A round leaves a claim open only if its id turned out to be taken. This many rounds mean that the list is full of such
/// ids: it is dropped, and the batch tried again after a pause.
const ROUNDS_MAX: usize = 16;

/// What became of the claims of a batch.
#[derive(Debug, Default)]
pub struct Settled {
    /// Those that have an outcome.
    pub outcomes: HashMap<ClaimKey, Outcome>,
    /// Those of campaigns that MySQL does not know, which can have none.
    pub unknown: HashSet<ClaimKey>,
}

/// What was proven of campaigns while a batch is settled.
#[derive(Default)]
struct Proven {
    sold_out: HashSet<CampaignId>,
    unknown: HashSet<CampaignId>,
}

/// Settles claims.
pub struct Settler {
    /// The truth.
    pub mysql: Mysql,
    /// Ids that wait in Redis.
    pub reservations: Reservations,
    /// Where outcomes are recorded.
    pub outcomes: Outcomes,
}

impl Settler {
    /// Gives each of these claims its outcome, if its campaign is there; records and returns them. Doing it again gives the
    /// same outcomes.
    ///
    /// # Errors
    /// A server's; some of the claims may have been settled by then.
    pub async fn settle(&self, claims: &[Claim], timeline: &Timeline) -> Result<Settled> {
        let mut open = in_order_of_arrival(claims);
        let mut settled = Settled { outcomes: HashMap::with_capacity(open.len()), ..Settled::default() };
        let mut proven = Proven::default();
        for _ in 0..ROUNDS_MAX {
            proven.sold_out.extend(self.reservations.sold_out(claims));
            let unused = self.issue(&mut open, &mut settled, &mut proven, timeline).await?;
            self.settle_known(&mut open, &mut settled, &proven, timeline).await?;
            self.give_back(unused, &settled.outcomes).await;
            if open.is_empty() {
                self.record(&settled.outcomes, timeline).await;
                return Ok(settled);
            }
        }
        // The next try begins with ids that are free then.
        self.reservations.drop_lists(open.iter().map(|claim| claim.campaign_id).collect()).await?;
        Err(Error::Full { what: "the list of ids with ids of coupons that are taken: it" })
    }

    /// Settles the claims of accounts that hold a coupon, and those of campaigns that were proven to be sold out, or not to
    /// be there, before this look: in this order, a coupon issued between the two is found.
    async fn settle_known(
        &self,
        open: &mut Vec<ClaimKey>,
        settled: &mut Settled,
        proven: &Proven,
        timeline: &Timeline,
    ) -> Result<()> {
        if open.is_empty() {
            return Ok(());
        }
        let asked = open.clone();
        let lookup = self.mysql.run(async move |mut conn: Conn| coupons::coupons_of(&mut conn, &asked).await);
        let issued = timeline.step(&steps::LOOKUP, open.len(), lookup).await?;
        open.retain(|claim| {
            let outcome = match issued.get(claim) {
                Some(&coupon_id) => Outcome::Issued { coupon_id },
                None if proven.sold_out.contains(&claim.campaign_id) => Outcome::SoldOut,
                None if proven.unknown.contains(&claim.campaign_id) => {
                    settled.unknown.insert(*claim);
                    return false;
                }
                None => return true,
            };
            settled.outcomes.insert(*claim, outcome);
            false
        });
        Ok(())
    }

    /// Reserves an id for each open claim of a campaign that has some, and writes the accounts into MySQL. Unless
    /// all went through, all stay open and their reservations are returned: the look that follows tells which did.
    async fn issue(
        &self,
        open: &mut Vec<ClaimKey>,
        settled: &mut Settled,
        proven: &mut Proven,
        timeline: &Timeline,
    ) -> Result<Vec<(ClaimKey, CouponId)>> {
        let reserved = self.reserve(open, proven, timeline).await?;
        if reserved.is_empty() {
            return Ok(reserved);
        }
        let rows = reserved.clone();
        let persist = self.mysql.run(async move |mut conn: Conn| coupons::issue(&mut conn, &rows).await);
        if !timeline.step(&steps::PERSIST, reserved.len(), persist).await? {
            // Some ids were stale, some accounts had a coupon, or the server does not say.
            return Ok(reserved);
        }
        let outcomes = &mut settled.outcomes;
        outcomes.extend(reserved.into_iter().map(|(claim, coupon_id)| (claim, Outcome::Issued { coupon_id })));
        open.retain(|claim| !outcomes.contains_key(claim));
        Ok(Vec::new())
    }

    /// Puts back the ids that were reserved for accounts that hold another coupon. Not if some ids of the round were
    /// stale: which of the others are is not known, and a stale id that went round and round would hold claims up.
    async fn give_back(&self, reserved: Vec<(ClaimKey, CouponId)>, settled: &HashMap<ClaimKey, Outcome>) {
        let is_stale = |(claim, _): &(ClaimKey, CouponId)| !settled.contains_key(claim);
        if reserved.iter().any(is_stale) {
            return;
        }
        let is_unused = |(claim, coupon): &(ClaimKey, CouponId)| matches!(settled.get(claim), Some(Outcome::Issued { coupon_id }) if coupon_id != coupon);
        let unused: Vec<(CampaignId, CouponId)> = reserved
            .iter()
            .filter(|reserved| is_unused(reserved))
            .map(|(claim, id)| (claim.campaign_id, *id))
            .collect();
        if let Err(error) = self.reservations.give_back(&unused).await {
            tracing::debug!(%error, ids = unused.len(), "ids are left to the next refill");
        }
    }

    /// An id for each of these claims, first come first, as far as there are any; adds what it proves of campaigns. In
    /// order of the ids: two consumers who were offered the same ones then meet at them in one order, not crosswise.
    async fn reserve(
        &self,
        open: &[ClaimKey],
        proven: &mut Proven,
        timeline: &Timeline,
    ) -> Result<Vec<(ClaimKey, CouponId)>> {
        let mut wanted: BTreeMap<CampaignId, usize> = BTreeMap::new();
        for claim in open.iter().filter(|claim| proven.leaves_open(claim.campaign_id)) {
            *wanted.entry(claim.campaign_id).or_default() += 1;
        }
        let wanted: Vec<(CampaignId, usize)> = wanted.into_iter().collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let Reserved { mut ids, sold_out, unknown } = self.reservations.reserve(&wanted, timeline).await?;
        proven.sold_out.extend(sold_out);
        proven.unknown.extend(unknown);
        let next = |claim: &ClaimKey| Some((*claim, ids.get_mut(&claim.campaign_id)?.pop()?));
        let mut reserved: Vec<(ClaimKey, CouponId)> = open.iter().filter_map(next).collect();
        reserved.sort_unstable_by_key(|(claim, coupon)| (claim.campaign_id, *coupon));
        Ok(reserved)
    }

    /// The records spare MySQL the questions of those who wait, no more: without them MySQL is asked.
    async fn record(&self, settled: &HashMap<ClaimKey, Outcome>, timeline: &Timeline) {
        let outcomes: Vec<(ClaimKey, Outcome)> = settled.iter().map(|(claim, outcome)| (*claim, *outcome)).collect();
        let record = self.outcomes.write(&outcomes);
        if let Err(error) = timeline.step(&steps::RECORD, outcomes.len(), record).await {
            tracing::debug!(%error, "cannot record outcomes in Redis");
        }
    }
}

impl Proven {
    /// Whether a campaign may still have coupons.
    fn leaves_open(&self, campaign: CampaignId) -> bool {
        !self.sold_out.contains(&campaign) && !self.unknown.contains(&campaign)
    }
}

/// Each claim once, first come first.
#[must_use]
pub fn in_order_of_arrival(claims: &[Claim]) -> Vec<ClaimKey> {
    let mut claims = claims.to_vec();
    claims.sort_by_key(|claim| claim.accepted_at_ms);
    let mut seen = HashSet::with_capacity(claims.len());
    claims.iter().map(Claim::key).filter(|claim| seen.insert(*claim)).collect()
}

#[cfg(test)]
mod tests {
    use coupon_core::AccountId;

    use super::*;

    #[test]
    fn the_first_come_is_served_first_and_once() {
        let claim = |account, accepted_at_ms| Claim {
            campaign_id: CampaignId(1),
            account_id: AccountId(account),
            accepted_at_ms,
        };

        let order = in_order_of_arrival(&[claim(1, 30), claim(2, 10), claim(1, 5), claim(3, 20)]);

        assert_eq!(order.iter().map(|claim| claim.account_id.0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
