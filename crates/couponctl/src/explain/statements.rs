//! The statements of both ways, in the order of a claim, and the statements of the baselines to compare them with.

use coupon_core::mysql::sql::{self, Wanted};
use coupon_core::{AccountId, ClaimKey, CouponId};
use serde::Serialize;

/// A statement with values.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    /// The way and the strategy that run it.
    pub way: &'static str,
    pub name: &'static str,
    /// The problem it solves, and how.
    pub solves: &'static str,
    /// Its text, without values.
    pub text: &'static str,
    /// The text with values, for the first claimer and for a second one.
    #[serde(skip)]
    pub of: [String; 2],
    /// Whether it locks rows.
    pub locks_rows: bool,
}

/// The values in the statements.
pub struct Values {
    pub wanted: Wanted,
    pub free: Vec<CouponId>,
}

impl Values {
    pub fn statements(&self) -> Vec<Statement> {
        let Wanted { campaign_id, .. } = self.wanted;
        let one = Wanted { count: 1, ..self.wanted };
        let rows = [0, 1].map(|claimer| self.rows(claimer));
        let claims = rows.each_ref().map(|rows| rows.iter().map(|(claim, _)| *claim).collect::<Vec<_>>());
        let accounts = rows.each_ref().map(|rows| rows.first().map_or(0, |(claim, _)| claim.account_id.0));
        let read = |name, text, solves, statement: String| Statement {
            way: "both",
            name,
            solves,
            text,
            of: [statement.clone(), statement],
            locks_rows: false,
        };
        let write = |way, name, text, solves, of| Statement { way, name, solves, text, of, locks_rows: true };
        let lock =
            |way, name, text, solves, statement: String| write(way, name, text, solves, [statement.clone(), statement]);
        let one_account = |text: &str, order: fn(u64, u64) -> [u64; 2]| {
            accounts.map(|account| {
                let with_value = |text: String, value: u64| text.replacen('?', &value.to_string(), 1);
                order(account, campaign_id.0).into_iter().fold(text.to_owned(), with_value)
            })
        };
        vec![
            read(
                "campaigns with stock",
                sql::CAMPAIGNS_WITH_STOCK,
                "sold out is said of committed rows, locked or not, never of an empty SKIP LOCKED",
                sql::campaigns_with_stock(&[campaign_id]),
            ),
            read(
                "free coupons",
                sql::FREE_COUPONS,
                "a refill reads ids that are free; that one is free no longer is found when it is issued",
                sql::free_coupons(self.wanted),
            ),
            write(
                "queue",
                "issue",
                sql::ISSUE,
                "no coupon twice: only a row without an account is written (record lock, account_id IS NULL); nobody two: the \
                 unique key, by which IGNORE skips an account that has one",
                rows.each_ref().map(|rows| sql::issue(rows)),
            ),
            write(
                "queue, exact order",
                "issue all or none",
                sql::ISSUE_ALL,
                "nobody later is served first: if one coupon is taken or one account has one, the server refuses the whole \
                 statement",
                rows.each_ref().map(|rows| sql::issue_all(rows)),
            ),
            read(
                "coupons of accounts",
                sql::COUPONS_OF,
                "an outcome is what the row says, not what the UPDATE meant to do",
                claims.first().map_or_else(String::new, |claims| sql::coupons_of(claims)),
            ),
            write(
                "skiplock, coalesced",
                "issue, skip locked",
                sql::ISSUE_SKIP_LOCKED,
                "one UPDATE that locks and skips at once, by a derived table FOR UPDATE SKIP LOCKED; the guards are those of \
                 issue",
                rows.each_ref().map(|rows| sql::issue_skip_locked(rows)),
            ),
            lock(
                "skiplock, select-update",
                "lock free coupons",
                sql::LOCK_FREE_COUPONS,
                "two claimers are given different rows: each locks what it reads, and skips what is locked",
                sql::lock_free_coupons(one),
            ),
            write(
                "skiplock, single-statement",
                "claim one",
                sql::CLAIM_ONE,
                "the same in one statement",
                one_account(sql::CLAIM_ONE, |account, campaign| [campaign, account]),
            ),
            lock(
                "baseline, for-update",
                "lock the first coupon",
                sql::LOCK_FIRST_COUPON,
                "right as well, but everybody waits for the first row",
                sql::lock_first_coupon(campaign_id),
            ),
            write(
                "baseline, blind-update",
                "claim the first",
                sql::CLAIM_FIRST,
                "right as well, but everybody waits for the first row",
                one_account(sql::CLAIM_FIRST, |account, campaign| [account, campaign]),
            ),
        ]
    }

    /// Coupons, paired with account numbers that nobody has. The two claimers have different accounts but want the same
    /// coupons.
    fn rows(&self, claimer: u64) -> Vec<(ClaimKey, CouponId)> {
        let accounts = (0..).map(|n| AccountId(u64::MAX - 2 * n - claimer));
        let claims = accounts.map(|account_id| ClaimKey { campaign_id: self.wanted.campaign_id, account_id });
        claims.zip(self.free.iter().copied()).collect()
    }
}
