//! `POST /v1/campaigns/{campaign_id}/claims`: the hot path.
//!
//! Invariant: 202 is said only after the broker has confirmed the claim; everything before that is answered otherwise.

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::{HttpRequest, HttpResponse, web};
use coupon_core::http::claims::{Admitted, Answer, ClaimRoutes, respond};
use coupon_core::http::extract::ClaimBody;
use coupon_core::http::problem::{Problem, ProblemDocument};
use coupon_core::{Claim, Outcome};
use utoipa::OpenApi;

use crate::publish::Publisher;

/// What this service adds to the shared routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Coupons: the queue way",
        description = "Claims go through RabbitMQ; ask for the outcome afterwards."
    ),
    paths(claim)
)]
pub struct Document;

/// Claims a coupon for an account. The answer is where to ask for the outcome.
#[utoipa::path(
    post, path = "/v1/campaigns/{campaign_id}/claims", tag = "claims",
    params(("campaign_id" = u64, Path, description = "The campaign")),
    request_body = ClaimBody,
    responses(
        (status = 202, description = "Accepted; Location is where to ask for the outcome", body = Outcome),
        (status = 200, description = "The campaign is sold out and this account has its coupon", body = Outcome),
        (status = 400, description = "Bad input, with the field named", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "Not open yet, or closed", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such campaign", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "Sold out", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "Body too long", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "Body is not JSON", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "This account claims too often; repeat after Retry-After", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The broker did not confirm; repeat after Retry-After", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn claim(
    routes: web::Data<ClaimRoutes>,
    publisher: web::Data<Publisher>,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<HttpResponse, Problem> {
    respond(take(&routes, &publisher, &request, body).await)
}

async fn take(
    routes: &ClaimRoutes,
    publisher: &Publisher,
    request: &HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<Answer, Problem> {
    match routes.admit(request, body).await? {
        Admitted::Claim(key) => {
            let (campaign_id, account_id) = (key.campaign_id, key.account_id);
            publisher.publish(Claim { campaign_id, account_id, accepted_at_ms: now_ms() }).await?;
            Ok(Answer::Accepted(key))
        }
        Admitted::Held(coupon_id) => Ok(Answer::Held(coupon_id)),
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
