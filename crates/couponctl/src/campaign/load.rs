//! Loads coupons in bulk, with a progress bar.

use coupon_core::CampaignId;
use coupon_core::mysql::Mysql;
use coupon_core::mysql::loads::{self, Limit};
use indicatif::{ProgressBar, ProgressStyle};

/// Below this many coupons, the bar would vanish before anyone sees it.
const BAR_FROM: u64 = 50_000;

/// Adds coupons to a campaign.
pub async fn coupons(mysql: &Mysql, campaign: CampaignId, count: u64, limit: &Limit) -> anyhow::Result<()> {
    let bar = if count >= BAR_FROM { ProgressBar::new(count) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} coupons, {per_sec}, {eta} left")?);
    loads::add_in_chunks(mysql, campaign, count, limit, |loaded| bar.inc(loaded)).await?;
    bar.finish();
    Ok(())
}
