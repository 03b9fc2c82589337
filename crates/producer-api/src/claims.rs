//! `POST /v1/campaigns/{campaign_id}/claims`: the hot path.
//!
//! Invariant: 202 is sent only after the broker has confirmed the claim; everything short of that gets another status.

use actix_web::{HttpRequest, HttpResponse, web};
use coupon_core::api::extract::ClaimBody;
use coupon_core::api::refusals::{ClaimRefusals, Refusals};
use coupon_core::api::routes::{Answer, ClaimRoutes};
use coupon_core::api::schemas::Pending;
use coupon_core::http::problem::Problem;
use coupon_core::{CampaignId, Claim, ClaimKey, Outcome, clock};
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

/// Claims a coupon for an account.
///
/// The answer comes once the broker has the claim on disk, and says where to read the outcome; with `Prefer: wait=5` it
/// is the outcome itself, if that is known within 5 seconds. Repeating a claim is safe: the account gets at most one
/// coupon of a campaign, and the same one each time.
#[utoipa::path(
    post, path = "/v1/campaigns/{campaign_id}/claims", tag = "claims", operation_id = "claimCoupon",
    params(
        ("campaign_id" = CampaignId, Path, description = "The campaign"),
        (
            "Prefer" = Option<String>, Header,
            description = "wait=5: answer with the outcome if it is known within this many seconds; 30 at most",
            example = "wait=5",
        ),
    ),
    request_body = ClaimBody,
    responses(
        (
            status = 202, description = "Accepted; Location says where to read the outcome", body = Pending,
            headers(
                ("Location" = String, description = "Where to ask for the outcome, relative to this address"),
                ("Preference-Applied" = String, description = "How long the outcome was waited for, if that was preferred"),
            )
        ),
        (
            status = 200, body = Outcome,
            description = "The outcome: it was preferred to wait for it, or the campaign is sold out and this account has its coupon",
            headers(("Preference-Applied" = String, description = "How long it was waited for, if that was preferred"))
        ),
        Refusals,
        ClaimRefusals,
    )
)]
pub async fn claim(
    routes: web::Data<ClaimRoutes>,
    publisher: web::Data<Publisher>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    routes
        .post(&request, async |claim| {
            let ClaimKey { campaign_id, account_id } = claim;
            routes.outcomes.expect(claim);
            publisher.publish(Claim { campaign_id, account_id, accepted_at_ms: clock::now_ms() }).await?;
            Ok(Answer::Accepted(claim))
        })
        .await
}
