//! `select-update`: a transaction for each claim, as it is usually described. Four round trips.
//!
//! Invariant: the row that is updated is the one this transaction has locked, and the unique key refuses an account that
//! holds a coupon already.

use std::sync::Arc;

use coupon_core::mysql::{Mysql, coupons, sql};
use coupon_core::{ClaimKey, Class, CouponId, Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction, TxOpts};
use uuid::Uuid;

use crate::steps;
use crate::strategy::{Claimed, Group, without_rows};

/// Takes a coupon for an account.
pub async fn claim(mysql: &Mysql, claim: ClaimKey, group: &Arc<Group>) -> Result<Claimed> {
    let work = move |mut conn: Conn, group: Arc<Group>| async move { attempt(&mut conn, &group, claim).await };
    group.run_patiently(mysql, work).await
}

async fn attempt(conn: &mut Conn, group: &Group, claim: ClaimKey) -> Result<Claimed> {
    let mut transaction = group.step(&steps::BEGIN, conn.start_transaction(TxOpts::default())).await?;
    let Some(coupon) = group.step(&steps::LOCK, lock_one(&mut transaction, claim)).await? else {
        group.step(&steps::ROLLBACK, transaction.rollback()).await?;
        let told = without_rows(conn, group, claim.campaign_id, &[claim.account_id]).await?;
        return told.get(&claim.account_id).copied().ok_or(Error::Held);
    };
    match group.step(&steps::UPDATE_ONE, write(&mut transaction, claim, coupon)).await {
        Ok(()) => {
            group.step(&steps::COMMIT, transaction.commit()).await?;
            Ok(Claimed::Issued(coupon))
        }
        Err(error) if error.class() == Class::Duplicate => {
            group.step(&steps::ROLLBACK, transaction.rollback()).await?;
            // Nobody takes a coupon away again, so what refused the UPDATE is still there.
            let held = group.step(&steps::HELD, coupons::coupon_of(conn, claim)).await?;
            held.map(Claimed::Held).ok_or_else(|| Error::Broken(String::from("a duplicate without its row")))
        }
        Err(error) => Err(error),
    }
}

async fn lock_one(transaction: &mut Transaction<'_>, claim: ClaimKey) -> Result<Option<CouponId>> {
    let id: Option<Uuid> = transaction.query_first(sql::lock_free_coupons(claim.campaign_id, 1)).await?;
    Ok(id.map(CouponId))
}

async fn write(transaction: &mut Transaction<'_>, claim: ClaimKey, coupon: CouponId) -> Result<()> {
    transaction.exec_drop(sql::ISSUE_ONE, (claim.account_id.0, coupon.0)).await?;
    match transaction.affected_rows() {
        1 => Ok(()),
        rows => Err(Error::Broken(format!("{rows} rows changed where one was locked"))),
    }
}
