//! The part that all strategies share: claims that go through MySQL together, their steps there, and the answer when no
//! row was left for them.
//!
//! Invariant: "sold out" is answered only after a plain read has found no free row, and only after looking for the
//! account's own coupon.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use backon::Retryable;
use coupon_core::mysql::conflicts::{Lost, pauses_after_conflicts};
use coupon_core::mysql::{Mysql, campaigns, coupons};
use coupon_core::telemetry::metrics;
use coupon_core::telemetry::timeline::{Begun, Operation, Timeline};
use coupon_core::{CampaignId, ClaimKey, CouponId, Error, Outcome, Result};
use mysql_async::Conn;

use crate::steps;

/// The result of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claimed {
    /// A coupon, now.
    Issued(CouponId),
    /// The account held this one already.
    Held(CouponId),
    /// No coupon is free.
    SoldOut,
}

/// Claims that go through MySQL together, and their steps there.
pub struct Group {
    /// The number of claims in the group.
    pub size: usize,
    /// When they were taken from the line.
    pub taken_at: Instant,
    /// The steps taken for all of them.
    pub timeline: Timeline,
}

impl Group {
    /// Creates a group of this many claims, taken now.
    pub fn new(size: usize, is_sampled: bool) -> Arc<Self> {
        metrics::group(size);
        let timeline = if is_sampled { Timeline::recorded() } else { Timeline::default() };
        Arc::new(Self { size, taken_at: Instant::now(), timeline })
    }

    /// Does a piece of work in MySQL for the group.
    ///
    /// # Errors
    /// The errors of the work, or [`coupon_core::Error::Deadline`].
    pub async fn run<T, F>(
        self: &Arc<Self>,
        mysql: &Mysql,
        work: impl FnOnce(Conn, Arc<Self>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let this = Arc::clone(self);
        let asked = Begun::now(&steps::CONNECTION, self.size);
        mysql
            .run(move |conn: Conn| {
                this.timeline.end(asked, None);
                work(conn, this)
            })
            .await
    }

    /// Like [`Self::run`], but tries again for a while, counted from when the work first lost against others, however
    /// long it waited for a connection before that.
    ///
    /// # Errors
    /// Like [`Self::run`].
    pub async fn run_patiently<T, F>(
        self: &Arc<Self>,
        mysql: &Mysql,
        work: impl Fn(Conn, Arc<Self>) -> F + Clone + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let mut lost = Lost::default();
        (|| self.run(mysql, work.clone()))
            .retry(pauses_after_conflicts())
            .when(|error| error.is_conflict() && lost.may_try_again())
            .notify(|error, _| metrics::retry(error.class().name()))
            .await
    }

    /// Does a step for the whole group.
    ///
    /// # Errors
    /// The errors of the step.
    pub async fn step<T>(
        &self,
        step: &'static Operation,
        work: impl Future<Output = Result<T, impl Into<Error>>>,
    ) -> Result<T> {
        self.timeline.step(step, self.size, async { work.await.map_err(Into::into) }).await
    }
}

/// The answers for claims that found no row. Those missing from the result must try again: others hold rows and may
/// release them. The order of the two statements matters: a coupon issued between them is found by the second.
///
/// # Errors
/// An error of MySQL.
pub async fn without_rows(conn: &mut Conn, group: &Group, claims: &[ClaimKey]) -> Result<HashMap<ClaimKey, Claimed>> {
    let ids: BTreeSet<CampaignId> = claims.iter().map(|claim| claim.campaign_id).collect();
    let ids: Vec<CampaignId> = ids.into_iter().collect();
    let stocks = group.step(&steps::FREE, campaigns::with_stock(conn, &ids)).await?;
    let free: HashSet<CampaignId> = stocks.iter().filter(|stock| stock.free).map(|stock| stock.campaign.id).collect();
    let held = group.step(&steps::HELD, coupons::coupons_of(conn, claims)).await?;
    let answer = |claim: &ClaimKey| match Outcome::of(!free.contains(&claim.campaign_id), held.get(claim).copied()) {
        Outcome::Issued { coupon_id } => Some((*claim, Claimed::Held(coupon_id))),
        Outcome::SoldOut => Some((*claim, Claimed::SoldOut)),
        Outcome::Pending => None,
    };
    Ok(claims.iter().filter_map(answer).collect())
}

/// Like [`without_rows`], but for one claim; [`Error::Held`] when it must try again.
///
/// # Errors
/// An error of MySQL.
pub async fn without_row(conn: &mut Conn, group: &Group, claim: ClaimKey) -> Result<Claimed> {
    without_rows(conn, group, &[claim]).await?.remove(&claim).ok_or(Error::Held)
}
