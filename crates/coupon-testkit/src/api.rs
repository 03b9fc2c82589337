//! A client of the HTTP API that keeps the outcomes it was given, for the audit.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coupon_core::domain::JSON_NUMBER_MAX;
use coupon_core::{AccountId, CampaignId, ClaimKey, Outcome};
use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::authority::TestAuthority;
use crate::issuer::TestIssuer;
use crate::wait::DEADLINE;

/// Requests in flight when many accounts claim.
const CROWD: usize = 64;

/// The outcomes that the clients of a test were given.
#[derive(Clone, Default)]
pub(crate) struct Reported(Arc<Mutex<Vec<(ClaimKey, Outcome)>>>);

impl Reported {
    pub(crate) fn add(&self, claim: ClaimKey, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((claim, outcome));
    }

    pub(crate) fn all(&self) -> Vec<(ClaimKey, Outcome)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn forget_sold_out(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, outcome)| *outcome != Outcome::SoldOut);
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub text: String,
    /// The body as JSON; null if it is not JSON.
    pub json: Value,
}

impl Answer {
    /// A header as text, empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The `code` of a problem.
    #[must_use]
    pub fn code(&self) -> &str {
        self.json.get("code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The outcome in the body.
    ///
    /// # Panics
    /// The body holds no outcome.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        serde_json::from_value(self.json.clone()).unwrap_or_else(|_| panic!("no outcome in {self:?}"))
    }

    /// Whether this is a 503 that says when to come back.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.status == 503 && self.code() == "unavailable" && self.header("retry-after").parse::<u64>().is_ok()
    }
}

/// A client of one service.
#[derive(Clone)]
pub struct Api {
    http: Client,
    base: String,
    reported: Reported,
    issuer: Option<Arc<TestIssuer>>,
    comes_back: bool,
}

/// A client of HTTP without TLS, which does not need this machine's certificate authorities.
pub(crate) fn http(from: Option<IpAddr>) -> Client {
    client(from).build().expect("an HTTP client")
}

fn client(from: Option<IpAddr>) -> ClientBuilder {
    Client::builder().timeout(DEADLINE).tls_certs_only([]).local_address(from)
}

impl Api {
    pub(crate) fn new(address: SocketAddr, reported: Reported) -> Self {
        Self { http: http(None), base: format!("http://{address}"), reported, issuer: None, comes_back: false }
    }

    /// The same client, with a token of this issuer for the account of each request.
    #[must_use]
    pub fn with_tokens(self, issuer: Option<Arc<TestIssuer>>) -> Self {
        Self { issuer, ..self }
    }

    /// The same client, which repeats claims that are answered with "come back later", or does not.
    #[must_use]
    pub fn coming_back(self, comes_back: bool) -> Self {
        Self { comes_back, ..self }
    }

    /// The same client, calling from another address of this machine.
    #[must_use]
    pub fn calling_from(self, address: impl Into<IpAddr>) -> Self {
        Self { http: http(Some(address.into())), ..self }
    }

    /// The same client, over TLS with a service whose certificate this authority issued.
    #[must_use]
    pub fn over_tls(self, authority: &TestAuthority) -> Self {
        let authority = Certificate::from_der(&authority.certificate()).expect("a certificate");
        let http = Client::builder().timeout(DEADLINE).tls_certs_only([authority]).build().expect("an HTTP client");
        Self { http, base: self.base.replacen("http://", "https://", 1), ..self }
    }

    /// The same client, without keep-alive: an idle connection would use up a service that allows only one.
    #[must_use]
    pub fn hanging_up(self) -> Self {
        Self { http: client(None).pool_max_idle_per_host(0).build().expect("an HTTP client"), ..self }
    }

    /// A request on behalf of an account.
    pub fn request_of(&self, account: u64, method: Method, path: &str) -> RequestBuilder {
        let request = self.request(method, path);
        match &self.issuer {
            Some(issuer) => request.bearer_auth(issuer.token(account)),
            None => request,
        }
    }

