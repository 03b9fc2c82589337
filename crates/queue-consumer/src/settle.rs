//! A batch of claims becomes outcomes: reserve, issue, look up what is left, give back what was not needed; again until no
//! claim is open; then record.
//!
//! Most claims are first claims of their account, so the conditional UPDATE comes first and says whether all went
//! through. Invariants: an account's coupon is decided by that UPDATE and the unique key in MySQL, by nothing before
//! it; "sold out" is said of a claim only when the proof of it is older than a lookup that found no coupon of its account.

use std::collections::{BTreeMap, HashMap, HashSet};

use coupon_core::mysql::{Mysql, coupons};
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{CampaignId, Claim, ClaimKey, CouponId, Error, InstanceId, Outcome, Result};
use mysql_async::Conn;

use crate::reserve::{Reservations, Reserved};
use crate::steps;

/// A round leaves a claim open only if its id turned out to be taken. This many rounds mean that the list is full of such
/// ids, as when skiplock-api sells the same campaign: it is dropped, and filled with ids that are free now.
const STALE_ROUNDS: usize = 2;

/// After this many rounds the batch is tried again after a pause.
const ROUNDS_MAX: usize = 16;

/// The instances of producer-api that published the claims of a batch, each with its claims.
pub type Publishers = BTreeMap<InstanceId, Vec<ClaimKey>>;

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
    /// Gives each of these claims its outcome, if its campaign is there; records them, pushes them to the instances that
    /// published the claims, and returns them. Doing it again gives the same outcomes.
    ///
    /// # Errors
    /// A server's; some of the claims may have been settled by then.
    pub async fn settle(&self, claims: &[Claim], publishers: &Publishers, timeline: &Timeline) -> Result<Settled> {
        let mut batch = Batch::new(self, claims, timeline);
        for round in 1..=ROUNDS_MAX {
            batch.proven.sold_out.extend(self.reservations.sold_out(claims));
            let reserved = batch.reserve().await?;
            let left = batch.issue(reserved).await?;
            batch.look_up().await?;
            batch.give_back(left).await;
            if batch.open.is_empty() {
                batch.record(publishers).await;
                return Ok(batch.settled);
            }
            if round % STALE_ROUNDS == 0 {
                self.reservations.drop_lists(batch.open.iter().map(|claim| claim.campaign_id).collect()).await?;
            }
        }
        Err(Error::Exhausted { what: "finding ids of free coupons", tries: ROUNDS_MAX })
    }
}

/// A batch on its way to its outcomes.
struct Batch<'a> {
    settler: &'a Settler,
    timeline: &'a Timeline,
    /// Claims without an outcome, first come first.
    open: Vec<ClaimKey>,
    settled: Settled,
    proven: Proven,
}

impl<'a> Batch<'a> {
    fn new(settler: &'a Settler, claims: &[Claim], timeline: &'a Timeline) -> Self {
        let open = in_order_of_arrival(claims);
        let settled = Settled { outcomes: HashMap::with_capacity(open.len()), ..Settled::default() };
        Self { settler, timeline, open, settled, proven: Proven::default() }
    }

    /// Reserves an id for each open claim, first come first, as far as there are any; adds what that proves of campaigns.
    /// In order of the ids: two consumers who were offered the same ones then meet at them in one order, not crosswise.
    async fn reserve(&mut self) -> Result<Vec<(ClaimKey, CouponId)>> {
        let mut wanted: BTreeMap<CampaignId, usize> = BTreeMap::new();
        for claim in self.open.iter().filter(|claim| self.proven.leaves_open(claim.campaign_id)) {
            *wanted.entry(claim.campaign_id).or_default() += 1;
        }
        let wanted: Vec<(CampaignId, usize)> = wanted.into_iter().collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let Reserved { mut ids, sold_out, unknown } = self.settler.reservations.reserve(&wanted, self.timeline).await?;
        self.proven.sold_out.extend(sold_out);
        self.proven.unknown.extend(unknown);
        let next = |claim: &ClaimKey| Some((*claim, ids.get_mut(&claim.campaign_id)?.pop()?));
        let mut reserved: Vec<(ClaimKey, CouponId)> = self.open.iter().filter_map(next).collect();
        reserved.sort_unstable_by_key(|(claim, coupon)| (claim.campaign_id, *coupon));
        Ok(reserved)
    }

