//! The body of a claim. It gives an account within its limits or a problem, and the account has the same number when it
//! is written as a string, the way answers write it.
#![no_main]

use actix_web::test::TestRequest;
use actix_web::web::Bytes;
use actix_web::{HttpMessage as _, HttpRequest};
use coupon_core::AccountId;
use coupon_core::api::extract::claim_body;
use coupon_core::http::Body;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(claim) = claim_body(&request(Bytes::copy_from_slice(data))) else { return };
    assert!((1..=AccountId::MAX.0).contains(&claim.account_id.0));
    let written = format!("{{\"account_id\":\"{}\"}}", claim.account_id);
    assert_eq!(claim_body(&request(Bytes::from(written))).unwrap().account_id, claim.account_id);
});

fn request(body: Bytes) -> HttpRequest {
    let request = TestRequest::post().insert_header(("content-type", "application/json")).to_http_request();
    request.extensions_mut().insert(Body(body));
    request
}
