//! Refills the list of a campaign's free ids from MySQL when it is empty, one consumer at a time.
//!
//! Invariants: a refill that reads from the beginning and finds no free row is the only proof of sold out; the lock
//! only keeps consumers from doing the same work twice. It is harmless for two to hold it at the same time: a refill
//! may offer ids that others have in flight anyway, and the UPDATE refuses the second writer. Each refill resumes after
//! the previous one, which makes that rare.

use std::time::{Duration, Instant};

use coupon_core::age::younger_than;
use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, campaigns, coupons};
use coupon_core::redis::keys;
use coupon_core::settings::RedisSettings;
use coupon_core::telemetry::metrics;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{CampaignId, CouponId, Error, Installation, Result};
use deadpool_redis::redis::{self, AsyncCommands, Pipeline, Script};
use deadpool_redis::{Connection, Manager, Pool, Runtime, Timeouts};
use mysql_async::Conn;
use uuid::Uuid;

use crate::steps;

/// The lock expires after this if its holder dies; a refill takes milliseconds.
const LOCK_FOR: Duration = Duration::from_secs(5);

/// How often waiting consumers check whether the list has been filled.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// A list that nobody uses expires after this.
const LIST_FOR_SECONDS: i64 = 60 * 60;

/// Ids in one RPUSH, so that no single command holds Redis up.
const IDS_PER_PUSH: usize = 1_000;

/// The size of the pool: this many campaigns can be refilled at the same time.
const CONNECTIONS: usize = 4;

/// Deletes the lock if it is still ours: after a long pause it may belong to another consumer.
const UNLOCK: &str = include_str!("unlock.lua");

/// The result of a refill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refilled {
    /// There are ids in the list.
    NotEmpty,
    /// No coupon is free.
    SoldOut,
    /// There is no such campaign. A producer-api admits only claims of campaigns that it has seen, so this one was deleted,
    /// or something else put its claims into the queue.
    Unknown,
}

/// Refills the lists of free ids.
pub struct Refill {
    redis: Pool,
    deadline: Duration,
    installation: Installation,
    mysql: Mysql,
    max: usize,
    unlock: Script,
}

