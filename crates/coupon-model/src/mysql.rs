//! The models' MySQL: one campaign, and the statements of `coupon_core::mysql::coupons`, each of them atomic.
//!
//! Invariant: a statement returns exactly what the real code sees, including the number of changed rows; everything
//! else is only for the properties.

use std::collections::{BTreeMap, HashMap};

use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};
use uuid::Uuid;

use crate::guards::Guard;

/// The one campaign.
pub const CAMPAIGN: CampaignId = CampaignId(1);

/// The coupon that a restock adds. It sorts before all others, where a reader that resumes after an id does not look.
const RESTOCKED: u128 = 0;

/// The rows of the campaign.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Mysql {
    rows: BTreeMap<CouponId, Option<AccountId>>,
    /// Whether a row that had an account got another one.
    pub has_changed_hands: bool,
}

impl Mysql {
    /// Creates a campaign with this many free coupons.
    pub fn with_stock(coupons: u8) -> Self {
        let rows = (1..=u128::from(coupons)).map(|n| (CouponId(Uuid::from_u128(n)), None)).collect();
        Self { rows, has_changed_hands: false }
    }

    /// Adds a row.
    pub fn restock(&mut self) {
        self.rows.insert(CouponId(Uuid::from_u128(RESTOCKED)), None);
    }

    /// All ids, free or not.
    pub fn ids(&self) -> Vec<CouponId> {
        self.rows.keys().copied().collect()
    }

    /// The ids of free rows after `after`, in order, like `coupons::free_coupons`.
    pub fn free(&self, after: Option<CouponId>) -> Vec<CouponId> {
        let rows = self.rows.iter().filter(|(id, account)| account.is_none() && after.is_none_or(|after| **id > after));
        rows.map(|(id, _)| *id).collect()
    }

    /// The same, read from a replica that has not seen the restock yet.
    pub fn free_on_a_replica(&self) -> Vec<CouponId> {
        self.free(Some(CouponId(Uuid::from_u128(RESTOCKED))))
    }

    /// Whether no row is without an account.
    pub fn is_sold_out(&self) -> bool {
        self.rows.values().all(Option::is_some)
    }

    /// Whether a row is without an account.
    pub fn is_free(&self, id: CouponId) -> bool {
        self.rows.get(&id).is_some_and(Option::is_none)
    }

    /// The conditional UPDATE, like `coupons::issue`. Returns whether as many rows were changed as were given.
    pub fn issue(&mut self, rows: &[(ClaimKey, CouponId)], without: Option<Guard>) -> bool {
        let written = rows.iter().filter(|(claim, id)| self.write(claim.account_id, *id, without)).count();
        written == rows.len()
    }

    fn write(&mut self, account: AccountId, id: CouponId, without: Option<Guard>) -> bool {
        if without != Some(Guard::UniqueKey) && self.coupons_of(account).next().is_some() {
            return false;
        }
        let Some(holder) = self.rows.get_mut(&id) else { return false };
        if holder.is_some() {
            if without != Some(Guard::ConditionalUpdate) {
                return false;
            }
            self.has_changed_hands = true;
        }
        *holder = Some(account);
        true
    }

    /// The coupons that these accounts hold, like `coupons::coupons_of`.
    pub fn held(&self, claims: &[ClaimKey]) -> HashMap<ClaimKey, CouponId> {
        let held = |claim: &ClaimKey| Some((*claim, self.coupon_of(claim.account_id)?));
        claims.iter().filter_map(held).collect()
    }

    /// The coupon that an account holds.
    pub fn coupon_of(&self, account: AccountId) -> Option<CouponId> {
        self.coupons_of(account).next()
    }

    fn coupons_of(&self, account: AccountId) -> impl Iterator<Item = CouponId> {
        self.rows.iter().filter(move |(_, holder)| **holder == Some(account)).map(|(id, _)| *id)
    }

    /// The account that got the coupon of a restock.
    pub fn restocked_to(&self) -> Option<AccountId> {
        self.rows.get(&CouponId(Uuid::from_u128(RESTOCKED))).copied().flatten()
    }

    /// Whether an account holds this coupon.
    pub fn is_held_by(&self, id: CouponId, account: AccountId) -> bool {
        self.rows.get(&id) == Some(&Some(account))
    }

    /// Whether an account holds more than one.
    pub fn has_an_account_twice(&self) -> bool {
        let mut holders: Vec<AccountId> = self.rows.values().copied().flatten().collect();
        holders.sort_unstable();
        holders.windows(2).any(|pair| pair.first() == pair.last())
    }

    /// The accounts that hold a coupon.
    pub fn holders(&self) -> Vec<AccountId> {
        let mut holders: Vec<AccountId> = self.rows.values().copied().flatten().collect();
        holders.sort_unstable();
        holders
    }
}

/// The claim of an account.
pub fn claim_of(account: AccountId) -> ClaimKey {
    ClaimKey { campaign_id: CAMPAIGN, account_id: account }
}
