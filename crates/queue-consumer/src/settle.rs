//! Turns a batch of claims into outcomes: reserve, issue, look up the claims left, give back the ids not needed; repeat
//! until no claim is open; then record. [`crate::batch`] decides what follows from each answer.
//!
//! Most claims are the first of their account, so the conditional UPDATE comes first and tells whether all went
//! through. Invariants: an account's coupon is decided by that UPDATE and the unique key in MySQL, by nothing before
//! it; the lookup comes after anything that was proven about campaigns.

use std::collections::{BTreeMap, HashMap};

use coupon_core::mysql::{Mysql, coupons};
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::settings::Order;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{Claim, ClaimKey, CouponId, Error, InstanceId, Outcome, Result};
use mysql_async::Conn;

use crate::batch::{Batch, Settled};
use crate::reserve::Reservations;
use crate::steps;

/// A round leaves a claim open only if its id turned out to be taken; in exact order also if that of another claim was,
/// or if one was repeated. After this many rounds the list must be full of such ids, as when skiplock-api issues from
/// the same campaign: it is dropped, and refilled with ids that are free now.
pub const STALE_ROUNDS: usize = 2;

/// After this many rounds the batch is tried again after a pause.
const ROUNDS_MAX: usize = 16;

/// The instances of producer-api that published the claims of a batch, each with its claims.
pub type Publishers = BTreeMap<InstanceId, Vec<ClaimKey>>;

/// Settles claims.
pub struct Settler {
    /// The source of truth.
    pub mysql: Mysql,
    /// The free ids in Redis.
    pub reservations: Reservations,
    /// Where outcomes are recorded, unless nobody reads them there.
    pub outcomes: Option<Outcomes>,
    /// Whether a claim whose id turned out to be taken holds up those after it.
    pub order: Order,
}

impl Settler {
    /// Gives each of these claims its outcome, if its campaign exists; records the outcomes, pushes them to the
    /// instances that published the claims, and returns them. Idempotent: settling again gives the same outcomes.
    ///
    /// # Errors
    /// An error of a server; some of the claims may have been settled by then.
    pub async fn settle(&self, claims: &[Claim], publishers: &Publishers, timeline: &Timeline) -> Result<Settled> {
        let mut batch = Batch::new(claims);
        for round in 1..=ROUNDS_MAX {
            batch.prove_sold_out(self.reservations.sold_out(claims));
            let reserved = self.reserve(&mut batch, timeline).await?;
            let left = self.issue(&mut batch, reserved, timeline).await?;
            self.look_up(&mut batch, timeline).await?;
            self.give_back(&batch, &left).await;
            if batch.open().is_empty() {
                self.record(&batch, publishers, timeline).await;
                return Ok(batch.into_settled());
            }
            if round % STALE_ROUNDS == 0 {
                let campaigns = batch.open().iter().map(|claim| claim.campaign_id).collect();
                self.reservations.drop_lists(campaigns).await?;
            }
        }
        Err(Error::Exhausted { what: "finding ids of free coupons", tries: ROUNDS_MAX })
    }

    /// Reserves an id for each open claim, as far as there are any.
    async fn reserve(&self, batch: &mut Batch, timeline: &Timeline) -> Result<Vec<(ClaimKey, CouponId)>> {
        let wanted = batch.wanted();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let reserved = self.reservations.reserve(&wanted, timeline).await?;
        Ok(batch.assign(reserved))
    }

    /// Writes the accounts into the reserved rows. Unless all went through, all claims stay open and the reservations
    /// are returned: the lookup that follows finds the claims that did.
    async fn issue(
        &self,
        batch: &mut Batch,
        reserved: Vec<(ClaimKey, CouponId)>,
        timeline: &Timeline,
    ) -> Result<Vec<(ClaimKey, CouponId)>> {
        if reserved.is_empty() {
            return Ok(reserved);
        }
        let (rows, order) = (reserved.clone(), self.order);
        let persist = self.mysql.run(async move |mut conn: Conn| match order {
            Order::Relaxed => coupons::issue(&mut conn, &rows).await,
            Order::Exact => coupons::issue_in_order(&mut conn, &rows).await,
        });
        let step = match order {
            Order::Relaxed => &steps::PERSIST,
            Order::Exact => &steps::PERSIST_IN_ORDER,
        };
        if !timeline.step(step, reserved.len(), persist).await? {
            // Some ids were stale, some accounts had a coupon, or the server does not say.
            return Ok(reserved);
        }
        batch.issued(&reserved);
        Ok(Vec::new())
    }

    /// Looks up the coupons that the accounts of open claims hold.
    async fn look_up(&self, batch: &mut Batch, timeline: &Timeline) -> Result<()> {
        if batch.open().is_empty() {
            return Ok(());
        }
        let asked = batch.open().to_vec();
        let lookup = self.mysql.run(async move |mut conn: Conn| coupons::coupons_of(&mut conn, &asked).await);
        let held: HashMap<ClaimKey, CouponId> = timeline.step(&steps::LOOKUP, batch.open().len(), lookup).await?;
        batch.looked_up(&held);
        Ok(())
    }

    /// Puts back the ids that were not needed.
    async fn give_back(&self, batch: &Batch, reserved: &[(ClaimKey, CouponId)]) {
        let unused = batch.unused(reserved);
        if let Err(error) = self.reservations.give_back(&unused).await {
            tracing::debug!(%error, ids = unused.len(), "ids are left to the next refill");
        }
    }

    /// Records the outcomes in Redis, and pushes them. This only spares MySQL the lookups of waiting requests: if it
    /// fails, MySQL is asked.
    async fn record(&self, batch: &Batch, publishers: &Publishers, timeline: &Timeline) {
        let Some(recorded) = &self.outcomes else { return };
        let outcomes = &batch.settled().outcomes;
        let pushed: Vec<(InstanceId, Vec<(ClaimKey, Outcome)>)> = publishers
            .iter()
            .map(|(instance, claims)| {
                let outcome = |claim: &ClaimKey| Some((*claim, *outcomes.get(claim)?));
                (*instance, claims.iter().filter_map(outcome).collect())
            })
            .collect();
        let outcomes: Vec<(ClaimKey, Outcome)> = outcomes.iter().map(|(claim, outcome)| (*claim, *outcome)).collect();
        let record = recorded.write(&outcomes, &pushed);
        if let Err(error) = timeline.step(&steps::RECORD, outcomes.len(), record).await {
            tracing::debug!(%error, "cannot record outcomes in Redis");
        }
    }
}
