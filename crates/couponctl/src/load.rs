//! Loading coupons in bulk, with a progress bar.

use coupon_core::CampaignId;
use coupon_core::mysql::{Mysql, bulk};
use indicatif::{ProgressBar, ProgressStyle};

/// Below this the bar would be gone before it is seen.
const BAR_FROM: u64 = 50_000;

/// Adds coupons to a campaign.
pub async fn coupons(mysql: &Mysql, campaign: CampaignId, count: u64) -> anyhow::Result<()> {
    let bar = if count >= BAR_FROM { ProgressBar::new(count) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} coupons, {per_sec}, {eta} left")?);
    bulk::load_coupons(mysql, campaign, count, |loaded| bar.inc(loaded)).await?;
    bar.finish();
    Ok(())
}
