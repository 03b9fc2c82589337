//! `POST /v1/campaigns/{campaign_id}/claims`: the hot path.
//!
//! Invariant: 201 is sent only after MySQL has committed the coupon.

use actix_web::{HttpRequest, HttpResponse, web};
use coupon_core::CampaignId;
use coupon_core::api::extract::ClaimBody;
use coupon_core::api::refusals::{ClaimRefusals, Refusals};
use coupon_core::api::routes::{Answer, ClaimRoutes};
use coupon_core::api::schemas::Issued;
use coupon_core::http::problem::Problem;
use utoipa::OpenApi;

use crate::group::Claimed;
use crate::strategy::Strategy;

/// What this service adds to the shared routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Coupons: the skiplock way", description = "Claims are answered with their coupon."),
    paths(claim)
)]
pub struct Document;

/// Claims a coupon for an account.
///
/// The answer contains the coupon, which is committed by then. Repeating a claim is safe: the account gets at most one
/// coupon of a campaign, and the same one each time.
#[utoipa::path(
    post, path = "/v1/campaigns/{campaign_id}/claims", tag = "claims", operation_id = "claimCoupon",
    params(
        ("campaign_id" = CampaignId, Path, description = "The campaign"),
        ("Prefer" = Option<String>, Header, description = "Has no effect here: the answer is the outcome", example = "wait=5"),
    ),
    request_body = ClaimBody,
    responses(
        (
            status = 201, description = "Issued", body = Issued,
            headers(("Location" = String, description = "Where to read the outcome again, relative to this address"))
        ),
        (status = 200, description = "The account held this coupon already", body = Issued),
        Refusals,
        ClaimRefusals,
    )
)]
pub async fn claim(
    routes: web::Data<ClaimRoutes>,
    strategy: web::Data<Strategy>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    routes
        .post(&request, async |claim| match strategy.claim(claim).await? {
            Claimed::Issued(coupon_id) => Ok(Answer::Issued(claim, coupon_id)),
            Claimed::Held(coupon_id) => Ok(Answer::Held(coupon_id)),
            Claimed::SoldOut => {
                routes.campaigns.notice_change();
                Err(Problem::sold_out())
            }
        })
        .await
}
