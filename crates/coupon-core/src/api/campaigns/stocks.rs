//! The stock of the campaigns in use, counted when `/metrics` is scraped.
//!
//! Invariants: however often it is scraped, a process counts for one scrape at a time, because its connections are for
//! claims; a count covers a limited number of campaigns and has a deadline, and a stock that is not known by then is
//! left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Campaigns, Entry, SOLD_OUT_MAX_AGE, current};
use crate::domain::CampaignId;
use crate::error::{Error, Result};
use crate::mysql::campaigns::Stock as Counted;
use crate::telemetry::metrics::Stock;

/// The most campaigns whose stock is counted: each costs a label in the metrics and a count in MySQL.
const COUNTED_MAX: usize = 20;

/// A scrape does not wait longer than this for MySQL.
const COUNT_DEADLINE: Duration = Duration::from_secs(2);

impl Campaigns {
    /// The stock of the campaigns in use at this moment, without those that MySQL does not count in time. A scrape that
    /// has waited for another one finds that one's counts in the cache.
    pub async fn stocks(&self) -> Vec<Stock> {
        let deadline = Instant::now() + COUNT_DEADLINE;
        match timeout_at(deadline, self.inner.counting.lock()).await {
            Ok(_counting) => self.count_stocks(deadline).await,
            Err(_) => Vec::new(),
        }
    }

    async fn count_stocks(&self, deadline: Instant) -> Vec<Stock> {
        let entries: Vec<Arc<Entry>> = self.inner.states.iter().map(|(_, entry)| entry).collect();
        let campaigns = entries.iter().map(|entry| current(entry)).filter_map(|state| {
            let campaign = state.campaign.as_ref()?;
            let is_fresh = state.read_at.elapsed() <= SOLD_OUT_MAX_AGE;
            is_fresh.then(|| (campaign.id, campaign.coupons, state.is_sold_out()))
        });
        let mut stocks = Vec::new();
        for (campaign_id, coupons, is_sold_out) in campaigns.take(COUNTED_MAX) {
            let counted =
                if is_sold_out { Ok(Counted { coupons, free: 0 }) } else { self.stock_by(campaign_id, deadline).await };
            stocks.extend(counted.map(|Counted { coupons, free }| Stock { campaign_id, coupons, free }));
        }
        stocks
    }

    async fn stock_by(&self, campaign: CampaignId, deadline: Instant) -> Result<Counted> {
        let late = |_| Err(Error::Deadline { what: "counting coupons", limit: COUNT_DEADLINE });
        timeout_at(deadline, self.stock(campaign)).await.unwrap_or_else(late)
    }
}
