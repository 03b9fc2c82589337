//! Bad requests. Goal: each is refused with the right status, in a problem document that names the field, and has no
//! effect. Method: a table of requests, then the audit and the length of the queue.

use coupon_core::CampaignId;
use coupon_testkit::Answer;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::system::System;

both_ways![
    bodies_are_checked,
    paths_and_queries_are_checked,
    methods_and_routes_are_checked,
    a_problem_names_the_trace_of_its_request,
];

const JSON: &str = "application/json";

/// A refusal: its status, code and field.
type Refusal = (u16, &'static str, Option<&'static str>);

const BODY: Refusal = (400, "invalid_request", Some("body"));
const ACCOUNT: Refusal = (400, "invalid_request", Some("account_id"));
const CAMPAIGN: Refusal = (400, "invalid_request", Some("campaign_id"));
const WAIT: Refusal = (400, "invalid_request", Some("wait"));
const QUERY: Refusal = (400, "invalid_request", Some("query"));
const MEDIA_TYPE: Refusal = (415, "unsupported_media_type", Some("content-type"));
const ENCODING: Refusal = (415, "unsupported_media_type", Some("content-encoding"));
const TOO_LARGE: Refusal = (413, "body_too_large", None);
const NO_ROUTE: Refusal = (404, "no_such_route", None);
const NO_METHOD: Refusal = (405, "method_not_allowed", None);

async fn bodies_are_checked(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let large = format!("{{\"account_id\": 1{}}}", " ".repeat(2_000));
    let huge = "x".repeat(3_000_000);

    for (media_type, body, refusal) in [
        (Some(JSON), "", BODY),
        (Some(JSON), "nonsense", BODY),
        (Some(JSON), "{\"account_id\":1", BODY),
        (Some(JSON), "{\"account_id\":1}{}", BODY),
        (Some(JSON), "null", BODY),
        (Some(JSON), "{}", ACCOUNT),
        (Some(JSON), "{\"account_id\":null}", ACCOUNT),
        (Some(JSON), "{\"account_id\":0}", ACCOUNT),
        (Some(JSON), "{\"account_id\":-1}", ACCOUNT),
        (Some(JSON), "{\"account_id\":1.5}", ACCOUNT),
        (Some(JSON), "{\"account_id\":\"0\"}", ACCOUNT),
        (Some(JSON), "{\"account_id\":\"01\"}", ACCOUNT),
        (Some(JSON), "{\"account_id\":\"1 \"}", ACCOUNT),
        (Some(JSON), "{\"account_id\":\"9223372036854775808\"}", ACCOUNT),
        // A client that parses numbers as doubles rounds …993, which is another account, to this one.
        (Some(JSON), "{\"account_id\":9007199254740992}", ACCOUNT),
        (Some(JSON), "{\"account_id\":18446744073709551616}", ACCOUNT),
        (Some(JSON), "[1]", BODY),
        (Some(JSON), "\"1\"", BODY),
        (Some(JSON), "{\"account_id\":1,\"account_id\":2}", ACCOUNT),
        (Some(JSON), "{\"account_id\":1,\"coupon_id\":2}", BODY),
        (Some(JSON), "{\"accountId\":1}", BODY),
        (Some(JSON), &large, TOO_LARGE),
        (Some(JSON), &huge, TOO_LARGE),
        (None, "{\"account_id\":1}", MEDIA_TYPE),
        (Some("text/plain"), "{\"account_id\":1}", MEDIA_TYPE),
        (Some("application/x-www-form-urlencoded"), "account_id=1", MEDIA_TYPE),
    ] {
        let mut request = system.api.request(Method::POST, &path).body(body.to_owned());
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        assert_refused(&system.api.send(request).await, refusal, &format!("{media_type:?} {body:.60}"));
    }
    for encoding in ["gzip", "br", "zstd", "identity, gzip", "nonsense", ""] {
        let request = system.api.request(Method::POST, &path).header(CONTENT_TYPE, JSON);
        let request = request.header(CONTENT_ENCODING, encoding).body("{\"account_id\":1}");
        let answer = system.api.send(request).await;
        assert_refused(&answer, ENCODING, encoding);
        assert_eq!(answer.header("accept-encoding"), "identity", "{encoding}");
    }
    assert_nothing_was_claimed(system).await;

    // An unusual spelling is accepted if it is valid.
    let request = system.api.request(Method::POST, &path).header(CONTENT_TYPE, "Application/JSON; charset=utf-8");
    let answer = system.api.send(request.body(" {\n\"account_id\" : 1 } ")).await;
    assert!(matches!(answer.status, 201 | 202), "{answer:?}");
    let outcome = system.api.settled(campaign, 1).await;
    let request = system.api.request(Method::POST, &path).header(CONTENT_TYPE, JSON);
    let request = request.header(CONTENT_ENCODING, "Identity").body("{\"account_id\":\"1\"}");
    let answer = system.api.send(request).await;
    assert!(matches!(answer.status, 200 | 202), "the same claim, with its number as a string: {answer:?}");
    assert_eq!(system.api.settled(campaign, 1).await, outcome);
}

