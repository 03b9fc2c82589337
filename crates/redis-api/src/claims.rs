//! `POST /v1/campaigns/{campaign_id}/claims`: the hot path.
//!
//! Invariant: an outcome is answered only after MySQL has committed it.

use actix_web::{HttpRequest, HttpResponse, web};
use coupon_core::api::extract::ClaimBody;
use coupon_core::api::refusals::{ClaimRefusals, Refusals};
use coupon_core::api::routes::{Answer, ClaimRoutes};
use coupon_core::api::schemas::Issued;
use coupon_core::http::problem::Problem;
use coupon_core::{CampaignId, Outcome};
use utoipa::OpenApi;

use crate::batches::Batches;

/// What this service adds to the shared routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Coupons: the queue way without its queue",
        description = "For comparison. Claims are answered with their coupon."
    ),
    paths(claim)
)]
pub struct Document;

/// Claims a coupon for an account.
///
/// The answer contains the account's coupon, which is committed by then. Repeating a claim is safe: the account gets at
/// most one coupon of a campaign, and the same one each time.
#[utoipa::path(
    post, path = "/v1/campaigns/{campaign_id}/claims", tag = "claims", operation_id = "claimCoupon",
    params(
        ("campaign_id" = CampaignId, Path, description = "The campaign"),
        ("Prefer" = Option<String>, Header, description = "Has no effect here: the answer is the outcome", example = "wait=5"),
    ),
    request_body = ClaimBody,
    responses(
        (status = 200, description = "The account holds this coupon, now or already", body = Issued),
        Refusals,
        ClaimRefusals,
    )
)]
pub async fn claim(
    routes: web::Data<ClaimRoutes>,
    batches: web::Data<Batches>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    routes
        .post(&request, async |claim| match batches.settle(claim).await? {
            Some(Outcome::SoldOut) => {
                routes.campaigns.notice_change();
                Err(Problem::sold_out())
            }
            Some(outcome) => Ok(Answer::Settled(outcome)),
            None => Err(Problem::unknown_campaign()),
        })
        .await
}
