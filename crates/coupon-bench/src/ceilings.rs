//! What each stage does alone, and the limit that follows: where all stages share the same cores, a claim costs the sum of
//! what it costs in each, so a way can give 1 / Σ(1 / stage) claims a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use coupon_core::broker::{self, Queues, message};
use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::settings::{AmqpSettings, Namespace, RedisSettings};
use coupon_core::{AccountId, CampaignId, Claim, ClaimKey, CouponId, Installation, InstallationId, keys, terminal};
use deadpool_redis::redis::{self, AsyncCommands};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Method;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use serde::Serialize;
use tokio::task::JoinSet;
use url::Url;
use uuid::Uuid;

use crate::client::{Client, Target};
use crate::compare;
use crate::stand::Service;
use crate::tracing_cost::median;

/// Claims in a message: as many as 256 clients make wait together.
const CLAIMS_PER_MESSAGE: usize = 32;

/// Messages on their way at once, those of two HTTP workers.
const MESSAGES_IN_FLIGHT: usize = 8;

/// Claims in a batch of a consumer.
const BATCH: usize = 500;

/// Claims in a statement of the skiplock way, and statements at once.
const GROUP: usize = 128;
const GROUPS: usize = 2;

/// Ids read ahead for those.
const READ_AHEAD: usize = 500;

/// Messages sent ahead to a consumer.
const PREFETCH: u16 = 200;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How long each stage is measured, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Connections of the load on the empty HTTP endpoint.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
}

/// What a stage does alone.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    pub stage: &'static str,
    /// Claims a second.
    pub per_second: f64,
}

/// Stages, and what follows for each way.
#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    pub stages: Vec<Stage>,
    /// With two HTTP exchanges for a claim: the claim itself, and the question for its outcome.
    pub queue_limit: f64,
    pub skiplock_limit: f64,
}

impl Ceilings {
    fn new(stages: Vec<Stage>) -> Self {
        let rate = |name: &str| stages.iter().find(|stage| stage.stage == name).map_or(f64::NAN, |it| it.per_second);
        let limit = |names: &[&str]| 1.0 / names.iter().map(|name| 1.0 / rate(name)).sum::<f64>();
        let queue_limit = limit(&[HTTP, HTTP, PUBLISH, CONSUME, LPOP, UPDATE]);
        let skiplock_limit = limit(&[HTTP, SKIP_LOCKED]);
        Self { stages, queue_limit, skiplock_limit }
    }

    /// The medians of several rounds, and the limits that follow from these.
    pub fn of_rounds(rounds: &[Self]) -> Self {
        let of_stage = |stage: &'static str| {
            let all = rounds.iter().flat_map(|round| &round.stages).filter(|it| it.stage == stage);
            Stage { stage, per_second: median(&all.map(|it| it.per_second).collect::<Vec<_>>()) }
        };
        Self::new([HTTP, PUBLISH, CONSUME, LPOP, UPDATE, SKIP_LOCKED].map(of_stage).into())
    }
}

const HTTP: &str = "empty HTTP endpoint";
const PUBLISH: &str = "publish with confirms";
const CONSUME: &str = "consume with batch acks";
const LPOP: &str = "LPOP n";
const UPDATE: &str = "batched conditional UPDATE";
const SKIP_LOCKED: &str = "batched SKIP LOCKED claim";

/// Measures every stage.
pub async fn measure(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Ceilings> {
    let time = Duration::from_secs(arguments.seconds);
    let mut stages = Vec::new();
    let mut add = |stage: &'static str, per_second: f64| {
        terminal::note(&format!("{stage}: {per_second:.0} a second"));
        stages.push(Stage { stage, per_second });
    };
    add(HTTP, empty_http(arguments.clients, time).await?);
    let (publish, consume) = broker_stages(amqp, time).await?;
    add(PUBLISH, publish);
    add(CONSUME, consume);
    add(LPOP, lpop(redis, time).await?);
    add(UPDATE, update(mysql, time).await?);
    add(SKIP_LOCKED, skip_locked(mysql, time).await?);
    Ok(Ceilings::new(stages))
}

/// The HTTP server and this load tool, with nothing behind it.
pub async fn empty_http(clients: u32, time: Duration) -> anyhow::Result<f64> {
    let service = Service::start("skiplock-api", &[("OTEL_SDK_DISABLED", String::from("true"))]).await?;
    requests(&service.url, "/livez", Method::GET, |_| String::new(), clients, time).await
}

