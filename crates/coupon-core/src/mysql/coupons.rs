//! Reads and issues coupons: the statements of [`super::sql`] with typed parameters and results.
//!
//! Invariant: no statement here overwrites an account.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, ServerError};

use super::sql::{self, Wanted};
use crate::domain::{AccountId, CampaignId, ClaimKey, CouponId};
use crate::error::{Error, Result};

/// The coupons that these accounts hold; a claim without one is not in the map.
///
/// # Errors
/// Any error from MySQL.
pub async fn coupons_of<C: Queryable>(conn: &mut C, claims: &[ClaimKey]) -> Result<HashMap<ClaimKey, CouponId>> {
    if claims.is_empty() {
        return Ok(HashMap::new());
    }
    let mut found = HashMap::with_capacity(claims.len());
    let rows: Vec<(u64, u64, uuid::Uuid)> = conn.query(sql::coupons_of(claims)).await?;
    for (campaign, account, id) in rows {
        let key = ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
        found.insert(key, CouponId(id));
    }
    Ok(found)
}

/// The coupon that one account holds, if it holds one.
///
/// # Errors
/// Any error from MySQL.
pub async fn coupon_of(conn: &mut Conn, claim: ClaimKey) -> Result<Option<CouponId>> {
    Ok(coupons_of(conn, &[claim]).await?.remove(&claim))
}

/// Writes accounts into coupons that are free, and returns whether all were certainly written. If not, some coupons
/// were taken or some accounts already had one, or the server's count is not reliable, as in MariaDB: [`coupons_of`]
/// says which were written.
///
/// # Errors
/// Any error from MySQL.
pub async fn issue(conn: &mut Conn, rows: &[(ClaimKey, CouponId)]) -> Result<bool> {
    write_accounts(conn, rows, sql::issue).await
}

/// Like [`issue`], but no row is written unless those before it are: each statement writes all of its rows or none. Not all
/// were certainly written if a coupon was taken or an account already had one.
///
/// # Errors
/// Any other error from MySQL.
pub async fn issue_in_order(conn: &mut Conn, rows: &[(ClaimKey, CouponId)]) -> Result<bool> {
    match write_accounts(conn, rows, sql::issue_all).await {
        Err(Error::Mysql(mysql_async::Error::Server(refusal))) if is_taken(&refusal) => Ok(false),
        written => written,
    }
}

/// Whether this is how MySQL refuses [`sql::issue_all`]: the account has a coupon already (1062), or the coupon has an
/// account (1690, or 1264 if the number could be computed).
#[must_use]
pub fn is_taken(refusal: &ServerError) -> bool {
    match refusal.code {
        1062 => refusal.message.contains("coupon_campaign_account"),
        code => [1690, 1264].contains(&code),
    }
}

/// Like [`issue`], but skips coupons that others have locked at this moment.
///
/// # Errors
/// Any error from MySQL.
pub async fn issue_skip_locked(conn: &mut Conn, rows: &[(ClaimKey, CouponId)]) -> Result<bool> {
    write_accounts(conn, rows, sql::issue_skip_locked).await
}

/// Writes the rows of each statement in order of their keys: two consumers that were offered the same ids then lock them in
/// the same order, which avoids deadlocks.
async fn write_accounts(
    conn: &mut Conn,
    rows: &[(ClaimKey, CouponId)],
    statement: fn(&[(ClaimKey, CouponId)]) -> String,
) -> Result<bool> {
    // In MariaDB, whose version numbers begin at 10, an UPDATE of joined tables counts rows that IGNORE has skipped:
    // accounts that already hold a coupon.
    let counts_changes_only = conn.server_version() < (10, 0, 0);
    let mut all = true;
    for rows in rows.chunks(sql::ROWS_MAX) {
        let mut rows = rows.to_vec();
        rows.sort_unstable_by_key(|(claim, coupon)| (claim.campaign_id, *coupon));
        conn.query_drop(statement(&rows)).await?;
        all &= counts_changes_only && conn.affected_rows() == rows.len() as u64;
    }
    Ok(all)
}

/// Coupons that are free in committed state, in order of their ids. An empty result, if no id to start after was given,
/// proves that the campaign is sold out.
///
/// # Errors
/// Any error from MySQL.
pub async fn free_coupons(conn: &mut Conn, wanted: Wanted) -> Result<Vec<CouponId>> {
    let ids: Vec<uuid::Uuid> = conn.query(sql::free_coupons(wanted)).await?;
    Ok(ids.into_iter().map(CouponId).collect())
}

/// Coupons that are free and that nobody has locked at this moment, in order of their ids. Skipping the locked ones
/// takes locks until this read ends.
///
/// # Errors
/// Any error from MySQL.
pub async fn free_coupons_of_nobody(conn: &mut Conn, wanted: Wanted) -> Result<Vec<CouponId>> {
    let ids: Vec<uuid::Uuid> = conn.query(sql::lock_free_coupons(wanted)).await?;
    Ok(ids.into_iter().map(CouponId).collect())
}

/// The free coupon with this many others before it, if there is one, whether it is locked or not.
///
/// # Errors
/// Any error from MySQL.
pub async fn free_coupon_at(conn: &mut Conn, campaign_id: CampaignId, offset: usize) -> Result<Option<CouponId>> {
    let id: Option<uuid::Uuid> = conn.query_first(sql::free_coupon_at(campaign_id, offset)).await?;
    Ok(id.map(CouponId))
}
