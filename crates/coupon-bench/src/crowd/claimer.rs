//! One client of the crowd: takes the next claim of the plan, sends it, and passes it on if it was only accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use coupon_core::Outcome;
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::ask::Ask;
use super::client::Client;
use super::plan::Campaigns;
use super::tally::SharedTally;
use super::trace::Trace;

/// A claim that was accepted but not decided; a follower asks for its outcome.
pub struct Accepted {
    pub account: u64,
    pub trace: Trace,
    pub meant_at: Instant,
    pub answered_at: Instant,
}

pub struct Claimer {
    pub client: Client,
    pub campaigns: Campaigns,
    /// Accounts in the order in which they claim, shared by all claimers.
    pub plan: Arc<Vec<u64>>,
    /// Place of the next claim in the plan.
    pub next: Arc<AtomicUsize>,
    /// In an open loop, when the first claim is sent, and how many are sent per second.
    pub schedule: Option<(Instant, u32)>,
    /// The name of the load.
    pub load: Arc<str>,
    pub trace_ratio: f64,
    pub ask: Ask,
    pub accepted: flume::Sender<Accepted>,
    pub tally: SharedTally,
}

impl Claimer {
    pub async fn run(mut self) {
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&account) = self.plan.get(place) else { return };
            let meant_at = self.wait_for_turn(place).await;
            let path = format!("/v1/campaigns/{}/claims", self.campaigns.of(account));
            // As a string, the only form that can hold every account number.
            let body = format!("{{\"account_id\":\"{account}\"}}");
            let trace = Trace::begin(&self.load, self.trace_ratio);
            let headers = trace.header().ok().into_iter().chain(self.ask.header());
            let answer = self.client.send(Method::POST, &path, body, headers).await;
            let answered_at = Instant::now();
            let status = answer.as_ref().ok().map(|(status, _)| *status);
            self.tally.lock().answered(answered_at - meant_at, status, &trace);
            match answer.and_then(|(status, body)| read_outcome(status, &body)) {
                // This cannot fail, because the followers outlive the claimers.
                Ok(Outcome::Pending) => drop(self.accepted.send(Accepted { account, trace, meant_at, answered_at })),
                decided => {
                    trace.end(&decided);
                    self.tally.lock().decided(account, decided, meant_at, answered_at);
                }
            }
        }
    }

    /// In an open loop each claim has a scheduled time, whether or not a client is late for it.
    async fn wait_for_turn(&self, place: usize) -> Instant {
        let Some((started, rate)) = self.schedule else { return Instant::now() };
        let meant_at = started + Duration::from_secs_f64(place as f64 / f64::from(rate));
        tokio::time::sleep_until(meant_at).await;
        meant_at
    }
}

/// Reads the outcome of a claim from an answer.
///
/// # Errors
/// The API answered with anything else.
pub fn read_outcome(status: StatusCode, body: &[u8]) -> anyhow::Result<Outcome> {
    match status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => {
            serde_json::from_slice(body).with_context(|| format!("{status}: {}", String::from_utf8_lossy(body)))
        }
        StatusCode::CONFLICT => Ok(Outcome::SoldOut),
        _ => anyhow::bail!("{status}: {}", String::from_utf8_lossy(body)),
    }
}
