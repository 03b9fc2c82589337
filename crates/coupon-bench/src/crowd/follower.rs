//! Asks what became of accepted claims, with long polls, while the crowd still claims.

use std::time::Duration;

use coupon_core::Outcome;
use hyper::Method;
use tokio::time::Instant;

use super::claimer::{Accepted, read_outcome};
use super::client::Client;
use super::plan::Campaigns;
use super::tally::SharedTally;
use super::traceparent::Traceparent;

/// How long the API may wait in one request.
const WAIT: &str = "10s";

pub struct Follower {
    pub client: Client,
    pub campaigns: Campaigns,
    /// How long it asks about one claim.
    pub patience: Duration,
    pub tally: SharedTally,
}

impl Follower {
    pub async fn run(mut self, to_follow: flume::Receiver<Accepted>) {
        while let Ok(Accepted { account, meant_at }) = to_follow.recv_async().await {
            let give_up_at = Instant::now() + self.patience;
            let decided = loop {
                match self.ask(account).await {
                    Ok(Outcome::Pending) | Err(_) if Instant::now() < give_up_at => {}
                    decided => break decided,
                }
            };
            self.tally.lock().decided(account, decided, meant_at);
        }
    }

    async fn ask(&mut self, account: u64) -> anyhow::Result<Outcome> {
        let path = format!("/v1/campaigns/{}/claims/{account}?wait={WAIT}", self.campaigns.of(account));
        // Only claims are measured: a question is never traced.
        let traceparent = Traceparent::random(0.0).header()?;
        let (status, body) = self.client.send(Method::GET, &path, String::new(), [traceparent]).await?;
        read_outcome(status, &body)
    }
}
