//! `single-statement`: an UPDATE that skips locked rows by itself, then a read of the coupon it took. Two round trips.
//! `blind-update` does not skip locked rows; it is here for comparison.
//!
//! It is often said that an UPDATE in MySQL cannot skip locked rows. Joined to a derived table that skips them, it can:
//! the derived table has a LIMIT and so is materialised first, and its row stays locked until the statement commits.
//! Invariant: the row that is updated is the one that the statement has locked, and the unique key refuses an account
//! that holds a coupon already.

use std::sync::Arc;

use coupon_core::mysql::{Mysql, coupons, sql};
use coupon_core::{ClaimKey, Class, Error, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::group::{Claimed, Group, without_row};
use crate::steps;

/// How the statement treats rows that others hold.
#[derive(Clone, Copy, Debug)]
pub enum Locking {
    /// Skips them.
    Skip,
    /// Waits for the first one.
    Wait,
}

/// Takes a coupon for an account.
pub async fn claim(mysql: &Mysql, claim: ClaimKey, locking: Locking, group: &Arc<Group>) -> Result<Claimed> {
    let work = move |mut conn: Conn, group: Arc<Group>| async move { attempt(&mut conn, &group, claim, locking).await };
    group.run_patiently(mysql, work).await
}

/// One try. [`Error::Held`] means that others hold the free rows.
async fn attempt(conn: &mut Conn, group: &Group, claim: ClaimKey, locking: Locking) -> Result<Claimed> {
    match update(conn, group, claim, locking).await {
        Ok(true) => {
            let coupon = group.step(&steps::HELD, coupons::coupon_of(conn, claim)).await?;
            coupon.map(Claimed::Issued).ok_or_else(|| Error::Broken(String::from("an issued coupon was not found")))
        }
        Err(error) if error.class() != Class::Duplicate => Err(error),
        Ok(false) | Err(_) => without_row(conn, group, claim).await,
    }
}

/// Updates a free row, and returns whether there was one.
async fn update(conn: &mut Conn, group: &Group, claim: ClaimKey, locking: Locking) -> Result<bool> {
    let (campaign, account) = (claim.campaign_id.0, claim.account_id.0);
    match locking {
        Locking::Skip => group.step(&steps::CLAIM_ONE, conn.exec_drop(sql::CLAIM_ONE, (campaign, account))).await?,
        Locking::Wait => group.step(&steps::CLAIM_FIRST, conn.exec_drop(sql::CLAIM_FIRST, (account, campaign))).await?,
    }
    Ok(conn.affected_rows() == 1)
}
