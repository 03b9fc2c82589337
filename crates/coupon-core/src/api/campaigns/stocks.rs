//! The stock of the campaigns in use, counted when `/metrics` is scraped.
//!
//! Invariants: however often it is scraped, a process counts for one scrape at a time, because its connections are for
//! claims; a count covers a limited number of campaigns and has a deadline, and a stock that is not known by then is
//! left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Campaigns, Entry, SOLD_OUT_MAX_AGE, State, current};
use crate::mysql::campaigns::Counts;
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
        let is_fresh = |state: &Arc<State>| state.read_at.elapsed() <= SOLD_OUT_MAX_AGE;
        let states: Vec<Arc<State>> = entries.iter().map(|entry| current(entry)).filter(is_fresh).collect();
        let in_use = states.iter().filter_map(|state| Some((state.campaign.as_ref()?, state)));
        let mut stocks = Vec::new();
        for (campaign, state) in in_use.take(COUNTED_MAX) {
            if let Ok(Ok(Counts { coupons, free })) = timeout_at(deadline, self.count(campaign, state)).await {
                stocks.push(Stock { campaign_id: campaign.id, coupons, free });
            }
        }
        stocks
    }
}