impl Refill {
    /// Creates a refill that moves up to `max` ids at a time. It has a pool of its own, because a push of thousands of
    /// ids on the shared connection would hold up everyone's pops.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub fn new(settings: &RedisSettings, installation: Installation, mysql: Mysql, max: usize) -> Result<Self> {
        let server = coupon_core::redis::client(settings)?.get_connection_info().clone();
        let deadline = Some(settings.redis_deadline);
        let redis = Pool::builder(Manager::new(server)?)
            .max_size(CONNECTIONS)
            .timeouts(Timeouts { wait: deadline, create: deadline, recycle: deadline })
            .runtime(Runtime::Tokio1)
            .pre_recycle(younger_than(settings.redis_connection_age))
            .build()
            .map_err(|error| Error::Broken(format!("no pool for Redis: {error}")))?;
        Ok(Self { redis, deadline: settings.redis_deadline, installation, mysql, max, unlock: Script::new(UNLOCK) })
    }

    /// Every command that a refill sends to Redis, with an empty id and a lock that nobody holds.
    pub fn check(&self, campaign: CampaignId) -> Pipeline {
        let installation = &self.installation;
        let (list, mark) = (keys::free_coupons(installation, campaign), keys::refilled_to(installation, campaign));
        let mut check = redis::pipe();
        check.set_ex(&mark, "", 1).ignore().get(&mark).ignore().rpush(&list, "").ignore().expire(&list, 1).ignore();
        check.llen(&list).ignore();
        check.cmd("EVAL").arg(UNLOCK).arg(1).arg(keys::refill_lock(installation, campaign)).arg("").ignore();
        check
    }

    /// Makes sure that the campaign's list has ids, by filling it or by waiting for another consumer to fill it.
    ///
    /// # Errors
    /// An error of Redis or MySQL, or the lock stays held past its expiry.
    pub async fn refill(&self, campaign: CampaignId, timeline: &Timeline) -> Result<Refilled> {
        let refilled = self.lock_and_fill(campaign, timeline).await;
        metrics::refill(match &refilled {
            Ok(Refilled::NotEmpty) => "not_empty",
            Ok(Refilled::SoldOut) => "sold_out",
            Ok(Refilled::Unknown) => "unknown",
            Err(_) => "failed",
        });
        refilled
    }

    async fn lock_and_fill(&self, campaign: CampaignId, timeline: &Timeline) -> Result<Refilled> {
        let redis = self.redis.get().await?;
        let refilled = self.lock_and_fill_on(redis, campaign, timeline).await;
        if refilled.as_ref().is_err_and(Error::blames_the_connection) {
            // The other connections lead to the same server.
            self.redis.retain(|_, _| false);
        }
        refilled
    }

    async fn lock_and_fill_on(
        &self,
        mut redis: Connection,
        campaign: CampaignId,
        timeline: &Timeline,
    ) -> Result<Refilled> {
        let lock = keys::refill_lock(&self.installation, campaign);
        let token = Uuid::new_v4();
        let waited = self.wait_for_lock(&mut redis, &lock, token, campaign);
        if !timeline.step(&steps::LOCK, 1, waited).await? {
            return Ok(Refilled::NotEmpty);
        }
        let refilled = timeline.step(&steps::REFILL, 1, self.fill(&mut redis, campaign)).await;
        // If this fails, the lock expires by itself.
        let mut unlock = self.unlock.key(&lock);
        unlock.arg(token.as_bytes());
        if let Err(error) = self.within::<()>(unlock.invoke_async(&mut redis)).await {
            tracing::debug!(%error, "cannot free the refill lock");
        }
        refilled
    }

    /// Whether this consumer got the lock; if not, another has filled the list in the meantime.
    async fn wait_for_lock(
        &self,
        redis: &mut Connection,
        lock: &str,
        token: Uuid,
        campaign: CampaignId,
    ) -> Result<bool> {
        let began = Instant::now();
        while !self.lock(redis, lock, token).await? {
            if self.has_ids(redis, campaign).await? {
                return Ok(false);
            }
            if began.elapsed() > LOCK_FOR * 2 {
                return Err(Error::Deadline { what: "another consumer's refill", limit: LOCK_FOR * 2 });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(true)
    }

    async fn lock(&self, redis: &mut Connection, lock: &str, token: Uuid) -> Result<bool> {
        let mut set = redis::cmd("SET");
        set.arg(lock).arg(token.as_bytes()).arg("NX").arg("EX").arg(LOCK_FOR.as_secs());
        let answer: Option<String> = self.within(set.query_async(redis)).await?;
        Ok(answer.is_some())
    }

    async fn has_ids(&self, redis: &mut Connection, campaign: CampaignId) -> Result<bool> {
        let waiting: usize = self.within(redis.llen(keys::free_coupons(&self.installation, campaign))).await?;
        Ok(waiting > 0)
    }

    async fn fill(&self, redis: &mut Connection, campaign: CampaignId) -> Result<Refilled> {
        if self.has_ids(redis, campaign).await? {
            return Ok(Refilled::NotEmpty);
        }
        let Some(free) = self.free_coupons(redis, campaign).await? else { return Ok(Refilled::Unknown) };
        let Some(last) = free.last() else { return Ok(Refilled::SoldOut) };
        let key = keys::free_coupons(&self.installation, campaign);
        for ids in free.chunks(IDS_PER_PUSH) {
            let ids: Vec<&[u8]> = ids.iter().map(|id| id.0.as_bytes().as_slice()).collect();
            let mut push = redis::pipe();
            push.rpush(&key, ids).ignore().expire(&key, LIST_FOR_SECONDS).ignore();
            self.within::<()>(push.query_async(redis)).await?;
        }
        let mark = keys::refilled_to(&self.installation, campaign);
        let last = last.0.as_bytes().as_slice();
        self.within::<()>(redis.set_ex(mark, last, LIST_FOR_SECONDS.unsigned_abs())).await?;
        tracing::debug!(%campaign, ids = free.len(), "refilled");
        Ok(Refilled::NotEmpty)
    }

    /// Free coupons after those of the previous refill, or from the beginning when there are no more. Only a read from the
    /// beginning that finds none proves "sold out", and only if the campaign exists: otherwise there is nothing to sell.
    async fn free_coupons(&self, redis: &mut Connection, campaign: CampaignId) -> Result<Option<Vec<CouponId>>> {
        let mark: Option<Vec<u8>> = self.within(redis.get(keys::refilled_to(&self.installation, campaign))).await?;
        let after = mark.and_then(|mark| Uuid::from_slice(&mark).ok()).map(CouponId);
        let wanted = Wanted { campaign_id: campaign, count: self.max, after };
        self.mysql
            .run(async move |mut conn: Conn| {
                let mut free = coupons::free_coupons(&mut conn, wanted).await?;
                if free.is_empty() && after.is_some() {
                    free = coupons::free_coupons(&mut conn, Wanted { after: None, ..wanted }).await?;
                }
                let is_there = !free.is_empty() || campaigns::find(&mut conn, campaign).await?.is_some();
                Ok(is_there.then_some(free))
            })
            .await
    }

    async fn within<T>(&self, command: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
        match tokio::time::timeout(self.deadline, command).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Deadline { what: "a command of the refill", limit: self.deadline }),
        }
    }
}
