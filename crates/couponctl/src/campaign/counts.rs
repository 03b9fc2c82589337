//! Campaigns with their counts, as shown to operators.

use comfy_table::Cell;
use coupon_core::domain::Window;
use coupon_core::mysql::campaigns::Counts;
use coupon_core::mysql::{Mysql, campaigns, loads};
use coupon_core::terminal::{print, print_json, printable};
use coupon_core::{Campaign, CampaignId};
use mysql_async::Conn;
use serde::Serialize;
use time::OffsetDateTime;

use super::existing::must_exist;
use super::history::instant;
use crate::output::{Printed, number, table};

/// A campaign with its counts.
#[derive(Debug, Serialize)]
pub struct CampaignCounts {
    /// The campaign.
    #[serde(flatten)]
    pub campaign: Campaign,
    /// Coupons with an account.
    pub issued: u64,
    /// Coupons without one.
    pub free: u64,
    /// Coupons missing from a load that is in progress or was cut off.
    pub not_loaded: u64,
}

/// Counts the coupons of a campaign.
pub async fn count(mysql: &Mysql, id: CampaignId) -> anyhow::Result<CampaignCounts> {
    let campaign = must_exist(mysql, id).await?;
    let count = async move |mut conn: Conn| {
        Ok((campaigns::count(&mut conn, id).await?, loads::not_loaded(&mut conn, id).await?))
    };
    let (Counts { coupons, free }, not_loaded) = mysql.run(count).await?;
    Ok(CampaignCounts {
        campaign: Campaign { coupons, ..campaign },
        issued: coupons.saturating_sub(free),
        free,
        not_loaded,
    })
}

/// Prints campaigns, one line each.
pub fn show(campaigns: &[CampaignCounts], json: bool) -> Printed {
    if json {
        return print_json(&campaigns);
    }
    let mut table = table(["id", "name", "opens at", "closes at", "state", "coupons", "issued", "free"]);
    for CampaignCounts { campaign, issued, free, .. } in campaigns {
        table.add_row([
            number(campaign.id.0),
            Cell::new(printable(&campaign.name)),
            Cell::new(instant(campaign.opens_at)),
            Cell::new(instant(campaign.closes_at)),
            Cell::new(state(campaign)),
            number(campaign.coupons),
            number(*issued),
            number(*free),
        ]);
    }
    print(&table)?;
    let cut_off = campaigns.iter().filter(|counts| counts.not_loaded > 0);
    cut_off.into_iter().try_for_each(|CampaignCounts { campaign, not_loaded, .. }| {
        let id = campaign.id;
        print(&format!(
            "campaign {id}: {not_loaded} coupons that were ordered are not there yet; if their load was cut off, repeat it with \
             the values that `couponctl campaign history --id {id}` shows"
        ))
    })
}

/// The state that a claim would find the campaign in now.
fn state(campaign: &Campaign) -> &'static str {
    match campaign.window(OffsetDateTime::now_utc()) {
        Window::NotOpen => "not open",
        Window::Closed => "closed",
        Window::Open if campaign.paused => "paused",
        Window::Open => "open",
    }
}
