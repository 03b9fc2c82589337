//! What all strategies share: claims that go through MySQL together, their steps there, and what to answer when no row was
//! left for them.
//!
//! Invariant: "sold out" is said only after a plain read has found no free row, and before that answer the account's own
//! coupon is looked for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use coupon_core::mysql::{Mysql, campaigns, coupons};
use coupon_core::telemetry::metrics;
use coupon_core::telemetry::timeline::{Begun, Operation, Timeline};
use coupon_core::{CampaignId, ClaimKey, CouponId, Error, Outcome, Result};
use mysql_async::Conn;

use crate::steps;

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

/// Claims that go through MySQL together, and their steps there.
pub struct Group {
    /// How many claims there are in it.
    pub size: usize,
    /// When they were taken from the line.
    pub taken_at: Instant,
    /// What was done for all of them.
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
    /// Those of the work, or [`coupon_core::Error::Deadline`].
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

    /// Like [`Self::run`], but tries again for a while after the work has first lost against others: however long it had
    /// waited for a connection by then.
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
    /// Those of the step.
    pub async fn step<T>(
        &self,
        step: &'static Operation,
        work: impl Future<Output = Result<T, impl Into<Error>>>,
    ) -> Result<T> {
        self.timeline.step(step, self.size, async { work.await.map_err(Into::into) }).await
    }
}

/// What to answer claims for which no row was left. Those missing in the result must try again: rows are held by others,
/// who may let go. The order matters: a coupon issued between the two statements is found by the second.
///
/// # Errors
/// MySQL's.
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
/// MySQL's.
pub async fn without_row(conn: &mut Conn, group: &Group, claim: ClaimKey) -> Result<Claimed> {
    without_rows(conn, group, &[claim]).await?.remove(&claim).ok_or(Error::Held)
}

/// How long work that lost against others is done again.
const CONFLICTS_FOR: Duration = Duration::from_secs(3);

/// When a piece of work has first lost against others, if it has.
#[derive(Default)]
pub struct Lost(Option<Instant>);

impl Lost {
    /// Notes that it has lost, and says whether it may try again. A conflict may itself be five seconds of waiting for a
    /// lock.
    pub fn may_try_again(&mut self) -> bool {
        self.0.get_or_insert_with(Instant::now).elapsed() < CONFLICTS_FOR
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_conflicts_begins_with_the_first() {
        let mut waited_in_line = Lost::default();
        assert!(waited_in_line.may_try_again(), "whenever it came");
        assert!(waited_in_line.may_try_again());

        let mut lost_long_ago = Lost(Instant::now().checked_sub(CONFLICTS_FOR));
        assert!(!lost_long_ago.may_try_again());
    }
}
