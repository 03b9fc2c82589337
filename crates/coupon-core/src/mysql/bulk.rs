//! Loading coupons in bulk.
//!
//! Invariant: each chunk is one transaction that also adds to the campaign's stock, so whenever the load is cut off,
//! stock and rows agree and a later run knows what is missing.

use futures_util::{StreamExt, TryStreamExt, stream};
use mysql_async::Conn;

use super::{Mysql, campaigns};
use crate::domain::{CampaignId, CouponId};
use crate::error::Result;

/// Coupons in one INSERT; its text of about 45 bytes each stays far below `max_allowed_packet`.
const CHUNK: usize = 5_000;

/// Coupons whose ids are made and sorted together: sorted ids fill the pages of the primary key one after the other.
const BLOCK: u64 = 1_000_000;

/// Chunks on their way at once: one is made into rows while another is written to disk.
const IN_FLIGHT: usize = 3;

/// Adds `count` new coupons to a campaign, telling after each chunk how many it had.
///
/// # Errors
/// MySQL's; what was told is loaded.
pub async fn load_coupons(mysql: &Mysql, campaign: CampaignId, count: u64, loaded: impl Fn(u64)) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let block = left.min(BLOCK);
        load_block(mysql, campaign, block, &loaded).await?;
        left -= block;
    }
    Ok(())
}

async fn load_block(mysql: &Mysql, campaign: CampaignId, count: u64, loaded: &impl Fn(u64)) -> Result<()> {
    let mut ids: Vec<CouponId> = (0..count).map(|_| CouponId::random()).collect();
    ids.sort_unstable();
    let chunks: Vec<Vec<CouponId>> = ids.chunks(CHUNK).map(<[CouponId]>::to_vec).collect();
    stream::iter(chunks)
        .map(async |chunk| {
            let count = chunk.len() as u64;
            mysql.run(async move |mut conn: Conn| campaigns::add_coupons(&mut conn, campaign, &chunk).await).await?;
            loaded(count);
            Ok(())
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}