async fn paths_and_queries_are_checked(system: &System) {
    let campaign = system.space.campaign(5).await;

    let too_large = (CampaignId::MAX.0 + 1).to_string();
    for number in ["0", "01", "0100", "-1", "+1", "1.0", "one", &too_large, "18446744073709551616"] {
        for (method, path) in [
            (Method::POST, format!("/v1/campaigns/{number}/claims")),
            (Method::GET, format!("/v1/campaigns/{number}")),
            (Method::GET, format!("/v1/campaigns/{number}/claims/1")),
        ] {
            let request = system.api.request(method, &path).header(CONTENT_TYPE, JSON).body("{\"account_id\":1}");
            assert_refused(&system.api.send(request).await, CAMPAIGN, &path);
        }
        let number = if number == too_large { "9223372036854775808" } else { number };
        let path = format!("/v1/campaigns/{campaign}/claims/{number}");
        assert_refused(&system.api.get(&path).await, ACCOUNT, &path);
    }
    // A path has one spelling: nothing in it is percent-encoded, be it a digit or a letter.
    let here = format!("/v1/c%61mpaigns/{campaign}");
    for path in [format!("/v1/campaigns/%3{campaign}"), here, String::from("/v1/campaigns/1%00"), String::from("/%ff")]
    {
        assert_refused(&system.api.get(&path).await, NO_ROUTE, &path);
        let request = system.api.request(Method::POST, &format!("{path}/claims")).header(CONTENT_TYPE, JSON);
        assert_refused(&system.api.send(request.body("{\"account_id\":1}")).await, NO_ROUTE, &path);
    }
    for path in ["/%6detrics", "/live%7a", "/docs/%69ndex.html", "/docs//", "/docs//index.html"] {
        assert_refused(&system.api.get(path).await, NO_ROUTE, path);
    }
    let path = format!("/v1/campaigns/{campaign}/claims?wait=5s");
    let request = system.api.request(Method::POST, &path).header(CONTENT_TYPE, JSON).body("{\"account_id\":1}");
    assert_refused(&system.api.send(request).await, QUERY, &path);
    let waits = ["wait=31s", "wait=1day", "wait=5", "wait=soon", "wait=", "wait=-1s", "wait=1s&wait=1s", "wait=1S"];
    let others = ["wiat=1s", "wait=1s&x=1", "Wait=1s", "wait[]=1s"];
    for (query, refusal) in waits.map(|query| (query, WAIT)).into_iter().chain(others.map(|query| (query, QUERY))) {
        let path = format!("/v1/campaigns/{campaign}/claims/1?{query}");
        assert_refused(&system.api.get(&path).await, refusal, &path);
    }
    assert_nothing_was_claimed(system).await;
}