    /// A request to be completed by the test.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request.
    ///
    /// # Panics
    /// No answer arrives.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap_or_else(|error| panic!("no answer: {error:?}"));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole body");
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, json }
    }

    /// Sends a GET request.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends a claim and returns the answer as it is.
    pub async fn post_claim(&self, campaign: CampaignId, account: u64) -> Answer {
        let path = format!("/v1/campaigns/{campaign}/claims");
        let number = if account > JSON_NUMBER_MAX { json!(account.to_string()) } else { json!(account) };
        let body = json!({"account_id": number}).to_string();
        self.send(self.request_of(account, Method::POST, &path).header(CONTENT_TYPE, "application/json").body(body))
            .await
    }

    /// Sends a claim that prefers to wait for its outcome, with this `Prefer` header.
    pub async fn post_claim_preferring(&self, prefer: &str, campaign: CampaignId, account: u64) -> Answer {
        let path = format!("/v1/campaigns/{campaign}/claims");
        let request = self.request_of(account, Method::POST, &path).header("prefer", prefer);
        let body = json!({"account_id": account}).to_string();
        self.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// Reads a claim, waiting this long for an outcome.
    pub async fn get_claim(&self, campaign: CampaignId, account: u64, wait: Duration) -> Answer {
        let path = format!("/v1/campaigns/{campaign}/claims/{account}?wait={}ms", wait.as_millis());
        self.send(self.request_of(account, Method::GET, &path)).await
    }

    /// Claims a coupon and waits until the outcome is final. The audit will check the outcome.
    ///
    /// # Panics
    /// The claim is refused.
    pub async fn claim(&self, campaign: CampaignId, account: u64) -> Outcome {
        if self.comes_back {
            return self.claim_patiently(campaign, account).await;
        }
        let outcome = self.try_claim(campaign, account).await;
        outcome.unwrap_or_else(|refusal| panic!("the claim of account {account} was refused: {refusal:?}"))
    }

    /// Like [`Self::claim`], but returns an answer that is not an outcome.
    pub async fn try_claim(&self, campaign: CampaignId, account: u64) -> Result<Outcome, Box<Answer>> {
        let answer = self.post_claim(campaign, account).await;
        let claim = ClaimKey { campaign_id: campaign, account_id: AccountId(account) };
        let outcome = match answer.status {
            200 | 201 => answer.outcome(),
            202 => self.follow(&self.resolve(&format!("/v1/campaigns/{campaign}/claims"), &answer), claim).await,
            409 if answer.code() == "sold_out" => Outcome::SoldOut,
            _ => return Err(Box::new(answer)),
        };
        self.reported.add(claim, outcome);
        Ok(outcome)
    }

    /// Like [`Self::claim`], but repeats the claim while the answer is "come back later", as a good client does.
    pub async fn claim_patiently(&self, campaign: CampaignId, account: u64) -> Outcome {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.try_claim(campaign, account).await {
                Ok(outcome) => return outcome,
                Err(answer) if answer.is_unavailable() && Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(answer) => panic!("the claim of account {account} was refused: {answer:?}"),
            }
        }
    }

    /// Claims for many accounts at the same time, patiently.
    pub async fn claim_all_patiently(
        &self,
        campaign: CampaignId,
        accounts: impl IntoIterator<Item = u64>,
    ) -> Vec<(u64, Outcome)> {
        let claims = accounts.into_iter().map(async |account| (account, self.claim_patiently(campaign, account).await));
        stream::iter(claims).buffer_unordered(CROWD).collect().await
    }

    /// Claims for many accounts at the same time.
    pub async fn claim_all(
        &self,
        campaign: CampaignId,
        accounts: impl IntoIterator<Item = u64>,
    ) -> Vec<(u64, Outcome)> {
        let claims = accounts.into_iter().map(async |account| (account, self.claim(campaign, account).await));
        stream::iter(claims).buffer_unordered(CROWD).collect().await
    }

    /// Waits for the outcome of a claim that was accepted earlier. The audit will check the outcome.
    pub async fn settled(&self, campaign: CampaignId, account: u64) -> Outcome {
        let claim = ClaimKey { campaign_id: campaign, account_id: AccountId(account) };
        let outcome = self.follow(&format!("/v1/campaigns/{campaign}/claims/{account}"), claim).await;
        self.reported.add(claim, outcome);
        outcome
    }

    /// The path of an answer's `location`, which is relative to the requested path.
    fn resolve(&self, asked: &str, answer: &Answer) -> String {
        let asked = Url::parse(&format!("{}{asked}", self.base)).expect("an address");
        asked.join(answer.header("location")).expect("a location").path().to_owned()
    }

    /// Asks until the outcome is final. An outcome that stays pending is reported as pending, which fails the audit.
    async fn follow(&self, location: &str, claim: ClaimKey) -> Outcome {
        let here = format!("/v1/campaigns/{}/claims/{}", claim.campaign_id, claim.account_id);
        assert_eq!(location, here, "the address of the claim");
        let end = Instant::now() + DEADLINE;
        loop {
            let path = format!("{location}?wait=10s");
            let answer = self.send(self.request_of(claim.account_id.0, Method::GET, &path)).await;
            // The claim was accepted, so if it cannot be answered now, it can be later.
            let outcome = if answer.is_unavailable() { Outcome::Pending } else { answer.outcome() };
            if outcome != Outcome::Pending || Instant::now() > end {
                return outcome;
            }
        }
    }
}
