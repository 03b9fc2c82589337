//! Clients that claim on a fixed schedule, however long answers take, from all instances of both APIs; some of them
//! claim twice.
//!
//! Invariant: a claim is sent when its time has come, whether or not earlier ones have been answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::campaigns::Campaigns;
use crate::follow_up;
use crate::journal::{Answer, Instance, Journal, Operation, Request};

/// The indexes of the APIs among the instances.
pub const APIS: [Instance; 4] = [0, 1, 4, 5];

/// How long a client waits for an answer; a wait that it asks for comes on top.
const PATIENCE: Duration = Duration::from_secs(6);

/// How many claims in a hundred are sent twice at nearly the same time, and how many are repeated some seconds later.
const DOUBLE_PERCENT: u32 = 8;
const LATER_PERCENT: u32 = 4;

/// The clients of a run.
pub struct Clients {
    http: Client,
    addresses: Vec<String>,
    /// The journal of their requests.
    pub journal: Arc<Journal>,
    /// The campaigns.
    pub campaigns: Arc<Campaigns>,
    /// How many claims sent to each instance are not settled yet.
    in_flight: Vec<AtomicUsize>,
    /// The time after which no client follows up a claim any more, in microseconds of the journal.
    pub give_up: AtomicU64,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    status: String,
    coupon_id: Option<CouponId>,
}

impl Clients {
    /// Creates clients that know these addresses.
    pub fn new(addresses: Vec<String>, journal: Arc<Journal>, campaigns: Arc<Campaigns>) -> anyhow::Result<Self> {
        let http = Client::builder().tls_certs_only([]).build()?;
        let in_flight = addresses.iter().map(|_| AtomicUsize::new(0)).collect();
        Ok(Self { http, addresses, journal, campaigns, in_flight, give_up: AtomicU64::new(u64::MAX) })
    }

    /// How many claims are in flight at these instances.
    pub fn in_flight(&self, instances: &[Instance]) -> usize {
        let at = |&instance: &Instance| self.in_flight.get(instance).map_or(0, |count| count.load(Ordering::Relaxed));
        instances.iter().map(at).sum()
    }

    /// Sends a claim.
    pub async fn claim(&self, instance: Instance, claim: ClaimKey) -> Answer {
        let url = format!("{}/v1/campaigns/{}/claims", self.address(instance), claim.campaign_id);
        let body = format!("{{\"account_id\":{}}}", claim.account_id);
        let request = self.http.post(url).header(CONTENT_TYPE, "application/json").body(body).timeout(PATIENCE);
        self.send(instance, claim, Request::Claim, request).await
    }

    /// Asks for the outcome of a claim, waiting up to `wait` for it.
    pub async fn ask(&self, instance: Instance, claim: ClaimKey, wait: Duration) -> Answer {
        let (campaign, account) = (claim.campaign_id, claim.account_id);
        let url =
            format!("{}/v1/campaigns/{campaign}/claims/{account}?wait={}s", self.address(instance), wait.as_secs());
        self.send(instance, claim, Request::Ask, self.http.get(url).timeout(wait + PATIENCE)).await
    }

    fn address(&self, instance: Instance) -> &str {
        self.addresses.get(instance).map(String::as_str).unwrap_or_default()
    }

    async fn send(
        &self,
        instance: Instance,
        claim: ClaimKey,
        request: Request,
        sent: reqwest::RequestBuilder,
    ) -> Answer {
        let begun = self.journal.now();
        let answer = read(sent).await.unwrap_or(Answer::Silence);
        let ended = self.journal.now();
        self.journal.add(Operation { claim, request, instance, begun, ended, answer });
        answer
    }

    /// Plays one client: a claim, and whatever follows.
    async fn visit(self: Arc<Self>, instance: Instance, claim: ClaimKey, after: Duration) {
        tokio::time::sleep(after).await;
        let Some(in_flight) = self.in_flight.get(instance) else { return };
        in_flight.fetch_add(1, Ordering::Relaxed);
        let first = self.claim(instance, claim).await;
        follow_up::until_final(&self, instance, claim, first).await;
        in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads an answer; none if it did not arrive in full.
async fn read(sent: reqwest::RequestBuilder) -> Option<Answer> {
    let response = sent.send().await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    Some(match status {
        200 | 201 => {
            let body: Body = serde_json::from_str(&text).ok()?;
            match (body.status.as_str(), body.coupon_id) {
                ("issued", Some(coupon)) => Answer::Issued(coupon),
                ("sold_out", _) => Answer::SoldOut,
                _ => Answer::Pending,
            }
        }
        202 => Answer::Accepted,
        409 => Answer::SoldOut,
        500.. => Answer::Failed(status),
        _ => Answer::Refused(status),
    })
}

/// Sends claims at a fixed rate until told to stop, and returns when every client is done.
pub async fn run(clients: Arc<Clients>, seed: u64, rate: u32, stop: watch::Receiver<bool>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut visits = JoinSet::new();
    let began = clients.journal.began();
    for n in 0u64.. {
        tokio::time::sleep_until(began + Duration::from_secs_f64(n as f64 / f64::from(rate))).await;
        if *stop.borrow() {
            break;
        }
        while visits.try_join_next().is_some() {}
        let campaign: CampaignId = clients.campaigns.choose(&mut rng, clients.journal.now());
        let claim = ClaimKey { campaign_id: campaign, account_id: AccountId(n + 1) };
        let again_ms = match rng.random_range(0..100) {
            0..DOUBLE_PERCENT => Some(rng.random_range(0..40)),
            n if n < DOUBLE_PERCENT + LATER_PERCENT => Some(rng.random_range(500..8_000)),
            _ => None,
        };
        for after_ms in [Some(0), again_ms].into_iter().flatten() {
            let instance = APIS.get(rng.random_range(0..APIS.len())).copied().unwrap_or(0);
            visits.spawn(Arc::clone(&clients).visit(instance, claim, Duration::from_millis(after_ms)));
        }
    }
    while visits.join_next().await.is_some() {}
}
