//! Loading coupons in bulk.
//!
//! Invariant: each chunk is one transaction that also adds to the campaign's stock, so whenever the load is cut off,
//! stock and rows agree and a later run knows what is missing.

use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{CampaignId, CouponId};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use mysql_async::Conn;

/// Coupons in one INSERT; its text of about 45 bytes each stays far below `max_allowed_packet`.
const CHUNK: usize = 5_000;

/// Coupons whose ids are made and sorted together: sorted ids fill the pages of the primary key one after the other.
const BLOCK: u64 = 1_000_000;

/// Chunks on their way at once: one is made into rows while another is written to disk.
const IN_FLIGHT: usize = 3;

/// Below this the bar would be gone before it is seen.
const BAR_FROM: u64 = 50_000;

/// Adds coupons to a campaign.
pub async fn coupons(mysql: &Mysql, campaign: CampaignId, count: u64) -> anyhow::Result<()> {
    let bar = if count >= BAR_FROM { ProgressBar::new(count) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} coupons, {per_sec}, {eta} left")?);
    let mut left = count;
    while left > 0 {
        let block = left.min(BLOCK);
        load_block(mysql, campaign, block, &bar).await?;
        left -= block;
    }
    bar.finish();
    Ok(())
}

async fn load_block(mysql: &Mysql, campaign: CampaignId, count: u64, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut ids: Vec<CouponId> = (0..count).map(|_| CouponId::random()).collect();
    ids.sort_unstable();
    let chunks: Vec<Vec<CouponId>> = ids.chunks(CHUNK).map(<[CouponId]>::to_vec).collect();
    stream::iter(chunks)
        .map(async |chunk| {
            let loaded = chunk.len() as u64;
            mysql.run(async move |mut conn: Conn| campaigns::add_coupons(&mut conn, campaign, &chunk).await).await?;
            bar.inc(loaded);
            Ok(())
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}
