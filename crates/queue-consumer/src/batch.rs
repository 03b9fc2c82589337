//! A batch of claims on its way to its outcomes: every decision about it, made without a server. [`crate::settle`] asks
//! the servers and passes their answers to the batch; `coupon-model` drives it through every order of events.
//!
//! Invariants: an account's coupon is what MySQL was seen to hold for it; a claim is "sold out" only if the proof is
//! older than a lookup that found no coupon of its account; an id is given back only if no claim of the batch holds it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use coupon_core::{CampaignId, Claim, ClaimKey, CouponId, Outcome};

use crate::reserve::Reserved;

/// The outcomes of a batch's claims.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Settled {
    /// The claims that have an outcome.
    pub outcomes: BTreeMap<ClaimKey, Outcome>,
    /// The claims of campaigns that do not exist in MySQL, which can have no outcome.
    pub unknown: BTreeSet<ClaimKey>,
}

/// A batch, and what is known so far about its claims and their campaigns.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Batch {
    /// Claims without an outcome, first come first.
    open: Vec<ClaimKey>,
    settled: Settled,
    sold_out: BTreeSet<CampaignId>,
    unknown: BTreeSet<CampaignId>,
}

impl Batch {
    /// Creates a batch of these claims, about which nothing is known yet.
    #[must_use]
    pub fn new(claims: &[Claim]) -> Self {
        let (sold_out, unknown) = (BTreeSet::new(), BTreeSet::new());
        Self { open: in_order_of_arrival(claims), settled: Settled::default(), sold_out, unknown }
    }

    /// The claims without an outcome, first come first.
    #[must_use]
    pub fn open(&self) -> &[ClaimKey] {
        &self.open
    }

    /// The outcomes so far.
    #[must_use]
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Consumes the batch and returns its outcomes.
    #[must_use]
    pub fn into_settled(self) -> Settled {
        self.settled
    }

    /// Notes that these campaigns were proven to be sold out.
    pub fn prove_sold_out(&mut self, campaigns: impl IntoIterator<Item = CampaignId>) {
        self.sold_out.extend(campaigns);
    }

    /// How many ids to reserve for each campaign that may still have coupons: one for each open claim.
    #[must_use]
    pub fn wanted(&self) -> Vec<(CampaignId, usize)> {
        let mut wanted: BTreeMap<CampaignId, usize> = BTreeMap::new();
        let campaigns = self.open.iter().map(|claim| claim.campaign_id);
        for campaign in campaigns.filter(|id| !self.sold_out.contains(id) && !self.unknown.contains(id)) {
            *wanted.entry(campaign).or_default() += 1;
        }
        wanted.into_iter().collect()
    }

    /// Gives each open claim one of these ids, first come first, as far as there are any; notes what the reservation
    /// proves about campaigns. Returns the rows, first come first.
    pub fn assign(&mut self, reserved: Reserved) -> Vec<(ClaimKey, CouponId)> {
        let Reserved { mut ids, sold_out, unknown } = reserved;
        self.sold_out.extend(sold_out);
        self.unknown.extend(unknown);
        let next = |claim: &ClaimKey| Some((*claim, ids.get_mut(&claim.campaign_id)?.pop()?));
        self.open.iter().filter_map(next).collect()
    }

    /// Notes that all of these rows were certainly written.
    pub fn issued(&mut self, rows: &[(ClaimKey, CouponId)]) {
        let outcomes = &mut self.settled.outcomes;
        outcomes.extend(rows.iter().map(|&(claim, coupon_id)| (claim, Outcome::Issued { coupon_id })));
        self.open.retain(|claim| !outcomes.contains_key(claim));
    }

    /// Settles the open claims of accounts that hold one of these coupons, and those of campaigns that were proven,
    /// before these coupons were looked up, to be sold out or not to exist. In this order, a coupon issued between the
    /// two is found.
    pub fn looked_up(&mut self, held: &HashMap<ClaimKey, CouponId>) {
        let Self { open, settled, sold_out, unknown } = self;
        open.retain(|claim| {
            match Outcome::of(sold_out.contains(&claim.campaign_id), held.get(claim).copied()) {
                Outcome::Pending if unknown.contains(&claim.campaign_id) => drop(settled.unknown.insert(*claim)),
                Outcome::Pending => return true,
                outcome => drop(settled.outcomes.insert(*claim, outcome)),
            }
            false
        });
    }

    /// The reserved ids that were not needed because their accounts hold another coupon. None if any id of the round
    /// was stale: it is not known which of the others are stale too, and a stale id that kept going round would hold up
    /// claims.
    #[must_use]
    pub fn unused(&self, reserved: &[(ClaimKey, CouponId)]) -> Vec<(CampaignId, CouponId)> {
        let outcomes = &self.settled.outcomes;
        if reserved.iter().any(|(claim, _)| !outcomes.contains_key(claim)) {
            return Vec::new();
        }
        // Another claim of the batch may hold the id, if the consumer before this one gave it to that one.
        let coupon_of = |outcome: &Outcome| match outcome {
            Outcome::Issued { coupon_id } => Some(*coupon_id),
            _ => None,
        };
        let held: HashSet<CouponId> = outcomes.values().filter_map(coupon_of).collect();
        let holds_one = |claim: &ClaimKey| outcomes.get(claim).and_then(coupon_of).is_some();
        let is_unused = |(claim, id): &&(ClaimKey, CouponId)| holds_one(claim) && !held.contains(id);
        reserved.iter().filter(is_unused).map(|(claim, id)| (claim.campaign_id, *id)).collect()
    }
}

/// Each claim once, in the order of the queue: unlike their clocks, all publishers share it.
#[must_use]
pub fn in_order_of_arrival(claims: &[Claim]) -> Vec<ClaimKey> {
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

        // The clock of the first one's producer-api is fast.
        let order = in_order_of_arrival(&[claim(1, 30), claim(2, 10), claim(1, 40), claim(3, 20)]);

        assert_eq!(order.iter().map(|claim| claim.account_id.0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
