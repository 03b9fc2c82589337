//! How fast Redis gives out the ids of free coupons.

use std::time::{Duration, Instant};

use coupon_core::redis::keys;
use coupon_core::settings::RedisSettings;
use coupon_core::{CampaignId, Error, Installation, InstallationId, Result};
use deadpool_redis::redis::{self, AsyncCommands};
use uuid::Uuid;

use super::BATCH;

/// Ids per second, popped in batches from a full list.
pub async fn lpop(settings: &RedisSettings, time: Duration) -> Result<f64> {
    let mut connection = coupon_core::redis::connect(settings)?;
    let namespace = "bench".parse().map_err(Error::Broken)?;
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