/// Requests a second, whatever they are answered.
pub async fn requests(
    url: &Url,
    path: &str,
    method: Method,
    body: impl Fn(u64) -> String + Clone + Send + 'static,
    clients: u32,
    time: Duration,
) -> anyhow::Result<f64> {
    let target = Target::new(url)?;
    let sent = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (mut client, sent, path) = (Client::new(target.clone()), Arc::clone(&sent), path.to_owned());
        let (method, body) = (method.clone(), body.clone());
        running.spawn(async move {
            while began.elapsed() < time {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                client.send(method.clone(), &path, body(n), None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}

/// Publishes for a while into a queue like that of the claims, then consumes all of it.
async fn broker_stages(settings: &AmqpSettings, time: Duration) -> anyhow::Result<(f64, f64)> {
    let installation = InstallationId(Uuid::new_v4());
    let namespace: Namespace = format!("bench-{installation}").parse().map_err(anyhow::Error::msg)?;
    let queues = Queues::new(&namespace, settings);
    let connection = broker::connect(settings, "coupon-bench").await?;
    queues.declare(&connection).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let claim =
        Claim { campaign_id: CampaignId(1), account_id: AccountId(1_000_000), accepted_at_ms: 1_900_000_000_000 };
    let body = message::encode(&[claim; CLAIMS_PER_MESSAGE])?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };

    let began = Instant::now();
    let mut confirms = FuturesUnordered::new();
    let mut confirmed = 0_usize;
    while began.elapsed() < time {
        while confirms.len() < MESSAGES_IN_FLIGHT {
            let properties = message::properties(installation, std::iter::empty());
            confirms.push(channel.basic_publish("".into(), queues.claims.clone(), options, &body, properties).await?);
        }
        confirms.next().await.context("a confirm")??;
        confirmed += CLAIMS_PER_MESSAGE;
    }
    let publish = confirmed as f64 / began.elapsed().as_secs_f64();
    while let Some(confirm) = confirms.next().await {
        confirm?;
        confirmed += CLAIMS_PER_MESSAGE;
    }

    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let began = Instant::now();
    let consume = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(queues.claims.clone(), "".into(), consume, FieldTable::default()).await?;
    let (mut consumed, mut unacknowledged) = (0, 0);
    while consumed < confirmed {
        let delivery = deliveries.next().await.context("a delivery")??;
        let message = message::decode(&delivery.properties, &delivery.data).map_err(anyhow::Error::msg)?;
        let claims = message.claims.len();
        (consumed, unacknowledged) = (consumed + claims, unacknowledged + claims);
        if unacknowledged >= BATCH || consumed >= confirmed {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
            unacknowledged = 0;
        }
    }
    let consume = consumed as f64 / began.elapsed().as_secs_f64();
    let channel = connection.create_channel().await?;
    for queue in [queues.claims, queues.dead] {
        channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
    }
    Ok((publish, consume))
}

/// Pops batches of ids from a list that is full.
async fn lpop(settings: &RedisSettings, time: Duration) -> anyhow::Result<f64> {
    let mut connection = coupon_core::redis::connect(settings)?;
    let namespace = "bench".parse().map_err(anyhow::Error::msg)?;
    let installation = Installation { namespace, id: InstallationId(Uuid::new_v4()) };
    let list = keys::free_coupons(&installation, CampaignId(1));
    let ids: Vec<Vec<u8>> = (0..10_000).map(|_| Uuid::new_v4().as_bytes().to_vec()).collect();
    let mut popped = 0;
    let mut took = Duration::ZERO;
    while took < time {
        connection.rpush::<_, _, ()>(&list, &ids).await?;
        let began = Instant::now();
        for _ in 0..ids.len() / BATCH {
            let got: Vec<Vec<u8>> = redis::cmd("LPOP").arg(&list).arg(BATCH).query_async(&mut connection).await?;
            popped += got.len();
        }
        took += began.elapsed();
    }
    connection.del::<_, ()>(&list).await?;
    Ok(popped as f64 / took.as_secs_f64())
}

/// Issues batches of coupons whose ids are known, as a consumer does.
async fn update(mysql: &Mysql, time: Duration) -> anyhow::Result<f64> {
    let coupons = 200_000;
    let campaign = compare::make_campaign(mysql, "ceiling of the UPDATE", coupons).await?;
    let mut conn = mysql.connection().await?;
    let all = Wanted { campaign_id: campaign, count: usize::try_from(coupons)?, after: None };
    let ids = coupons::free_coupons(&mut conn, all).await?;
    let began = Instant::now();
    let mut issued = 0;
    for (batch, ids) in ids.chunks(BATCH).enumerate() {
        if began.elapsed() > time {
            break;
        }
        let claim = |n| ClaimKey { campaign_id: campaign, account_id: AccountId(1 + (batch * BATCH) as u64 + n) };
        let rows: Vec<(ClaimKey, CouponId)> = (0..).zip(ids).map(|(n, id)| (claim(n), *id)).collect();
        coupons::issue(&mut conn, &rows).await?;
        issued += conn.affected_rows();
    }
    Ok(issued as f64 / began.elapsed().as_secs_f64())
}

/// Issues groups of coupons read ahead, passing over locked ones, as the skiplock way does: each connection from a
/// campaign of its own, as groups side by side take different ids.
async fn skip_locked(mysql: &Mysql, time: Duration) -> anyhow::Result<f64> {
    let mut running = JoinSet::new();
    let mut campaigns = Vec::new();
    for _ in 0..GROUPS {
        campaigns.push(compare::make_campaign(mysql, "ceiling of SKIP LOCKED", 100_000).await?);
    }
    let began = Instant::now();
    for campaign in campaigns {
        let mysql = mysql.clone();
        running.spawn(async move { issue_ahead(&mysql, campaign, began, time).await });
    }
    let mut issued = 0;
    while let Some(ended) = running.join_next().await {
        issued += ended??;
    }
    Ok(issued as f64 / began.elapsed().as_secs_f64())
}

async fn issue_ahead(mysql: &Mysql, campaign_id: CampaignId, began: Instant, time: Duration) -> anyhow::Result<u64> {
    let mut conn = mysql.connection().await?;
    let mut wanted = Wanted { campaign_id, count: READ_AHEAD, after: None };
    let mut account = 0;
    let mut issued = 0;
    while began.elapsed() < time {
        let ids = coupons::free_coupons_of_nobody(&mut conn, wanted).await?;
        wanted.after = ids.last().copied();
        if ids.is_empty() {
            break;
        }
        for ids in ids.chunks(GROUP) {
            let mut next = || {
                account += 1;
                ClaimKey { campaign_id, account_id: AccountId(account) }
            };
            let rows: Vec<(ClaimKey, CouponId)> = ids.iter().map(|id| (next(), *id)).collect();
            coupons::issue_skip_locked(&mut conn, &rows).await?;
            issued += conn.affected_rows();
        }
    }
    Ok(issued)
}
