//! `single-statement`: an UPDATE that skips locked rows by itself, and a look at what it got. Two round trips.
//!
//! It is often said that an UPDATE in MySQL cannot skip locked rows. Joined to a derived table that does, it can: the
//! derived table has a LIMIT and so is materialised first, its row stays locked until the statement's commit.
//! Invariant: the row that is updated is the one that the statement has locked, and the unique key refuses an account that
//! holds a coupon already.

use std::sync::Arc;

use coupon_core::mysql::{Mysql, coupons, sql};
use coupon_core::{ClaimKey, Class, Error, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::steps;
use crate::strategy::{Claimed, Group, without_rows};

/// Takes a coupon for an account.
pub async fn claim(mysql: &Mysql, claim: ClaimKey, group: &Arc<Group>) -> Result<Claimed> {
    let work = move |mut conn: Conn, group: Arc<Group>| async move { attempt(&mut conn, &group, claim).await };
    group.run_patiently(mysql, work).await
}

/// One try. [`Error::Held`] means that others hold the free rows.
///
/// # Errors
/// MySQL's.
pub async fn attempt(conn: &mut Conn, group: &Group, claim: ClaimKey) -> Result<Claimed> {
    let update = conn.exec_drop(sql::CLAIM_ONE, (claim.campaign_id.0, claim.account_id.0));
    let is_issued = match group.step(&steps::CLAIM_ONE, update).await {
        Ok(()) => conn.affected_rows() == 1,
        Err(error) if error.class() == Class::Duplicate => false,
        Err(error) => return Err(error),
    };
    if is_issued {
        let coupon = group.step(&steps::HELD, coupons::coupon_of(conn, claim)).await?;
        return coupon.map(Claimed::Issued).ok_or_else(|| Error::Broken(String::from("an issued coupon is not there")));
    }
    let told = without_rows(conn, group, claim.campaign_id, &[claim.account_id]).await?;
    told.get(&claim.account_id).copied().ok_or(Error::Held)
}
