//! The routes under `/v1/campaigns`, but for what a service does with a claim: that is its own `POST` handler.

use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, web};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::extract::{self, BODY_MAX};
use super::problem::{Problem, no_such_method};
use super::rate_limit::RateLimit;
use crate::campaigns::{Admission, Campaigns};
use crate::claims::Claims;
use crate::domain::{CampaignId, ClaimKey, Outcome};

/// What an API answers about a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub struct CampaignView {
    /// Its number.
    #[schema(value_type = u64)]
    pub id: CampaignId,
    /// For people.
    pub name: String,
    /// Claims are refused before this instant.
    #[serde(with = "time::serde::rfc3339::option")]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub closes_at: Option<OffsetDateTime>,
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
    /// Outcomes of claims.
    pub claims: Claims,
    /// How often an account may claim.
    pub rate_limit: RateLimit,
}

impl ClaimRoutes {
    /// The routes, with `post` for `POST /v1/campaigns/{campaign_id}/claims`.
    pub fn configure<F, Args>(&self, config: &mut web::ServiceConfig, post: F)
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        config
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .app_data(web::Data::new(self.clone()))
            .service(
                web::resource("/v1/campaigns/{campaign_id}")
                    .route(web::get().to(campaign))
                    .default_service(web::to(no_such_method)),
            )
            .service(
                web::resource("/v1/campaigns/{campaign_id}/claims")
                    .route(web::post().to(post))
                    .default_service(web::to(no_such_method)),
            )
            .service(
                web::resource("/v1/campaigns/{campaign_id}/claims/{account_id}")
                    .route(web::get().to(claim))
                    .default_service(web::to(no_such_method)),
            );
    }

    /// Reads a claim from a request and decides from memory what to do with it: `Ok` for one to take on.
    ///
    /// # Errors
    /// Bad input, too many claims, no such campaign, not open, sold out, as problems.
    pub async fn admit(
        &self,
        request: &HttpRequest,
        body: Result<web::Bytes, actix_web::Error>,
    ) -> Result<Admitted, Problem> {
        let campaign_id = extract::campaign_id(request)?;
        let account_id = extract::claim_body(request, body)?.account_id;
        let claim = ClaimKey { campaign_id, account_id };
        self.rate_limit.count(account_id)?;
        let state = self.campaigns.state(campaign_id).await?;
        match state.admit(account_id, OffsetDateTime::now_utc()) {
            Admission::Open => Ok(Admitted::Claim(claim)),
            Admission::Unknown => Err(Problem::unknown_campaign()),
            Admission::NotOpen => Err(Problem::not_open()),
            Admission::Closed => Err(Problem::closed()),
            Admission::SoldOut => Err(Problem::sold_out()),
            Admission::MayHaveWon => match self.claims.outcome(claim, std::time::Duration::ZERO).await? {
                Some(issued @ Outcome::Issued { .. }) => Ok(Admitted::Issued(issued)),
                // Restocked in between.
                Some(Outcome::Pending) => Ok(Admitted::Claim(claim)),
                Some(Outcome::SoldOut) | None => Err(Problem::sold_out()),
            },
        }
    }
}

/// A claim that was let in.
#[derive(Clone, Copy, Debug)]
pub enum Admitted {
    /// To be taken on.
    Claim(ClaimKey),
    /// Of a campaign that is sold out, by an account that holds a coupon of it: here is its answer.
    Issued(Outcome),
}

/// How a campaign stands.
#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}", tag = "campaigns",
    params(("campaign_id" = u64, Path, description = "The campaign")),
    responses(
        (status = 200, description = "Its window and stock, counted at most a second ago", body = CampaignView),
        (status = 400, description = "Bad input, with the field named", body = super::problem::ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such campaign", body = super::problem::ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn campaign(
    routes: web::Data<ClaimRoutes>,
    request: HttpRequest,
) -> Result<web::Json<CampaignView>, Problem> {
    let id = extract::campaign_id(&request)?;
    let state = routes.campaigns.state(id).await?;
    let campaign = state.campaign.clone().ok_or_else(Problem::unknown_campaign)?;
    let free = if state.is_sold_out() { 0 } else { routes.campaigns.count_free(id).await?.min(campaign.coupons) };
    Ok(web::Json(CampaignView {
        id,
        name: campaign.name,
        opens_at: campaign.opens_at,
        closes_at: campaign.closes_at,
        total: campaign.coupons,
        issued: campaign.coupons - free,
        free,
    }))
}

/// What became of an account's claim.
#[utoipa::path(
    get, path = "/v1/campaigns/{campaign_id}/claims/{account_id}", tag = "claims",
    params(
        ("campaign_id" = u64, Path, description = "The campaign"),
        ("account_id" = u64, Path, description = "The account"),
        ("wait" = Option<String>, Query, description = "Wait up to this long for an outcome, such as 5s; 30s at most", example = "5s"),
    ),
    responses(
        (status = 200, description = "issued with the coupon, sold_out, or pending: not decided yet, or never claimed", body = Outcome),
        (status = 400, description = "Bad input, with the field named", body = super::problem::ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such campaign", body = super::problem::ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Cannot be told right now", body = super::problem::ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn claim(routes: web::Data<ClaimRoutes>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let claim = ClaimKey { campaign_id: extract::campaign_id(&request)?, account_id: extract::account_id(&request)? };
    let wait = extract::wait(&request)?;
    let outcome = routes.claims.outcome(claim, wait).await?.ok_or_else(Problem::unknown_campaign)?;
    Ok(HttpResponse::Ok().json(outcome))
}
