//! The routes under `/v1/campaigns`: a claim is let in, handed to the service that handles it, and answered.
//!
//! Invariant: both APIs do all of this alike; only the handling of a claim that was let in is a service's own.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, web};
use opentelemetry::Context;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::auth::Auth;
use super::campaigns::{Admission, Campaigns};
use super::extract;
use super::outcome_reader::OutcomeReader;
use super::rate_limit::{RateLimit, RateSettings};
use super::refusals::Refusals;
use super::repeats::Repeats;
use crate::domain::{AccountId, CampaignId, ClaimKey, CouponId, Outcome};
use crate::http::connection;
use crate::http::headers::PREFERENCE_APPLIED;
use crate::http::problem::{NO_STORE, Problem};
use crate::http::route::{get, post};
use crate::mysql::campaigns::Counts;
use crate::telemetry::{attribute, metrics, span};

/// What an API answers about a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    /// Its number.
    pub id: CampaignId,
    /// Its name, for people.
    pub name: String,
    /// Claims are refused before this instant.
    #[schema(required)]
    #[serde(with = "time::serde::rfc3339::option")]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[schema(required)]
    #[serde(with = "time::serde::rfc3339::option")]
    pub closes_at: Option<OffsetDateTime>,
    /// Whether an operator has paused it: claims are refused meanwhile.
    pub paused: bool,
    /// How many coupons it has.
    pub total: u64,
    /// How many have an account.
    pub issued: u64,
    /// How many have none.
    pub free: u64,
}

/// What the shared routes need.
#[derive(Clone)]
pub struct ClaimRoutes {
    /// Campaign state in memory.
    pub campaigns: Campaigns,
    /// The outcomes of claims.
    pub outcomes: OutcomeReader,
    /// Who may claim and read.
    pub auth: Auth,
    rate_limit: RateLimit,
    repeats: Repeats,
}

impl ClaimRoutes {
    /// Creates the routes, which answer from these campaigns and outcomes and let in the callers that `auth` allows.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn new(campaigns: Campaigns, outcomes: OutcomeReader, auth: Auth, rate: RateSettings) -> Self {
        let (rate_limit, repeats) = (RateLimit::start(rate), Repeats::default());
        Self { campaigns, outcomes, auth, rate_limit, repeats }
    }

    /// Adds the routes, with `claims` for `POST /v1/campaigns/{campaign_id}/claims`.
    pub fn configure<F, Args>(&self, config: &mut web::ServiceConfig, claims: F)
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        config
            .app_data(web::Data::new(self.clone()))
            .service(get("/v1/campaigns/{campaign_id}", campaign))
            .service(post("/v1/campaigns/{campaign_id}/claims", claims))
            .service(get("/v1/campaigns/{campaign_id}/claims/{account_id}", claim));
    }

    /// `POST …/claims`: lets a claim in or refuses it, has `take` handle it as the service does, and answers.
    ///
    /// # Errors
    /// A caller without permission, bad input, too many claims, no such campaign, a campaign that is not open or is
    /// sold out, and the errors of `take`.
    pub async fn post(
        &self,
        request: &HttpRequest,
        take: impl AsyncFnOnce(ClaimKey) -> Result<Answer, Problem>,
    ) -> Result<HttpResponse, Problem> {
        let answer = match self.admit(request).await {
            Ok(Admitted::Claim(claim)) => take(claim).await,
            Ok(Admitted::Held(coupon_id)) => Ok(Answer::Held(coupon_id)),
            Err(problem) => Err(problem),
        };
        let outcome = answer.as_ref().map_or_else(Problem::code, |answer| answer.name());
        metrics::claims(outcome, 1);
        Context::map_current(|context| span::note(context, attribute::OUTCOME, outcome));
        let answer = answer?;
        if let Answer::Accepted(claim) = answer
            && let Some(wait) = extract::preferred_wait(request)
        {
            return Ok(Box::pin(self.wait_for_outcome(request, claim, wait)).await);
        }
        Ok(answer.response())
    }

    /// Answers an accepted claim with its outcome if that is known in time, and like any other accepted claim if not:
    /// an outcome that cannot be read for now does not undo the promise that there will be one.
    async fn wait_for_outcome(&self, request: &HttpRequest, claim: ClaimKey, wait: Duration) -> HttpResponse {
        let outcome = tokio::select! {
            biased;
            outcome = self.outcomes.ask(claim, wait) => outcome,
            () = connection::wait_over(request) => Ok(Outcome::Pending),
        };
        let answer = match outcome {
            Ok(Outcome::Pending) | Err(_) => Answer::Accepted(claim),
            Ok(outcome) => Answer::Settled(outcome),
        };
        Context::map_current(|context| span::note(context, attribute::OUTCOME, answer.name()));
        let mut response = answer.response();
        if let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }

    /// Reads a claim from a request and decides from memory what to do with it.
    async fn admit(&self, request: &HttpRequest) -> Result<Admitted, Problem> {
        let caller = self.auth.caller(request).await?;
        let campaign_id = extract::campaign_id(request)?;
        extract::no_query(request)?;
        Context::map_current(|context| span::note(context, attribute::CAMPAIGN_ID, campaign_id));
        let account_id = extract::claim_body(request)?.account_id;
        let claim = ClaimKey { campaign_id, account_id };
        self.rate_limit.count(caller.claiming(claim)?)?;
        self.repeats.link(claim);
        let state = self.campaigns.state(campaign_id).await?;
        match state.admit(account_id, OffsetDateTime::now_utc()) {
            Admission::Open => Ok(Admitted::Claim(claim)),
            Admission::Unknown => Err(Problem::unknown_campaign()),
            Admission::NotOpen => Err(Problem::not_open()),
            Admission::Closed => Err(Problem::closed()),
            Admission::Paused => Err(Problem::paused()),
            Admission::SoldOut => Err(Problem::sold_out()),
            // Boxed, like everything rare on the path of a claim: a future is as large as its largest branch.
            Admission::MayHaveWon => match Box::pin(self.outcomes.outcome(claim, Duration::ZERO)).await? {
                Some(Outcome::Issued { coupon_id }) => Ok(Admitted::Held(coupon_id)),
                // Restocked in between.
                Some(Outcome::Pending) => Ok(Admitted::Claim(claim)),
                Some(Outcome::SoldOut) => Err(Problem::sold_out()),
                None => Err(Problem::unknown_campaign()),
            },
        }
    }
}

