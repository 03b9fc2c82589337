//! Every statement of the hot paths as text, with the index it relies on. `tests/it/plans.rs` of `coupon-testkit`
//! checks the plans.
//!
//! A constant next to a statement is its text as traces show it, without values.
//!
//! Values are numbers and UUIDs only, written as literals: no text from a client ever gets into a statement. So one
//! round trip is enough for any number of rows, whereas each number of rows would need a prepared statement of its own.

use std::fmt::{Display, Write as _};

use crate::domain::{CampaignId, ClaimKey, CouponId};

/// Run on each new connection, and again after one is reset: everything that the statements rely on, whatever the
/// server's own defaults are.
pub const SESSION: [&str; 3] = [
    // The gap locks of the default level would make claimers wait for each other.
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    // A single statement is committed by itself; a COMMIT neither ends the connection nor begins the next transaction.
    // Values that do not fit are errors, as are numbers below zero. Instants are UTC. Duplicates are found in every
    // index. An UPDATE may join, and a SELECT returns all its rows. A row is locked for milliseconds, so a longer wait
    // for it means that its holder hangs.
    "SET SESSION autocommit = 1, completion_type = 0, \
         sql_mode = 'NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES', time_zone = '+00:00', unique_checks = 1, \
         sql_safe_updates = 0, sql_big_selects = 1, sql_select_limit = 18446744073709551615, \
         innodb_lock_wait_timeout = 5",
    "SET NAMES utf8mb4",
];

/// Hints with which a statement finds coupons by PRIMARY, and is refused if the key that limits an account to one
/// coupon is missing. These statements group nothing, so the second hint has no other effect.
macro_rules! by_primary_and_guarded {
    () => {
        "FORCE INDEX FOR JOIN (PRIMARY) FORCE INDEX FOR GROUP BY (coupon_campaign_account)"
    };
}

/// Reads what a service reads, but no row of it. Index: PRIMARY of both tables.
pub const READ_NOTHING: &str = concat!(
    "SELECT coupon.id, coupon.account_id, campaign.coupons FROM campaign JOIN coupon ",
    by_primary_and_guarded!(),
    " ON coupon.campaign_id = campaign.id WHERE campaign.id = 0 LIMIT 1"
);

/// Issues no coupon, because there is no campaign 0, and is refused by whatever would refuse [`issue`]: a replica, a
/// read-only server or session, a missing right or key, a statement-based binary log. Index: PRIMARY.
pub const ISSUE_NOTHING: &str = concat!(
    "UPDATE coupon ",
    by_primary_and_guarded!(),
    " SET account_id = 0 WHERE campaign_id = 0 AND id = x'' AND account_id IS NULL"
);

/// Whether plain reads are answered by a server that takes no writes. The variable is a number or a word, depending on
/// whether the server is MySQL or MariaDB.
pub const READS_ARE_OF_A_REPLICA: &str = "SELECT @@global.read_only NOT IN ('0', 'OFF')";

/// A campaign as its operator ordered it, read without the table `coupon`, so that an operator can pause it whatever is
/// wrong there. Index: PRIMARY.
pub const CAMPAIGN: &str = "SELECT id, name, opens_at, closes_at, coupons, paused FROM campaign WHERE id = ?";

/// The same for all campaigns, in order of their ids. Index: PRIMARY.
pub const CAMPAIGNS: &str = "SELECT id, name, opens_at, closes_at, coupons, paused FROM campaign ORDER BY id";

/// See [`campaigns_with_stock`].
pub const CAMPAIGNS_WITH_STOCK: &str = "SELECT id, name, opens_at, closes_at, coupons, paused, EXISTS (\
                                            SELECT 1 FROM coupon FORCE INDEX (coupon_campaign_account) \
                                            WHERE campaign_id = campaign.id AND account_id IS NULL\
                                        ) AS free \
                                        FROM campaign WHERE id IN (?)";

/// Campaigns with the number of their coupons and whether one is free in committed state, locked by someone or not, all
/// read at one moment. Index: PRIMARY of `campaign`, `coupon_campaign_account` (the first free entry, or none).
#[must_use]
pub fn campaigns_with_stock(campaigns: &[CampaignId]) -> String {
    fill(CAMPAIGNS_WITH_STOCK, &[&list(campaigns)])
}

/// See [`coupons_of`].
pub const COUPONS_OF: &str = "SELECT campaign_id, account_id, id FROM coupon FORCE INDEX (coupon_campaign_account) \
                              WHERE (campaign_id, account_id) IN (?)";

/// The coupons that these accounts hold. Index: `coupon_campaign_account`, a point read for each claim.
#[must_use]
pub fn coupons_of(claims: &[ClaimKey]) -> String {
    fill(COUPONS_OF, &[&list(claims.iter().map(|claim| format!("({},{})", claim.campaign_id, claim.account_id)))])
}

/// The accounts that hold a coupon of a campaign, in order, starting after one of them. Index:
/// `coupon_campaign_account`, covering.
pub const WINNERS: &str = "SELECT account_id FROM coupon FORCE INDEX (coupon_campaign_account) \
                           WHERE campaign_id = ? AND account_id > ? ORDER BY account_id LIMIT ?";

