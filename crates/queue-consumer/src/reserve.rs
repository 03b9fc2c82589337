//! Reserves coupons: pops their ids from a list in Redis, so that consumers don't compete for the same rows in MySQL.
//!
//! Invariant: a reservation is a suggestion. A popped id may be taken already (the UPDATE refuses it) and an id lost
//! with its consumer is lost only from Redis (its row is still free, and the next refill finds it).

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::redis::Redis;
use coupon_core::redis::keys;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{CampaignId, Claim, CouponId, Error, Installation, Result, clock};
use deadpool_redis::redis;
use uuid::Uuid;

use crate::refill::{Refill, Refilled};
use crate::steps;

/// How long a proof of "sold out" stays valid for claims that were accepted before it.
const SOLD_OUT_FOR: Duration = Duration::from_millis(500);

/// The most refills for one reservation: other consumers may pop a whole refill before this one gets to it.
const REFILLS_MAX: usize = 16;

/// Campaigns are numbered from 1.
const NO_CAMPAIGN: CampaignId = CampaignId(0);

/// The result of a reservation.
pub struct Reserved {
    /// Ids for each campaign: as many as wanted, or fewer for the campaigns below.
    pub ids: HashMap<CampaignId, Vec<CouponId>>,
    /// Campaigns proven to be sold out.
    pub sold_out: Vec<CampaignId>,
    /// Campaigns that do not exist in MySQL.
    pub unknown: Vec<CampaignId>,
}

/// The lists of ids that wait in Redis. Cheap to clone.
#[derive(Clone)]
pub struct Reservations {
    redis: Redis,
    installation: Installation,
    refill: Arc<Refill>,
    sold_out: Arc<Mutex<HashMap<CampaignId, Proof>>>,
}

/// Proof that no coupon of a campaign was free.
#[derive(Clone, Copy)]
struct Proof {
    since: Instant,
    /// The same instant on the clock that claims are stamped with, in milliseconds since the Unix epoch.
    at_ms: u64,
}

impl Proof {
    fn now() -> Self {
        Self { since: Instant::now(), at_ms: clock::now_ms() }
    }
}

impl Reservations {
    /// Creates reservations that share this connection.
    #[must_use]
    pub fn new(redis: Redis, installation: Installation, refill: Refill) -> Self {
        Self { redis, installation, refill: Arc::new(refill), sold_out: Arc::default() }
    }

    /// Whether ids can be pushed to a list and popped. Tries it, with a campaign that never exists.
    ///
    /// # Errors
    /// The reason why they cannot.
    pub async fn can_reserve(&self) -> Result<()> {
        let list = keys::free_coupons(&self.installation, NO_CAMPAIGN);
        let mut check = self.refill.check(NO_CAMPAIGN);
        check.lpush_exists(&list, "").ignore().lpop(&list, NonZeroUsize::new(1)).ignore().unlink(&list).ignore();
        Ok(check.query_async(&mut self.redis.clone()).await?)
    }

    /// Pops ids: as many as wanted for each campaign, or fewer for those that are sold out or do not exist.
    ///
    /// # Errors
    /// An error of Redis or MySQL.
    pub async fn reserve(&self, wanted: &[(CampaignId, usize)], timeline: &Timeline) -> Result<Reserved> {
        let popped = self.pop(wanted, timeline).await?;
        let mut ids: HashMap<CampaignId, Vec<CouponId>> = HashMap::new();
        let (mut sold_out, mut unknown) = (Vec::new(), Vec::new());
        for &(campaign, wanted) in wanted {
            let ids = ids.entry(campaign).or_default();
            take_new(ids, popped.get(&campaign).map_or(&[], Vec::as_slice));
            match self.refill_until(campaign, wanted, ids, timeline).await? {
                Refilled::NotEmpty => {}
                Refilled::SoldOut => sold_out.push(campaign),
                Refilled::Unknown => unknown.push(campaign),
            }
        }
        Ok(Reserved { ids, sold_out, unknown })
    }

    /// Puts back ids that were reserved and not used; they are popped next.
    ///
    /// # Errors
    /// An error of Redis.
    pub async fn give_back(&self, unused: &[(CampaignId, CouponId)]) -> Result<()> {
        if unused.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (campaign, id) in unused {
            // Only onto an existing list, because a refill fills only empty lists.
            pipeline
                .lpush_exists(keys::free_coupons(&self.installation, *campaign), id.0.as_bytes().as_slice())
                .ignore();
        }
        Ok(pipeline.query_async(&mut self.redis.clone()).await?)
    }

