//! Clients of both APIs: they send claims and questions, and note every answer in the journal.
//!
//! Invariant: an answer that did not arrive in full is a silence, whatever part of it arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coupon_core::{ClaimKey, CouponId};
use reqwest::Client;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::campaigns::Campaigns;
use crate::journal::{Answer, Instance, Journal, Operation, Request};

/// The indexes of the APIs among the instances.
pub const APIS: [Instance; 4] = [0, 1, 4, 5];

/// How long a client waits for an answer; a wait that it asks for comes on top.
const PATIENCE: Duration = Duration::from_secs(6);

/// The clients of a run.
pub struct Clients {
    http: Client,
    addresses: Vec<String>,
    /// The journal of their requests.
    pub journal: Arc<Journal>,
    /// The campaigns.
    pub campaigns: Arc<Campaigns>,
    /// How many claims sent to each instance are not settled yet.
    pub unsettled: Vec<AtomicUsize>,
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
        let unsettled = addresses.iter().map(|_| AtomicUsize::new(0)).collect();
        Ok(Self { http, addresses, journal, campaigns, unsettled, give_up: AtomicU64::new(u64::MAX) })
    }

    /// How many claims are in flight at these instances.
    pub fn in_flight(&self, instances: &[Instance]) -> usize {
        let at = |&instance: &Instance| self.unsettled.get(instance).map_or(0, |count| count.load(Ordering::Relaxed));
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
