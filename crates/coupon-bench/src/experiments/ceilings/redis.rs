//! How fast Redis gives out the ids of free coupons.

use std::time::{Duration, Instant};

use coupon_core::redis::keys;
use coupon_core::settings::RedisSettings;
use coupon_core::{CampaignId, Error, Installation, InstallationId, Result};
use deadpool_redis::redis::aio::ConnectionManager;
use deadpool_redis::redis::{self, AsyncCommands};
use uuid::Uuid;

use super::{BATCH, together};
use crate::statistics::median;

/// Ids in the list each time that it is filled.
const FILL: usize = 200_000;

/// Ids pushed by one command.
const PUSHED: usize = 10_000;

/// Ids per second, popped in batches from one list by all connections. Filling the list is not counted.
pub async fn lpop(settings: &RedisSettings, connections: usize, time: Duration) -> anyhow::Result<f64> {
    let namespace = "bench".parse().map_err(Error::Broken)?;
    let installation = Installation { namespace, id: InstallationId(Uuid::new_v4()) };
    let list = keys::free_coupons(&installation, CampaignId(1));
    let ids: Vec<Vec<u8>> = (0..PUSHED).map(|_| Uuid::new_v4().as_bytes().to_vec()).collect();
    let poppers: Vec<ConnectionManager> =
        (0..connections).map(|_| coupon_core::redis::connect(settings)).collect::<Result<_>>()?;
    let mut filler = coupon_core::redis::connect(settings)?;
    let (began, mut rates) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        for _ in 0..FILL / PUSHED {
            filler.rpush::<_, _, ()>(&list, &ids).await?;
        }
        rates.push(together(poppers.iter().map(|popper| pop_all(popper.clone(), list.clone()))).await?);
    }
    Ok(median(rates))
}

async fn pop_all(mut connection: ConnectionManager, list: String) -> anyhow::Result<u64> {
    let mut popped = 0;
    loop {
        let mut pop = redis::cmd("LPOP");
        let ids: Option<Vec<Vec<u8>>> = pop.arg(&list).arg(BATCH).query_async(&mut connection).await?;
        let Some(ids) = ids else { return Ok(popped) };
        popped += ids.len() as u64;
    }
}
