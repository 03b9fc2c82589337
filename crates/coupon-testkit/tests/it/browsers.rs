//! Pages of other origins, in a browser. Goal: pages of the origins in `--cors-origins` may call an API, others may
//! not, and the answers are otherwise the same. Method: the requests that a browser sends for a page, preflights
//! included.

use coupon_core::CampaignId;
use coupon_testkit::{Answer, Api};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ORIGIN};

use crate::system::System;

both_ways![
    pages_of_listed_origins_may_call,
    pages_can_read_why_a_request_was_refused,
    pages_may_not_call_unless_a_setting_says_so,
];

const SHOP: &str = "https://shop.example";

async fn pages_of_listed_origins_may_call(system: &System) {
    let campaign = system.space.campaign(5).await;
    let origins = format!("https://other.example,{SHOP}");
    let api = system.another_api_with(&[("cors-origins", &origins)]).await;

    let preflight = send_preflight(&api, campaign, SHOP).await;
    let claimed = claim(&api, campaign, 1, SHOP).await;
    let refused = claim(&api, CampaignId(404), 1, SHOP).await;
    let preflight_by_another = send_preflight(&api, campaign, "https://evil.example").await;
    let claimed_by_another = claim(&api, campaign, 1, "https://evil.example").await;

    assert_eq!((preflight.status, allows(&preflight)), (200, SHOP), "{preflight:?}");
    for (header, name) in [
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization"),
        ("access-control-allow-headers", "prefer"),
        ("access-control-allow-headers", "tracestate"),
        ("access-control-max-age", "3600"),
    ] {
        assert!(preflight.header(header).contains(name), "{name} is missing: {preflight:?}");
    }
    assert!(matches!(claimed.status, 201 | 202), "{claimed:?}");
    for answer in [&claimed, &refused] {
        assert_eq!(allows(answer), SHOP, "a page can read a problem, too: {answer:?}");
        assert!(answer.header("access-control-expose-headers").contains("location"), "{answer:?}");
        assert!(answer.header("vary").to_lowercase().contains("origin"), "a cache must keep origins apart: {answer:?}");
    }
    assert_eq!(refused.code(), "campaign_not_found");
    for answer in [&preflight_by_another, &claimed_by_another] {
        assert_eq!(allows(answer), "", "{answer:?}");
    }
    assert!(matches!(claimed_by_another.status, 200..=202), "it is the browser that refuses: {claimed_by_another:?}");
    api.settled(campaign, 1).await;
}

async fn pages_can_read_why_a_request_was_refused(system: &System) {
    // People write a space after the comma.
    let api = system.another_api_with(&[("cors-origins", &format!("https://other.example, {SHOP}"))]).await;
    let claims = "/v1/campaigns/1/claims";
    let from_shop = |method, path: &str| api.request(method, path).header(ORIGIN, SHOP);

    let large = from_shop(Method::POST, claims).header(CONTENT_TYPE, "application/json").body("x".repeat(2_000));
    let large = api.send(large).await;
    let escaped = api.send(from_shop(Method::GET, "/v1/campaigns/%31")).await;
    let wrong_method = from_shop(Method::OPTIONS, claims).header("access-control-request-method", "DELETE");
    let wrong_method = api.send(wrong_method).await;
    let with_body = from_shop(Method::OPTIONS, claims).header("access-control-request-method", "POST");
    let with_body = api.send(with_body.body("x")).await;

    assert_eq!((large.status, escaped.status, wrong_method.status, with_body.status), (413, 404, 400, 200));
    for answer in [&large, &escaped, &with_body] {
        assert_eq!(allows(answer), SHOP, "{answer:?}");
    }
    assert!(wrong_method.json["detail"].as_str().unwrap().contains("method is not allowed"), "{wrong_method:?}");
    assert_eq!(api.get("/livez").await.status, 200, "a later request is answered");
}

async fn pages_may_not_call_unless_a_setting_says_so(system: &System) {
    let campaign = system.space.campaign(1).await;

    let preflight = send_preflight(&system.api, campaign, SHOP).await;
    let claimed = claim(&system.api, campaign, 1, SHOP).await;

    assert_eq!((preflight.status, preflight.header("allow")), (204, "POST, OPTIONS"));
    assert!(matches!(claimed.status, 201 | 202), "{claimed:?}");
    assert_eq!((allows(&preflight), allows(&claimed)), ("", ""));
    system.api.settled(campaign, 1).await;
}

/// Sends the preflight that a browser sends before a page's claim.
async fn send_preflight(api: &Api, campaign: CampaignId, origin: &str) -> Answer {
    let request = api.request(Method::OPTIONS, &format!("/v1/campaigns/{campaign}/claims")).header(ORIGIN, origin);
    let request = request.header("access-control-request-method", "POST");
    api.send(request.header("access-control-request-headers", "authorization,content-type,prefer,traceparent")).await
}

async fn claim(api: &Api, campaign: CampaignId, account: u64, origin: &str) -> Answer {
    let request = api.request(Method::POST, &format!("/v1/campaigns/{campaign}/claims")).header(ORIGIN, origin);
    let body = format!("{{\"account_id\":{account}}}");
    api.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
}

fn allows(answer: &Answer) -> &str {
    answer.header("access-control-allow-origin")
}