    /// Writes the accounts into the reserved rows. Unless all went through, all claims stay open and the reservations are
    /// returned: the lookup that follows finds those that did.
    async fn issue(&mut self, reserved: Vec<(ClaimKey, CouponId)>) -> Result<Vec<(ClaimKey, CouponId)>> {
        if reserved.is_empty() {
            return Ok(reserved);
        }
        let rows = reserved.clone();
        let persist = self.settler.mysql.run(async move |mut conn: Conn| coupons::issue(&mut conn, &rows).await);
        if !self.timeline.step(&steps::PERSIST, reserved.len(), persist).await? {
            // Some ids were stale, some accounts had a coupon, or the server does not say.
            return Ok(reserved);
        }
        let outcomes = &mut self.settled.outcomes;
        outcomes.extend(reserved.into_iter().map(|(claim, coupon_id)| (claim, Outcome::Issued { coupon_id })));
        self.open.retain(|claim| !outcomes.contains_key(claim));
        Ok(Vec::new())
    }

    /// Settles the claims of accounts that hold a coupon, and those of campaigns that were proven to be sold out, or not to
    /// be there, before this lookup: in this order, a coupon issued between the two is found.
    async fn look_up(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let asked = self.open.clone();
        let lookup = self.settler.mysql.run(async move |mut conn: Conn| coupons::coupons_of(&mut conn, &asked).await);
        let issued = self.timeline.step(&steps::LOOKUP, self.open.len(), lookup).await?;
        let (settled, proven) = (&mut self.settled, &self.proven);
        self.open.retain(|claim| {
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

    /// Puts back the ids that were reserved for accounts that hold another coupon. Not if some ids of the round were
    /// stale: which of the others are is not known, and a stale id that went round and round would hold claims up.
    async fn give_back(&self, reserved: Vec<(ClaimKey, CouponId)>) {
        let outcomes = &self.settled.outcomes;
        if reserved.iter().any(|(claim, _)| !outcomes.contains_key(claim)) {
            return;
        }
        let is_used = |(claim, reserved): &(ClaimKey, CouponId)| match outcomes.get(claim) {
            Some(Outcome::Issued { coupon_id }) => coupon_id == reserved,
            _ => true,
        };
        let unused = reserved.iter().filter(|reserved| !is_used(reserved));
        let unused: Vec<(CampaignId, CouponId)> = unused.map(|(claim, id)| (claim.campaign_id, *id)).collect();
        if let Err(error) = self.settler.reservations.give_back(&unused).await {
            tracing::debug!(%error, ids = unused.len(), "ids are left to the next refill");
        }
    }

    /// Records the outcomes in Redis, and pushes them. That spares MySQL the questions of those who wait, no more: without
    /// it MySQL is asked.
    async fn record(&self, publishers: &Publishers) {
        let outcomes = &self.settled.outcomes;
        let pushed: Vec<(InstanceId, Vec<(ClaimKey, Outcome)>)> = publishers
            .iter()
            .map(|(instance, claims)| {
                let outcome = |claim: &ClaimKey| Some((*claim, *outcomes.get(claim)?));
                (*instance, claims.iter().filter_map(outcome).collect())
            })
            .collect();
        let outcomes: Vec<(ClaimKey, Outcome)> = outcomes.iter().map(|(claim, outcome)| (*claim, *outcome)).collect();
        let record = self.settler.outcomes.write(&outcomes, &pushed);
        if let Err(error) = self.timeline.step(&steps::RECORD, outcomes.len(), record).await {
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
