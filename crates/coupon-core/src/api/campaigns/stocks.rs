//! How the campaigns in use stand, counted when somebody scrapes `/metrics`.
//!
//! Invariants: a process counts for one scrape at a time, because its connections belong to claims, however often somebody
//! scrapes; a count has a limit of campaigns and a deadline, and what is not known by then is left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Campaigns, Entry, SOLD_OUT_MAX_AGE, current};
use crate::domain::CampaignId;
use crate::error::{Error, Result};
use crate::telemetry::metrics::Stock;

/// Campaigns whose stock is counted: each has a label of its own in the metrics, and a count in MySQL.
const COUNTED_MAX: usize = 20;

/// A scrape does not wait longer than this for MySQL.
const COUNT_DEADLINE: Duration = Duration::from_secs(2);

impl Campaigns {
    /// The stock of campaigns in use at this moment; of those that MySQL does not count in time there is none. A scrape
    /// that waits for another one finds its counts remembered.
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
            let free = if is_sold_out { Ok(0) } else { self.count_free_by(campaign_id, deadline).await };
            stocks.extend(free.map(|free| Stock { campaign_id, coupons, free }));
        }
        stocks
    }

    async fn count_free_by(&self, campaign: CampaignId, deadline: Instant) -> Result<u64> {
        let late = |_| Err(Error::Deadline { what: "counting free coupons", limit: COUNT_DEADLINE });
        timeout_at(deadline, self.count_free(campaign)).await.unwrap_or_else(late)
    }
}
