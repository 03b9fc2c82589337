//! The work that our own code does for each claim, between the calls of libraries. Both benchmarks measure these
//! functions, so that their figures can be compared.

use actix_web::test::TestRequest;
use actix_web::{HttpMessage, HttpRequest};
use coupon_core::api::extract;
use coupon_core::http::Body;
use coupon_core::mysql::sql;
use coupon_core::rabbitmq::message;
use coupon_core::{AccountId, CampaignId, Claim, ClaimKey, CouponId, InstallationId};
use lapin::BasicProperties;
use queue_consumer::batch;
use uuid::Uuid;

/// Claims in a full message.
pub const MESSAGE: u64 = 100;

/// Claims in a full batch of a consumer.
pub const BATCH: u64 = 500;

/// Claims in a group of skiplock, when 256 clients fill two groups.
pub const GROUP: u64 = 128;

pub fn claims(count: u64) -> Vec<Claim> {
    let claim = |n| Claim {
        campaign_id: CampaignId(1),
        // In no particular order, as they would arrive.
        account_id: AccountId(1_000_000 + n * 7_919 % 10_007),
        accepted_at_ms: 1_900_000_000_000 + n % 10,
    };
    (0..count).map(claim).collect()
}

pub fn rows(count: u64) -> Vec<(ClaimKey, CouponId)> {
    let coupon = |n: usize| CouponId(Uuid::from_u128(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834 * (n as u128 + 1)));
    claims(count).iter().enumerate().map(|(n, claim)| (claim.key(), coupon(n))).collect()
}

pub fn message(count: u64) -> (BasicProperties, Vec<u8>) {
    let installation = InstallationId(Uuid::from_u128(0x9e37_79b9_7f4a_4c15_b39c_c060_5ced_c834));
    (message::properties(installation, std::iter::empty()), encode(&claims(count)))
}

pub fn request() -> HttpRequest {
    let request = TestRequest::post().insert_header(("content-type", "application/json")).to_http_request();
    request.extensions_mut().insert(Body(actix_web::web::Bytes::from_static(b"{\"account_id\":1000042}")));
    request
}

pub fn validate(request: &HttpRequest) -> AccountId {
    let Ok(claim) = extract::claim_body(request) else { panic!("a valid body is refused") };
    claim.account_id
}

pub fn encode(claims: &[Claim]) -> Vec<u8> {
    message::encode(claims).expect("claims are encoded")
}

pub fn decode((properties, body): &(BasicProperties, Vec<u8>)) -> Vec<Claim> {
    message::decode(properties, body).expect("a message of ours").claims
}

/// The claims of several messages, each once, first come first.
pub fn assemble(claims: &[Claim]) -> Vec<ClaimKey> {
    batch::in_order_of_arrival(claims)
}

pub fn issue(rows: &[(ClaimKey, CouponId)]) -> String {
    sql::issue(rows)
}

pub fn issue_skip_locked(rows: &[(ClaimKey, CouponId)]) -> String {
    sql::issue_skip_locked(rows)
}
