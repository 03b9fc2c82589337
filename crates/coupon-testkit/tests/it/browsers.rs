//! Pages of other origins, in a browser. Goal: those of the setting may call an API, others may not, and the answers are
//! the same for all. Method: what a browser sends before and with the request of a page.

use coupon_core::CampaignId;
use coupon_testkit::{Answer, Api};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ORIGIN};

use crate::system::System;

both_ways![
    pages_of_the_setting_may_call,
    pages_read_why_a_request_was_not_received,
    pages_may_not_call_unless_a_setting_says_so,
];

const SHOP: &str = "https://shop.example";

async fn pages_of_the_setting_may_call(system: &System) {
    let campaign = system.space.campaign(5).await;
    let origins = format!("https://other.example,{SHOP}");
    let api = system.another_api_with(&[("cors-origins", &origins)]).await;

    let asked = ask_for_leave(&api, campaign, SHOP).await;
    let claimed = claim(&api, campaign, 1, SHOP).await;
    let refused = claim(&api, CampaignId(404), 1, SHOP).await;
    let asked_by_another = ask_for_leave(&api, campaign, "https://evil.example").await;
    let claimed_by_another = claim(&api, campaign, 1, "https://evil.example").await;

    assert_eq!((asked.status, allows(&asked)), (200, SHOP), "{asked:?}");
    for (header, name) in [
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization"),
        ("access-control-allow-headers", "prefer"),
        ("access-control-max-age", "3600"),
    ] {
        assert!(asked.header(header).contains(name), "{name} is missing: {asked:?}");
    }
    assert!(matches!(claimed.status, 201 | 202), "{claimed:?}");
    for answer in [&claimed, &refused] {
        assert_eq!(allows(answer), SHOP, "a problem is read as well: {answer:?}");
        assert!(answer.header("access-control-expose-headers").contains("location"), "{answer:?}");
        assert!(answer.header("vary").to_lowercase().contains("origin"), "a cache must not mix them up: {answer:?}");
    }
    assert_eq!(refused.code(), "campaign_not_found");
    for answer in [&asked_by_another, &claimed_by_another] {
        assert_eq!(allows(answer), "", "{answer:?}");
    }
    assert!(matches!(claimed_by_another.status, 200..=202), "it is the browser that refuses: {claimed_by_another:?}");
    api.settled(campaign, 1).await;
}

async fn pages_read_why_a_request_was_not_received(system: &System) {
    // A blank after the comma is what people write.
    let api = system.another_api_with(&[("cors-origins", &format!("https://other.example, {SHOP}"))]).await;
    let claims = "/v1/campaigns/1/claims";
    let from_shop = |method, path: &str| api.request(method, path).header(ORIGIN, SHOP);

    let large = from_shop(Method::POST, claims).header(CONTENT_TYPE, "application/json").body("x".repeat(2_000));
    let large = api.send(large).await;
    let escaped = api.send(from_shop(Method::GET, "/v1/campaigns/%31")).await;
    let question = from_shop(Method::OPTIONS, claims).header("access-control-request-method", "DELETE");
    let not_given = api.send(question).await;
    let with_body = from_shop(Method::OPTIONS, claims).header("access-control-request-method", "POST");
    let with_body = api.send(with_body.body("x")).await;

    assert_eq!((large.status, escaped.status, not_given.status, with_body.status), (413, 404, 400, 200));
    for answer in [&large, &escaped, &with_body] {
        assert_eq!(allows(answer), SHOP, "{answer:?}");
    }
    assert!(not_given.json["detail"].as_str().unwrap().contains("method is not allowed"), "{not_given:?}");
    assert_eq!(api.get("/livez").await.status, 200, "the connection goes on");
}

async fn pages_may_not_call_unless_a_setting_says_so(system: &System) {
    let campaign = system.space.campaign(1).await;

    let asked = ask_for_leave(&system.api, campaign, SHOP).await;
    let claimed = claim(&system.api, campaign, 1, SHOP).await;

    assert_eq!((asked.status, asked.header("allow")), (204, "POST, OPTIONS"));
    assert!(matches!(claimed.status, 201 | 202), "{claimed:?}");
    assert_eq!((allows(&asked), allows(&claimed)), ("", ""));
    system.api.settled(campaign, 1).await;
}

/// What a browser asks before it sends a page's claim.
async fn ask_for_leave(api: &Api, campaign: CampaignId, origin: &str) -> Answer {
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