/// Gives a coupon of an account another account's number, or nobody's. Index: PRIMARY.
pub const FORGET: &str = "UPDATE coupon FORCE INDEX (PRIMARY) SET account_id = ? \
                          WHERE campaign_id = ? AND id = ? AND account_id = ?";

/// See [`issue`].
pub const ISSUE: &str = concat!(
    "UPDATE IGNORE (?) AS wanted STRAIGHT_JOIN coupon ",
    by_primary_and_guarded!(),
    " ON coupon.campaign_id = wanted.campaign_id AND coupon.id = wanted.id \
     SET coupon.account_id = wanted.account_id WHERE coupon.account_id IS NULL"
);

/// Writes accounts into coupons that are still free, and skips those that are not, as well as accounts that already
/// have a coupon of the campaign: this one statement is what makes an issue correct, whatever others do meanwhile.
/// Index: PRIMARY, a point read for each row. The join order and the index are forced, because the optimizer would scan
/// and lock all of a small table.
#[must_use]
pub fn issue(rows: &[(ClaimKey, CouponId)]) -> String {
    fill(ISSUE, &[&table(rows)])
}

/// See [`issue_all`].
pub const ISSUE_ALL: &str = concat!(
    "UPDATE (?) AS wanted STRAIGHT_JOIN coupon ",
    by_primary_and_guarded!(),
    " ON coupon.campaign_id = wanted.campaign_id AND coupon.id = wanted.id \
     SET coupon.account_id = IF(coupon.account_id IS NULL, wanted.account_id, \
                                coupon.account_id - coupon.account_id - 1)"
);

/// Like [`issue`], but one coupon that is taken, or one account that already has a coupon of the campaign, makes the whole
/// statement fail, and nothing is written: below zero there is no account, so the server refuses to compute one. Index:
/// PRIMARY, a point read for each row.
#[must_use]
pub fn issue_all(rows: &[(ClaimKey, CouponId)]) -> String {
    fill(ISSUE_ALL, &[&table(rows)])
}

/// See [`issue_skip_locked`].
pub const ISSUE_SKIP_LOCKED: &str = concat!(
    "UPDATE IGNORE (\
         SELECT coupon.campaign_id, coupon.id, wanted.account_id \
         FROM (?) AS wanted STRAIGHT_JOIN coupon FORCE INDEX (PRIMARY) \
         ON coupon.campaign_id = wanted.campaign_id AND coupon.id = wanted.id \
         WHERE coupon.account_id IS NULL LIMIT ? FOR UPDATE SKIP LOCKED\
     ) AS free STRAIGHT_JOIN coupon ",
    by_primary_and_guarded!(),
    " ON coupon.campaign_id = free.campaign_id AND coupon.id = free.id SET coupon.account_id = free.account_id"
);

/// Like [`issue`], but skips coupons that others have locked at this moment. The LIMIT makes the server look for the
/// free ones separately, and the join order makes it look for them first: the other way round it would wait for locks.
/// Index: PRIMARY, a point read for each row, both times.
#[must_use]
pub fn issue_skip_locked(rows: &[(ClaimKey, CouponId)]) -> String {
    fill(ISSUE_SKIP_LOCKED, &[&table(rows), &rows.len().to_string()])
}

/// The most rows in one statement: a server parses each as a SELECT of its own, and has only so much stack for that.
pub const ROWS_MAX: usize = 1_000;

/// Writes rows as a table to join. Its cost grows with the rows alone, whichever campaigns they belong to; a CASE and a
/// list of keys would compare each row with all others. MariaDB has no shorter form: see docs/PERFORMANCE.md.
///
/// Rows are locked in this order, so two statements with some rows in common must both have them in order of their
/// keys.
fn table(rows: &[(ClaimKey, CouponId)]) -> String {
    let mut table = String::with_capacity(rows.len() * 80);
    for (claim, coupon) in rows {
        let (campaign, id, account) = (claim.campaign_id, coupon.0.simple(), claim.account_id);
        let _ = if table.is_empty() {
            write!(table, "SELECT {campaign} AS campaign_id, x'{id}' AS id, {account} AS account_id")
        } else {
            write!(table, " UNION ALL SELECT {campaign}, x'{id}', {account}")
        };
    }
    table
}

/// Writes one account into one coupon, if it is still free. Fails for an account that already has a coupon of the
/// campaign. Index: PRIMARY.
pub const ISSUE_ONE: &str = concat!(
    "UPDATE coupon ",
    by_primary_and_guarded!(),
    " SET account_id = ? WHERE campaign_id = ? AND id = ? AND account_id IS NULL"
);

/// Writes an account into a free coupon that nobody else has locked, in one statement. Fails for an account that
/// already has a coupon of the campaign. Index: `coupon_campaign_account` for the free row, PRIMARY for the update.
pub const CLAIM_ONE: &str = "UPDATE coupon JOIN (\
                                 SELECT campaign_id, id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                 WHERE campaign_id = ? AND account_id IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED\
                             ) AS free USING (campaign_id, id) SET coupon.account_id = ?";

