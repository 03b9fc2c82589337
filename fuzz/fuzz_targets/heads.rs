//! What a request names before its body. The input has one line each for the campaign and the account in the path, the
//! query, and the headers `prefer`, `traceparent` and `content-type`. A number has only one spelling, and no wait is
//! longer than the limit.
#![no_main]

use std::collections::HashMap;

use actix_web::http::Uri;
use actix_web::http::header::HeaderValue;
use actix_web::test::TestRequest;
use coupon_core::api::extract::{WAIT_MAX, campaign_id, claim_body, claim_key, no_query, preferred_wait, wait};
use coupon_core::telemetry::span::{self, TRACEPARENT};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(6, |byte| *byte == b'\n');
    let [campaign, account, query, prefer, traceparent, media_type] =
        [(); 6].map(|()| parts.next().unwrap_or_default());
    let (campaign, account) = (String::from_utf8_lossy(campaign), String::from_utf8_lossy(account));
    let uri = format!("/?{}", String::from_utf8_lossy(query));
    if uri.parse::<Uri>().is_err() {
        return;
    }
    let mut request = TestRequest::with_uri(&uri)
        .param("campaign_id", campaign.clone().into_owned())
        .param("account_id", account.clone().into_owned());
    for (name, value) in [("prefer", prefer), (TRACEPARENT, traceparent), ("content-type", media_type)] {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        request = request.insert_header((name, value));
    }
    let request = request.to_http_request();

    assert!(campaign_id(&request).is_ok_and(|id| id.to_string() == campaign) || campaign_id(&request).is_err());
    if let Ok(claim) = claim_key(&request) {
        assert_eq!((claim.campaign_id.to_string(), claim.account_id.to_string()), (campaign.into(), account.into()));
    }
    assert!(wait(&request).map_or(true, |wait| wait <= WAIT_MAX));
    assert!(preferred_wait(&request).is_none_or(|wait| wait <= WAIT_MAX));
    let (_, _) = (no_query(&request), claim_body(&request));
    let traceparent = String::from_utf8_lossy(traceparent).into_owned();
    let _ = span::extract(&HashMap::from([(TRACEPARENT.to_owned(), traceparent)]));
});
