//! The ways to take a row, chosen by a setting so that they can be compared, and what they have in common.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use clap::ValueEnum;
use coupon_core::mysql::{Mysql, campaigns, coupons};
use coupon_core::telemetry::attribute::{CAMPAIGN_ID, GROUP_SIZE, GROUP_WAIT, STRATEGY};
use coupon_core::telemetry::timeline::{Begun, Operation, Timeline};
use coupon_core::telemetry::{metrics, span};
use coupon_core::{CampaignId, ClaimKey, CouponId, Error, Result};
use mysql_async::Conn;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanBuilder;

use crate::coalesced::Groups;
use crate::settings::Settings;
use crate::{select_update, single_statement, steps};

/// How a claim finds its coupon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum StrategyName {
    /// A transaction for each claim: SELECT … LIMIT 1 FOR UPDATE SKIP LOCKED, UPDATE, COMMIT.
    SelectUpdate,
    /// A statement for each claim: UPDATE … JOIN (SELECT … LIMIT 1 FOR UPDATE SKIP LOCKED).
    SingleStatement,
    /// As select-update, from a random id on.
    Scattered,
    /// Claims that wait at the same moment share one statement.
    Coalesced,
    /// As select-update, without SKIP LOCKED: for comparison only.
    ForUpdate,
    /// A statement for each claim, without SKIP LOCKED: for comparison only.
    BlindUpdate,
}

/// Where a claim looks for its row.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// From the beginning, passing over rows that others hold.
    FromTheBeginning,
    /// The same from a random place on, and then from the beginning.
    FromAnyPlace,
    /// From the beginning, waiting for whoever holds the first row.
    Waiting,
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
pub struct Strategy {
    name: StrategyName,
    mysql: Mysql,
    how: How,
}

#[derive(Clone)]
enum How {
    InTransaction(Look),
    InOneStatement(Look),
    Together(Groups),
}

impl Strategy {
    /// As the settings want it, on the current runtime.
    pub fn start(settings: &Settings, mysql: &Mysql) -> Self {
        let groups = || Groups::start(mysql, usize::from(settings.groups), usize::from(settings.group_max));
        let how = match settings.strategy {
            StrategyName::SelectUpdate => How::InTransaction(Look::FromTheBeginning),
            StrategyName::Scattered => How::InTransaction(Look::FromAnyPlace),
            StrategyName::ForUpdate => How::InTransaction(Look::Waiting),
            StrategyName::SingleStatement => How::InOneStatement(Look::FromTheBeginning),
            StrategyName::BlindUpdate => How::InOneStatement(Look::Waiting),
            StrategyName::Coalesced => How::Together(groups()),
        };
        Self { name: settings.strategy, mysql: mysql.clone(), how }
    }

    /// Takes a coupon for an account.
    ///
    /// # Errors
    /// MySQL's, or too many claims wait already.
    pub async fn claim(&self, claim: ClaimKey) -> Result<Claimed> {
        let _in_flight = metrics::InFlight::claims(1);
        let context = span::start_child(|| self.span(claim));
        let arrived_at = Instant::now();
        let is_recorded = span::is_recorded(&context);
        let alone = || Group::new(1, is_recorded);
        let (claimed, group) = match &self.how {
            How::Together(groups) => groups.claim(claim, is_recorded).await,
            How::InTransaction(look) => {
                let group = alone();
                (select_update::claim(&self.mysql, claim, *look, &group).await, Some(group))
            }
            How::InOneStatement(look) => {
                let group = alone();
                (single_statement::claim(&self.mysql, claim, *look, &group).await, Some(group))
            }
        };
        if let Some(group) = group.filter(|_| is_recorded) {
            span::note(&context, GROUP_SIZE, span::count(group.size));
            span::note(&context, GROUP_WAIT, group.taken_at.duration_since(arrived_at).as_secs_f64());
            group.timeline.draw(&context);
        }
        span::end(&context, &claimed);
        claimed
    }

    fn span(&self, claim: ClaimKey) -> SpanBuilder {
        let name = self.name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        SpanBuilder::from_name("claim")
            .with_attributes([KeyValue::new(STRATEGY, name), KeyValue::new(CAMPAIGN_ID, claim.campaign_id)])
    }
}

/// Claims that go through MySQL together, and their steps there.
pub struct Group {
    size: usize,
    taken_at: Instant,
    /// What was done for all of them.
    pub timeline: Timeline,
}

impl Group {
    /// Of this many claims, taken just now.
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

    /// As [`Self::run`], and again for a while when the work loses against others.
    ///
    /// # Errors
    /// As of [`Self::run`].
    pub async fn run_patiently<T, F>(
        self: &Arc<Self>,
        mysql: &Mysql,
        work: impl Fn(Conn, Arc<Self>) -> F + Clone + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let began = Instant::now();
        (|| self.run(mysql, work.clone()))
            .retry(pauses_after_conflicts())
            .when(|error| error.is_conflict() && began.elapsed() < CONFLICTS_FOR)
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

/// What to say to claims for which no row was left. Those missing in the answer must try again: rows are held by others,
/// who may let go. In this order: a coupon issued between the two statements is found by the second.
///
/// # Errors
/// MySQL's.
pub async fn without_rows(conn: &mut Conn, group: &Group, claims: &[ClaimKey]) -> Result<HashMap<ClaimKey, Claimed>> {
    let ids: BTreeSet<CampaignId> = claims.iter().map(|claim| claim.campaign_id).collect();
    let ids: Vec<CampaignId> = ids.into_iter().collect();
    let stocks = group.step(&steps::FREE, campaigns::with_stock(conn, &ids)).await?;
    let free: HashSet<CampaignId> = stocks.iter().filter(|stock| stock.free).map(|stock| stock.campaign.id).collect();
    let held = group.step(&steps::HELD, coupons::coupons_of(conn, claims)).await?;
    let told = |claim: &ClaimKey| match held.get(claim) {
        Some(&coupon) => Some((*claim, Claimed::Held(coupon))),
        None if free.contains(&claim.campaign_id) => None,
        None => Some((*claim, Claimed::SoldOut)),
    };
    Ok(claims.iter().filter_map(told).collect())
}

/// As [`without_rows`], for one claim; [`Error::Held`] when it must try again.
///
/// # Errors
/// MySQL's.
pub async fn without_row(conn: &mut Conn, group: &Group, claim: ClaimKey) -> Result<Claimed> {
    without_rows(conn, group, &[claim]).await?.remove(&claim).ok_or(Error::Held)
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
