//! `select-update`: a transaction for each claim, the textbook way. Four round trips. `scattered` does the same
//! starting at a random id, and `for-update` does it without SKIP LOCKED, for comparison.
//!
//! Invariant: the row that is updated is the one this transaction has locked, and the unique key refuses an account that
//! holds a coupon already.

use std::sync::Arc;

use coupon_core::mysql::sql::{self, Wanted};
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::{ClaimKey, Class, CouponId, Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction, TxOpts};
use uuid::Uuid;

use crate::group::{Claimed, Group, without_row};
use crate::steps;

/// Which free row a claim locks.
#[derive(Clone, Copy, Debug)]
pub enum RowSearch {
    /// The first that nobody else holds.
    First,
    /// The first that nobody else holds, starting at a random id; if there is none, the first of all.
    RandomStart,
    /// The first, waiting for the transaction that holds it.
    Blocking,
}

/// Takes a coupon for an account.
pub async fn claim(mysql: &Mysql, claim: ClaimKey, search: RowSearch, group: &Arc<Group>) -> Result<Claimed> {
    let work = move |mut conn: Conn, group: Arc<Group>| async move { attempt(&mut conn, &group, claim, search).await };
    group.run_patiently(mysql, work).await
}

async fn attempt(conn: &mut Conn, group: &Group, claim: ClaimKey, search: RowSearch) -> Result<Claimed> {
    let mut transaction = group.step(&steps::BEGIN, conn.start_transaction(TxOpts::default())).await?;
    let mut locked = lock_one(&mut transaction, group, claim, search).await?;
    if matches!((locked, search), (None, RowSearch::RandomStart)) {
        locked = lock_one(&mut transaction, group, claim, RowSearch::First).await?;
    }
    let Some(coupon) = locked else {
        group.step(&steps::ROLLBACK, transaction.rollback()).await?;
        return without_row(conn, group, claim).await;
    };
    match group.step(&steps::UPDATE_ONE, write(&mut transaction, claim, coupon)).await {
        Ok(()) => {
            group.step(&steps::COMMIT, transaction.commit()).await?;
            Ok(Claimed::Issued(coupon))
        }
        Err(error) if error.class() == Class::Duplicate => {
            group.step(&steps::ROLLBACK, transaction.rollback()).await?;
            // Coupons are never taken away again, so the row that refused the UPDATE is still there.
            let held = group.step(&steps::HELD, coupons::coupon_of(conn, claim)).await?;
            held.map(Claimed::Held).ok_or_else(|| Error::Broken(String::from("a duplicate key without a matching row")))
        }
        Err(error) => Err(error),
    }
}

async fn lock_one(
    transaction: &mut Transaction<'_>,
    group: &Group,
    claim: ClaimKey,
    search: RowSearch,
) -> Result<Option<CouponId>> {
    let wanted = |after| sql::lock_free_coupons(Wanted { campaign_id: claim.campaign_id, count: 1, after });
    let (step, statement) = match search {
        RowSearch::First => (&steps::LOCK, wanted(None)),
        RowSearch::RandomStart => (&steps::LOCK_AFTER, wanted(Some(CouponId::random()))),
        RowSearch::Blocking => (&steps::LOCK_FIRST, sql::lock_first_coupon(claim.campaign_id)),
    };
    let id: Option<Uuid> = group.step(step, transaction.query_first(statement)).await?;
    Ok(id.map(CouponId))
}

async fn write(transaction: &mut Transaction<'_>, claim: ClaimKey, coupon: CouponId) -> Result<()> {
    transaction.exec_drop(sql::ISSUE_ONE, (claim.account_id.0, claim.campaign_id.0, coupon.0)).await?;
    match transaction.affected_rows() {
        1 => Ok(()),
        rows => Err(Error::Broken(format!("{rows} rows changed where one was locked"))),
    }
}
