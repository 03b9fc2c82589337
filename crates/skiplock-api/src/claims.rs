//! `POST /v1/campaigns/{campaign_id}/claims`: the hot path.
//!
//! Invariant: 201 is said only after MySQL has committed the coupon.

use actix_web::{HttpRequest, HttpResponse, web};
use coupon_core::Outcome;
use coupon_core::http::claims::{Admitted, Answer, ClaimRoutes, respond};
use coupon_core::http::extract::ClaimBody;
use coupon_core::http::problem::{Problem, ProblemDocument};
use utoipa::OpenApi;

use crate::strategy::{Claimed, Strategy};

/// What this service adds to the shared routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Coupons: the skiplock way", description = "Claims are answered with their coupon."),
    paths(claim)
)]
pub struct Document;

/// Claims a coupon for an account and answers with it.
#[utoipa::path(
    post, path = "/v1/campaigns/{campaign_id}/claims", tag = "claims",
    params(("campaign_id" = u64, Path, description = "The campaign")),
    request_body = ClaimBody,
    responses(
        (status = 201, description = "Issued", body = Outcome),
        (status = 200, description = "The account held this coupon already", body = Outcome),
        (status = 400, description = "Bad input, with the field named", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "Not open yet, or closed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such campaign", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "Sold out", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "Body too long", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "Body is not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "This account claims too often; repeat after Retry-After", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "MySQL is away or busy; repeat after Retry-After", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn claim(
    routes: web::Data<ClaimRoutes>,
    strategy: web::Data<Strategy>,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<HttpResponse, Problem> {
    respond(take(&routes, &strategy, &request, body).await)
}

async fn take(
    routes: &ClaimRoutes,
    strategy: &Strategy,
    request: &HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<Answer, Problem> {
    let claim = match routes.admit(request, body).await? {
        Admitted::Claim(claim) => claim,
        Admitted::Held(coupon_id) => return Ok(Answer::Held(coupon_id)),
    };
    match strategy.claim(claim).await? {
        Claimed::Issued(coupon_id) => Ok(Answer::Issued(claim, coupon_id)),
        Claimed::Held(coupon_id) => Ok(Answer::Held(coupon_id)),
        Claimed::SoldOut => {
            routes.campaigns.notice_change();
            Err(Problem::sold_out())
        }
    }
}
