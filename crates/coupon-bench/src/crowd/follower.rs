//! Asks for the outcomes of accepted claims with long polls, while the crowd still claims.

use std::time::Duration;

use coupon_core::Outcome;
use hyper::Method;
use tokio::time::Instant;

use super::claimer::{Accepted, read_outcome};
use super::client::Client;
use super::plan::Campaigns;
use super::tally::SharedTally;
use super::trace::Trace;

/// How long the API may wait in one request.
const WAIT: &str = "10s";

pub struct Follower {
    pub client: Client,
    pub campaigns: Campaigns,
    /// How long it keeps asking about one claim.
    pub patience: Duration,
    pub tally: SharedTally,
}

impl Follower {
    pub async fn run(mut self, to_follow: flume::Receiver<Accepted>) {
        while let Ok(Accepted { account, trace, meant_at, answered_at }) = to_follow.recv_async().await {
            let give_up_at = Instant::now() + self.patience;
            let decided = loop {
                let question = trace.question();
                let answer = self.ask(account, &question).await;
                question.end(&answer);
                match answer {
                    Ok(Outcome::Pending) | Err(_) if Instant::now() < give_up_at => {}
                    decided => break decided,
                }
            };
            trace.end(&decided);
            self.tally.lock().decided(account, decided, meant_at, answered_at);
        }
    }

    async fn ask(&mut self, account: u64, question: &Trace) -> anyhow::Result<Outcome> {
        let path = format!("/v1/campaigns/{}/claims/{account}?wait={WAIT}", self.campaigns.of(account));
        let (status, body) = self.client.send(Method::GET, &path, String::new(), [question.header()?]).await?;
        read_outcome(status, &body)
    }
}