    /// Drops the lists of these campaigns. The next refill finds the ids among them that are free.
    ///
    /// # Errors
    /// An error of Redis.
    pub async fn drop_lists(&self, campaigns: HashSet<CampaignId>) -> Result<()> {
        let mut pipeline = redis::pipe();
        for campaign in campaigns {
            pipeline.unlink(keys::free_coupons(&self.installation, campaign)).ignore();
        }
        Ok(pipeline.query_async(&mut self.redis.clone()).await?)
    }

    /// The campaigns of these claims that were proven to be sold out a moment ago, and after each of these claims was
    /// accepted. The proof says nothing about a claim accepted since then: there may have been a restock in between.
    #[must_use]
    pub fn sold_out(&self, claims: &[Claim]) -> HashSet<CampaignId> {
        let mut proofs = self.sold_out.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.retain(|_, proof| proof.since.elapsed() < SOLD_OUT_FOR);
        // This is nearly always the case.
        if proofs.is_empty() {
            return HashSet::new();
        }
        proven_for(claims, |campaign| proofs.get(&campaign).map(|proof| proof.at_ms))
    }

    async fn refill_until(
        &self,
        campaign: CampaignId,
        wanted: usize,
        ids: &mut Vec<CouponId>,
        timeline: &Timeline,
    ) -> Result<Refilled> {
        for _ in 0..REFILLS_MAX {
            let missing = wanted.saturating_sub(ids.len());
            if missing == 0 {
                return Ok(Refilled::NotEmpty);
            }
            // Taken before the read that may prove it.
            let proof = Proof::now();
            match self.refill.refill(campaign, timeline).await? {
                Refilled::NotEmpty => {
                    let popped =
                        self.pop(&[(campaign, missing)], timeline).await?.remove(&campaign).unwrap_or_default();
                    if !take_new(ids, &popped) {
                        return Ok(Refilled::NotEmpty);
                    }
                }
                Refilled::SoldOut => {
                    self.sold_out.lock().unwrap_or_else(PoisonError::into_inner).insert(campaign, proof);
                    return Ok(Refilled::SoldOut);
                }
                Refilled::Unknown => return Ok(Refilled::Unknown),
            }
        }
        if ids.is_empty() {
            Err(Error::Exhausted { what: "popping ids after a refill", tries: REFILLS_MAX })
        } else {
            Ok(Refilled::NotEmpty)
        }
    }

    /// Pops for all campaigns in one round trip.
    async fn pop(
        &self,
        wanted: &[(CampaignId, usize)],
        timeline: &Timeline,
    ) -> Result<HashMap<CampaignId, Vec<CouponId>>> {
        let mut pipeline = redis::pipe();
        for (campaign, wanted) in wanted {
            pipeline.lpop(keys::free_coupons(&self.installation, *campaign), NonZeroUsize::new(*wanted));
        }
        let ids = wanted.iter().map(|(_, wanted)| wanted).sum();
        let pop = async { Ok(pipeline.query_async(&mut self.redis.clone()).await?) };
        let popped: Vec<Option<Vec<Vec<u8>>>> = timeline.step(&steps::RESERVE, ids, pop).await?;
        Ok(wanted.iter().zip(popped).map(|((campaign, _), ids)| (*campaign, parse(&ids.unwrap_or_default()))).collect())
    }
}

/// The campaigns of these claims that were proven to be sold out after each of their claims was accepted.
/// `proven_at_ms` returns when the proof of a campaign began, in milliseconds since the Unix epoch.
pub fn proven_for(claims: &[Claim], proven_at_ms: impl Fn(CampaignId) -> Option<u64>) -> HashSet<CampaignId> {
    let is_later = |claim: &&Claim| proven_at_ms(claim.campaign_id).is_none_or(|at_ms| claim.accepted_at_ms >= at_ms);
    let open: HashSet<CampaignId> = claims.iter().filter(is_later).map(|claim| claim.campaign_id).collect();
    claims.iter().map(|claim| claim.campaign_id).filter(|campaign| !open.contains(campaign)).collect()
}

/// Adds the popped ids that the batch does not hold yet. A refill offers again what the batch holds, because that is free
/// until it is issued, and ids that are given back meet those of a refill in the list; if two claims shared an id, only one
/// would get the coupon, and it might be the later one.
///
/// Returns whether another refill may find more. It hardly can if the batch held all of these: then the claims that are
/// left go into the next round, which finds ids for them or proves that there are none.
pub fn take_new(ids: &mut Vec<CouponId>, popped: &[CouponId]) -> bool {
    let mut held: HashSet<CouponId> = ids.iter().copied().collect();
    let before = ids.len();
    ids.extend(popped.iter().filter(|id| held.insert(**id)));
    popped.is_empty() || ids.len() > before
}

/// Parses ids. Skips any other value, which this program did not put there.
fn parse(ids: &[Vec<u8>]) -> Vec<CouponId> {
    ids.iter().filter_map(|id| Uuid::from_slice(id).ok()).map(CouponId).collect()
}