/// Which free coupons of a campaign are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// How many at most.
    pub count: usize,
    /// Only those after this one.
    pub after: Option<CouponId>,
}

impl Wanted {
    fn fill(&self, from_the_beginning: &str, after: &str) -> String {
        let (campaign, count) = (self.campaign_id.to_string(), self.count.to_string());
        match self.after {
            None => fill(from_the_beginning, &[&campaign, &count]),
            Some(coupon) => fill(after, &[&campaign, &format!("x'{}'", coupon.0.simple()), &count]),
        }
    }
}

/// See [`free_coupons`].
pub const FREE_COUPONS: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                WHERE campaign_id = ? AND account_id IS NULL LIMIT ?";

/// See [`free_coupons`].
pub const FREE_COUPONS_AFTER: &str = "SELECT id FROM coupon FORCE INDEX (PRIMARY) \
                                      WHERE campaign_id = ? AND id > ? AND account_id IS NULL LIMIT ?";

/// Coupons that are free in committed state, locked by someone or not, in order of their ids. An empty result, if no id
/// to start after was given, proves that the campaign is sold out.
///
/// Index: from the beginning, `coupon_campaign_account`, covering, whose entries without an account are in order of
/// ids; those of issued coupons are gone, unless an open snapshot keeps them. After an id, PRIMARY, where readers that
/// take coupons in order find the free ones side by side.
#[must_use]
pub fn free_coupons(wanted: Wanted) -> String {
    wanted.fill(FREE_COUPONS, FREE_COUPONS_AFTER)
}

/// See [`free_coupon_at`].
pub const FREE_COUPON_AT: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                  WHERE campaign_id = ? AND account_id IS NULL LIMIT 1 OFFSET ?";

/// The free coupon with this many others before it. Index: `coupon_campaign_account`, covering, which skips about
/// twenty thousand entries in a millisecond.
#[must_use]
pub fn free_coupon_at(campaign: CampaignId, offset: usize) -> String {
    fill(FREE_COUPON_AT, &[&campaign.to_string(), &offset.to_string()])
}

/// See [`lock_free_coupons`].
pub const LOCK_FREE_COUPONS: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                     WHERE campaign_id = ? AND account_id IS NULL LIMIT ? FOR UPDATE SKIP LOCKED";

/// See [`lock_free_coupons`].
pub const LOCK_FREE_COUPONS_AFTER: &str = "SELECT id FROM coupon FORCE INDEX (PRIMARY) \
                                           WHERE campaign_id = ? AND id > ? AND account_id IS NULL LIMIT ? \
                                           FOR UPDATE SKIP LOCKED";

/// Free coupons that nobody else has locked, locked for this transaction. An empty result may mean that others have
/// locked them. Index: the same as for [`free_coupons`]; an ORDER BY here would lock every free row for the sort.
#[must_use]
pub fn lock_free_coupons(wanted: Wanted) -> String {
    wanted.fill(LOCK_FREE_COUPONS, LOCK_FREE_COUPONS_AFTER)
}

/// See [`lock_first_coupon`].
pub const LOCK_FIRST_COUPON: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                                     WHERE campaign_id = ? AND account_id IS NULL LIMIT 1 FOR UPDATE";

/// The first free coupon, locked for this transaction; waits for others that have it locked. Index:
/// `coupon_campaign_account`.
#[must_use]
pub fn lock_first_coupon(campaign: CampaignId) -> String {
    fill(LOCK_FIRST_COUPON, &[&campaign.to_string()])
}

/// Writes an account into whichever free coupon comes first; waits for others that have it locked. Fails for an account
/// that already has a coupon of the campaign. Index: `coupon_campaign_account`.
pub const CLAIM_FIRST: &str = "UPDATE coupon FORCE INDEX (coupon_campaign_account) SET account_id = ? \
                               WHERE campaign_id = ? AND account_id IS NULL LIMIT 1";

/// Returns a statement with these values in place of its question marks.
fn fill(text: &str, values: &[&str]) -> String {
    let mut filled = String::with_capacity(text.len() + values.iter().map(|value| value.len()).sum::<usize>());
    let mut values = values.iter();
    for part in text.split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(part) => filled.extend([part, values.next().copied().unwrap_or_default()]),
            None => filled.push_str(part),
        }
    }
    filled
}

fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    let mut list = String::new();
    for value in values {
        let comma = if list.is_empty() { "" } else { "," };
        let _ = write!(list, "{comma}{value}");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_place_of_question_marks() {
        let after = Some(CouponId(uuid::Uuid::from_u128(0xc0)));
        let wanted = Wanted { campaign_id: CampaignId(71), count: 73, after };

        assert_eq!(
            free_coupons(wanted),
            "SELECT id FROM coupon FORCE INDEX (PRIMARY) WHERE campaign_id = 71 \
             AND id > x'000000000000000000000000000000c0' AND account_id IS NULL LIMIT 73"
        );
    }
}
