//! The ways to take a row, chosen by a setting so that they can be compared, and what they have in common.

use std::collections::HashMap;
use std::time::Duration;

use backon::ExponentialBuilder;
use clap::ValueEnum;
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId, Result};
use mysql_async::Conn;

use crate::settings::Settings;
use crate::{coalesced, select_update};

/// How a claim finds its coupon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum StrategyName {
    /// A transaction for each claim: SELECT … LIMIT 1 FOR UPDATE SKIP LOCKED, UPDATE, COMMIT.
    SelectUpdate,
    /// Claims that wait at the same moment share one transaction.
    Coalesced,
}

/// What a claim got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claimed {
    /// A coupon, now.
    Issued(CouponId),
    /// The account held this one already.
    Held(CouponId),
    /// No coupon is free.
    SoldOut,
}

/// A strategy at work. Cheap to clone.
#[derive(Clone)]
pub enum Strategy {
    /// See [`select_update`].
    SelectUpdate(Mysql),
    /// See [`coalesced`].
    Coalesced(coalesced::Groups),
}

impl Strategy {
    /// As the settings want it, on the current runtime.
    pub fn start(settings: &Settings, mysql: &Mysql) -> Self {
        match settings.strategy {
            StrategyName::SelectUpdate => Self::SelectUpdate(mysql.clone()),
            StrategyName::Coalesced => Self::Coalesced(coalesced::Groups::start(
                mysql,
                usize::from(settings.groups),
                usize::from(settings.group_max),
            )),
        }
    }

    /// Takes a coupon for an account.
    ///
    /// # Errors
    /// MySQL's, or too many claims wait already.
    pub async fn claim(&self, claim: ClaimKey) -> Result<Claimed> {
        match self {
            Self::SelectUpdate(mysql) => select_update::claim(mysql, claim).await,
            Self::Coalesced(groups) => groups.claim(claim).await,
        }
    }
}

/// What to say to accounts for which SKIP LOCKED left no row. Those missing in the answer must try again: rows are held by
/// others, who may let go. In this order: a coupon issued between the two statements is found by the second.
///
/// # Errors
/// MySQL's.
pub async fn without_rows(
    conn: &mut Conn,
    campaign_id: CampaignId,
    accounts: &[AccountId],
) -> Result<HashMap<AccountId, Claimed>> {
    let is_one_free = coupons::is_one_free(conn, campaign_id).await?;
    let claims: Vec<ClaimKey> = accounts.iter().map(|&account_id| ClaimKey { campaign_id, account_id }).collect();
    let held = coupons::coupons_of(conn, &claims).await?;
    let told = |claim: &ClaimKey| match held.get(claim) {
        Some(&coupon) => Some((claim.account_id, Claimed::Held(coupon))),
        None if is_one_free => None,
        None => Some((claim.account_id, Claimed::SoldOut)),
    };
    Ok(claims.iter().filter_map(told).collect())
}

/// How long work that lost against others is done again.
pub const CONFLICTS_FOR: Duration = Duration::from_secs(3);

/// Pauses before work that lost against others is done again: as a deadlock's victim, or with every free row held. With
/// jitter, so that the losers don't meet again.
pub fn pauses_after_conflicts() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(50))
        .with_total_delay(Some(CONFLICTS_FOR))
        .without_max_times()
}
