//! Every statement of the hot paths as text, with the index it relies on. `tests/it/plans.rs` of `coupon-testkit` holds
//! the plans.
//!
//! A constant beside a statement is its text as traces show it, without values.
//!
//! Values are numbers and UUIDs only, written as literals: no text of a client ever gets into a statement. One round
//! trip then does for any number of rows, where a prepared statement would be another one for each number.

use std::fmt::Write as _;

use crate::domain::{AccountId, CampaignId, ClaimKey, CouponId};

/// Run once on each new connection.
pub const SESSION: [&str; 2] = [
    // Gap locks of the default level make claimers wait for each other.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    // In seconds: a row is held for milliseconds; a longer wait means that its holder hangs.
    "SET SESSION innodb_lock_wait_timeout = 5",
];

/// Campaigns with the number of their coupons and whether one is free, all of one moment.
/// Index: PRIMARY of `campaign`, `coupon_campaign_account` (the first free entry, or none).
#[must_use]
pub fn campaigns_with_stock(campaigns: &[CampaignId]) -> String {
    format!(
        "SELECT id, name, opens_at, closes_at, coupons, EXISTS (\
             SELECT 1 FROM coupon FORCE INDEX (coupon_campaign_account) \
             WHERE campaign_id = campaign.id AND account_id IS NULL\
         ) AS free \
         FROM campaign WHERE id IN ({})",
        list(campaigns.iter().map(|campaign| campaign.0)),
    )
}

/// See [`coupons_of`].
pub const COUPONS_OF: &str = "SELECT campaign_id, account_id, id FROM coupon FORCE INDEX (coupon_campaign_account) \
                              WHERE (campaign_id, account_id) IN (?)";

/// The coupons that these accounts hold. Index: `coupon_campaign_account`, a point read for each claim.
#[must_use]
pub fn coupons_of(claims: &[ClaimKey]) -> String {
    let mut sql = String::with_capacity(160 + claims.len() * 24);
    sql.push_str(
        "SELECT campaign_id, account_id, id FROM coupon FORCE INDEX (coupon_campaign_account) \
         WHERE (campaign_id, account_id) IN (",
    );
    for (n, claim) in claims.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(sql, "{comma}({},{})", claim.campaign_id, claim.account_id);
    }
    sql.push(')');
    sql
}

/// See [`issue`].
pub const ISSUE: &str = "UPDATE IGNORE coupon FORCE INDEX (PRIMARY) SET account_id = CASE id WHEN ? THEN ? END \
                         WHERE id IN (?) AND account_id IS NULL";

/// Writes accounts into coupons that are still free, and passes over those that are not, as well as accounts that have
/// a coupon of the campaign already: this one statement is what makes an issue right, whoever else is at it.
/// Index: PRIMARY. Forced, since for a small table the optimizer would scan and lock all of it.
#[must_use]
pub fn issue(coupons: &[(CouponId, AccountId)]) -> String {
    let mut sql = String::with_capacity(160 + coupons.len() * 96);
    sql.push_str("UPDATE IGNORE coupon FORCE INDEX (PRIMARY) SET account_id = CASE id");
    for (coupon, account) in coupons {
        let _ = write!(sql, " WHEN x'{}' THEN {account}", coupon.0.simple());
    }
    sql.push_str(" END WHERE id IN (");
    for (n, (coupon, _)) in coupons.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(sql, "{comma}x'{}'", coupon.0.simple());
    }
    sql.push_str(") AND account_id IS NULL");
    sql
}

/// Writes one account into one coupon, if it is still free. Fails for an account that has a coupon of the campaign
/// already. Index: PRIMARY.
pub const ISSUE_ONE: &str = "UPDATE coupon SET account_id = ? WHERE id = ? AND account_id IS NULL";

/// Writes an account into a free coupon that nobody else holds, all in one. Fails for an account that has a coupon of the
/// campaign already. Index: `coupon_campaign_account` for the free row, PRIMARY for the update.
pub const CLAIM_ONE: &str = "UPDATE coupon JOIN (\
                                 SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                 WHERE campaign_id = ? AND account_id IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED\
                             ) AS free USING (id) SET coupon.account_id = ?";

/// See [`free_coupons`].
pub const FREE_COUPONS: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                WHERE campaign_id = ? AND account_id IS NULL LIMIT ?";

/// See [`free_coupons`].
pub const FREE_COUPONS_AFTER: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                      WHERE campaign_id = ? AND account_id IS NULL AND id > ? LIMIT ?";

/// Up to `limit` coupons that are free in committed state, locked by someone or not, in order of their ids and behind the
/// one given: none without one given is the proof of sold out. Index: `coupon_campaign_account`, covering, and in order of
/// ids within its entries without an account. To MySQL the id is a filter there; what it passes over are entries that
/// are in flight, for those of issued coupons are gone.
#[must_use]
pub fn free_coupons(campaign: CampaignId, after: Option<CouponId>, limit: usize) -> String {
    let behind = after.map(|after| format!(" AND id > x'{}'", after.0.simple())).unwrap_or_default();
    format!(
        "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
         WHERE campaign_id = {campaign} AND account_id IS NULL{behind} LIMIT {limit}"
    )
}

/// See [`lock_free_coupons`].
pub const LOCK_FREE_COUPONS: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                     WHERE campaign_id = ? AND account_id IS NULL LIMIT ? FOR UPDATE SKIP LOCKED";

/// Up to `limit` free coupons that nobody else holds, locked for this transaction. None may mean that others hold them.
/// Index: `coupon_campaign_account`, covering; an ORDER BY here would lock every free row for the sort.
#[must_use]
pub fn lock_free_coupons(campaign: CampaignId, limit: usize) -> String {
    format!("{} FOR UPDATE SKIP LOCKED", free_coupons(campaign, None, limit))
}

fn list(values: impl Iterator<Item = u64>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_values_are_those_of_the_statements() {
        let coupon = CouponId(uuid::Uuid::from_u128(0xc0));
        let claim = ClaimKey { campaign_id: CampaignId(71), account_id: AccountId(72) };
        let without_values = |sql: String| {
            let id = format!("x'{}'", coupon.0.simple());
            ["(71,72)", &id, "71", "72", "73"].iter().fold(sql, |sql, value| sql.replace(value, "?"))
        };

        assert_eq!(without_values(coupons_of(&[claim])), COUPONS_OF);
        assert_eq!(without_values(issue(&[(coupon, AccountId(72))])), ISSUE);
        assert_eq!(without_values(free_coupons(CampaignId(71), None, 73)), FREE_COUPONS);
        assert_eq!(without_values(free_coupons(CampaignId(71), Some(coupon), 73)), FREE_COUPONS_AFTER);
        assert_eq!(without_values(lock_free_coupons(CampaignId(71), 73)), LOCK_FREE_COUPONS);
    }
}