async fn methods_and_routes_are_checked(system: &System) {
    let campaign = system.space.campaign(5).await;
    let here = format!("/v1/campaigns/{campaign}");

    for (method, path, refusal) in [
        (Method::DELETE, here.clone(), NO_METHOD),
        (Method::POST, here.clone(), NO_METHOD),
        (Method::GET, format!("{here}/claims"), NO_METHOD),
        (Method::PUT, format!("{here}/claims"), NO_METHOD),
        (Method::POST, format!("{here}/claims/1"), NO_METHOD),
        (Method::DELETE, format!("{here}/claims/1"), NO_METHOD),
        (Method::GET, String::from("/"), NO_ROUTE),
        (Method::GET, String::from("/v1"), NO_ROUTE),
        (Method::GET, String::from("/v1/campaigns"), NO_ROUTE),
        (Method::POST, format!("{here}/claims/"), NO_ROUTE),
        (Method::POST, format!("{here}/claims/1/2"), NO_ROUTE),
        (Method::GET, String::from("/v2/campaigns/1"), NO_ROUTE),
        (Method::GET, format!("{here}/"), NO_ROUTE),
        (Method::GET, format!("/{here}"), NO_ROUTE),
        (Method::GET, String::from("/docs/nothing.html"), NO_ROUTE),
        (Method::OPTIONS, String::from("/docs/nothing.html"), NO_ROUTE),
        (Method::POST, String::from("/livez"), NO_METHOD),
        (Method::PATCH, String::from("/readyz"), NO_METHOD),
        (Method::DELETE, String::from("/metrics"), NO_METHOD),
        (Method::POST, String::from("/openapi.json"), NO_METHOD),
        (Method::PUT, String::from("/docs/"), NO_METHOD),
    ] {
        let what = format!("{method} {path}");
        let request = system.api.request(method, &path).header(CONTENT_TYPE, JSON).body("{\"account_id\":1}");
        let answer = system.api.send(request).await;
        assert_refused(&answer, refusal, &what);
        let allowed = if accepts_post(&what) { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" };
        assert_eq!(answer.header("allow"), if answer.status == 405 { allowed } else { "" }, "{what}");
    }
    assert_nothing_was_claimed(system).await;
}

fn accepts_post(path: &str) -> bool {
    path.ends_with("/claims")
}

async fn a_problem_names_the_trace_of_its_request(system: &System) {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = |traceparent: &str| system.api.request(Method::GET, "/nowhere").header("traceparent", traceparent);

    let own = system.api.send(request(&format!("00-{id}-00f067aa0ba902b7-01"))).await;
    let wrong = system.api.send(request("00-nonsense-01")).await;
    let none = system.api.get("/nowhere").await;

    assert_eq!(own.json["trace_id"], id);
    assert_ne!(wrong.json["trace_id"], none.json["trace_id"], "each request has a trace of its own");
    for answer in [wrong, none] {
        assert_refused(&answer, NO_ROUTE, "a path that leads nowhere");
    }
}

fn assert_refused(answer: &Answer, (status, code, field): Refusal, what: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(answer.json["status"], status, "{what}: {answer:?}");
    assert_eq!(answer.json["field"].as_str(), field, "{what}: {answer:?}");
    assert_eq!(answer.json["type"], "about:blank", "{what}");
    for member in ["title", "detail"] {
        assert!(answer.json[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {member} of {answer:?}");
    }
    let trace_id = answer.json["trace_id"].as_str().unwrap_or_default();
    let is_trace_id = trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_trace_id, "{what}: {answer:?}");
}

async fn assert_nothing_was_claimed(system: &System) {
    let report = system.space.audit().await;
    assert!(report.campaigns.iter().all(|stock| stock.issued == 0), "{report:?}");
    assert_eq!(system.space.queues.waiting().await, 0, "nothing was put into the queue");
}