/// A claim that was let in.
enum Admitted {
    /// The service is to handle it.
    Claim(ClaimKey),
    /// Its campaign is sold out, and its account holds this coupon of it.
    Held(CouponId),
}

/// The answer to a claim when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// It is safe with the broker; the client asks for its outcome later.
    Accepted(ClaimKey),
    /// It was issued this coupon.
    Issued(ClaimKey, CouponId),
    /// The account already held this coupon.
    Held(CouponId),
    /// It was accepted and has had this outcome since.
    Settled(Outcome),
}

impl Answer {
    fn name(self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Issued(..) => "issued",
            Self::Held(_) => "held",
            Self::Settled(outcome) => outcome.name(),
        }
    }

    fn response(self) -> HttpResponse {
        // Relative to …/campaigns/1/claims, so that it also works through a gateway that strips a prefix.
        let at = |claim: ClaimKey| format!("claims/{}", claim.account_id);
        let (mut response, outcome) = match self {
            Self::Accepted(_) => (HttpResponse::Accepted(), Outcome::Pending),
            Self::Issued(_, coupon_id) => (HttpResponse::Created(), Outcome::Issued { coupon_id }),
            Self::Held(coupon_id) => (HttpResponse::Ok(), Outcome::Issued { coupon_id }),
            Self::Settled(outcome) => (HttpResponse::Ok(), outcome),
        };
        if let Self::Accepted(claim) | Self::Issued(claim, _) = self {
            response.insert_header((LOCATION, at(claim)));
        }
        response.insert_header((CACHE_CONTROL, NO_STORE)).json(outcome)
    }
}

/// How a campaign stands.
///
/// Its window, and how many of its coupons have an account. Answered from memory, except the counts, which are of one
/// moment, at most a second ago.
#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}", tag = "campaigns", operation_id = "getCampaign",
    params(("campaign_id" = CampaignId, Path, description = "The campaign")),
    responses(
        (status = 200, description = "Its window and stock, counted at most a second ago", body = CampaignView),
        Refusals,
    )
)]
pub(super) async fn campaign(
    routes: web::Data<ClaimRoutes>,
    request: HttpRequest,
) -> Result<web::Json<CampaignView>, Problem> {
    let id = extract::campaign_id(&request)?;
    extract::no_query(&request)?;
    let state = routes.campaigns.state(id).await?;
    let campaign = state.campaign.clone().ok_or_else(Problem::unknown_campaign)?;
    let Counts { coupons, free } = routes.campaigns.count(&campaign, &state).await?;
    Ok(web::Json(CampaignView {
        id,
        name: campaign.name,
        opens_at: campaign.opens_at,
        closes_at: campaign.closes_at,
        paused: campaign.paused,
        total: coupons,
        issued: coupons.saturating_sub(free),
        free,
    }))
}

/// What became of an account's claim.
///
/// Answers as soon as there is an outcome, or with `pending` when the wait is over. A client that closes its half of
/// the connection meanwhile is answered at once.
#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}/claims/{account_id}", tag = "claims", operation_id = "getClaim",
    params(
        ("campaign_id" = CampaignId, Path, description = "The campaign"),
        ("account_id" = AccountId, Path, description = "The account"),
        (
            "wait" = inline(Option<String>), Query,
            description = "Wait up to this long for an outcome, in seconds or milliseconds; 30s at most",
            pattern = "^([0-9]|[12][0-9]|30)s$|^([0-9]|[1-9][0-9]{1,3}|[12][0-9]{4}|30000)ms$", example = "5s",
        ),
    ),
    responses(
        (
            status = 200, body = Outcome,
            description = "issued with the coupon; sold_out: the account holds none and none is free, whether or not it has \
                           claimed; or pending: not decided yet, or never claimed",
        ),
        Refusals,
    )
)]
pub(super) async fn claim(routes: web::Data<ClaimRoutes>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let caller = routes.auth.caller(&request).await?;
    let claim = extract::claim_key(&request)?;
    caller.acting_for(claim.account_id)?;
    let wait = extract::wait(&request)?;
    let outcome = tokio::select! {
        biased;
        outcome = routes.outcomes.outcome(claim, wait) => outcome,
        () = connection::wait_over(&request) => routes.outcomes.outcome(claim, Duration::ZERO).await,
    };
    let outcome = outcome?.ok_or_else(Problem::unknown_campaign)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, NO_STORE)).json(outcome))
}
