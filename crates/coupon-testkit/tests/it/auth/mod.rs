//! Who may claim, and who may read an outcome. Goal: where accounts authenticate, only the account itself; and with or
//! without authentication, nobody keeps another account from claiming. Method: an issuer that the test controls, tokens
//! that are wrong in every way, and strangers at other addresses.

mod eligibility;
mod lockouts;
mod tokens;

use std::collections::HashSet;

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, Api, TestIssuer};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::system::System;
use crate::{claims, crowd, outcomes, sold_out};

each_way![claims_keep_their_promises_with_tokens, crowds_keep_their_promises_with_tokens];

both_ways![
    without_a_token_nobody_claims_or_reads,
    with_a_token_claims_of_other_accounts_are_refused_alike,
    with_a_header_claims_of_other_accounts_are_refused_alike,
    the_account_that_the_gateway_names_claims_and_reads,
    the_openapi_document_says_who_may_claim,
];

async fn claims_keep_their_promises_with_tokens(system: &System) {
    let system = &system.with_tokens(&TestIssuer::start().await).await;

    claims::a_claim_gets_a_coupon(system).await;
    claims::the_answer_is_as_documented(system).await;
    claims::many_claims_of_an_account_at_once_get_one_coupon(system).await;
    claims::another_instance_gives_the_same_coupon(system).await;
    outcomes::a_claim_that_was_never_made_is_pending(system).await;
    outcomes::many_waiting_clients_are_answered(system).await;
    sold_out::a_winner_who_asks_again_gets_the_coupon(system).await;
    sold_out::a_loser_is_answered_at_once(system).await;
}

async fn crowds_keep_their_promises_with_tokens(system: &System) {
    let system = &system.with_tokens(&TestIssuer::start().await).await;

    crowd::exactly_the_stock_is_issued(system).await;
    crowd::instances_share_the_stock(system).await;
    crowd::one_account_does_not_crowd_out_the_others(system).await;
}

/// A claim of account 42 and a request for its outcome, for a test to complete.
fn requests(api: &Api, campaign: CampaignId) -> [RequestBuilder; 2] {
    let path = format!("/v1/campaigns/{campaign}/claims");
    let claim = api.request(Method::POST, &path).header("content-type", "application/json");
    [claim.body(r#"{"account_id": 42}"#), api.request(Method::GET, &format!("{path}/42"))]
}

/// The answers to both [`requests`] with this token.
async fn answers(api: &Api, campaign: CampaignId, token: &str) -> [Answer; 2] {
    let [claim, read] = requests(api, campaign).map(|request| request.bearer_auth(token));
    [api.send(claim).await, api.send(read).await]
}

fn are_accepted(answers: &[Answer; 2]) -> bool {
    answers.iter().all(|answer| (200..=202).contains(&answer.status))
}

fn assert_refused(answers: &[Answer; 2], case: &str) {
    for answer in answers {
        assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{case}: {answer:?}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer realm=\"coupons\", error=\"invalid_token\""), "{case}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
        assert_eq!(answer.header("cache-control"), "no-store", "{case}");
    }
}

async fn without_a_token_nobody_claims_or_reads(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let campaign = system.space.campaign(1).await;

    for request in requests(api, campaign) {
        let answer = api.send(request.try_clone().unwrap()).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer realm=\"coupons\""));

        let basic = api.send(request.try_clone().unwrap().basic_auth("42", Some("secret"))).await;
        assert_eq!(basic.status, 401, "only a bearer token counts");

        let twice = request.bearer_auth(issuer.token(42)).bearer_auth(issuer.token(42));
        let twice = api.send(twice).await;
        assert_eq!((twice.status, twice.code()), (400, "invalid_request"));
        assert!(twice.header("www-authenticate").contains("error=\"invalid_request\""), "{twice:?}");
    }

    assert_eq!(system.space.issued(campaign).await, 0);
    assert_eq!(api.get(&format!("/v1/campaigns/{campaign}")).await.status, 200, "campaigns are public");
}

/// Checks that somebody else learns nothing of a claim, not even whether there is one. `sign_in` adds the credentials
/// of another account to a request.
async fn foreign_claims_look_alike(system: &System, api: &Api, sign_in: impl Fn(RequestBuilder) -> RequestBuilder) {
    let campaign = system.space.campaign(2).await;
    assert!(matches!(system.api.claim(campaign, 42).await, Outcome::Issued { .. }));
    assert!(matches!(system.api.claim(campaign, 43).await, Outcome::Issued { .. }));
    assert_eq!(system.api.claim(campaign, 44).await, Outcome::SoldOut);

    let mut seen = HashSet::new();
    for (campaign, account) in [(campaign, 42), (campaign, 44), (campaign, 1_000_000), (CampaignId(999), 42)] {
        let path = format!("/v1/campaigns/{campaign}/claims");
        let read = api.request(Method::GET, &format!("{path}/{account}?wait=30s"));
        let claim = api.request(Method::POST, &path).header("content-type", "application/json");
        for request in [read, claim.body(json!({ "account_id": account }).to_string())] {
            let mut answer = api.send(sign_in(request)).await;
            answer.json.as_object_mut().unwrap().remove("trace_id");
            let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            assert_eq!((answer.status, answer.code()), (403, "other_account"), "{answer:?}");
            seen.insert(format!("{} {} {names:?}", answer.json, answer.header("content-length")));
        }
    }

    assert_eq!(seen.len(), 1, "{seen:?}");
}

async fn with_a_token_claims_of_other_accounts_are_refused_alike(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let token = issuer.token(7);

    foreign_claims_look_alike(system, api, |request| request.bearer_auth(&token)).await;
}

async fn with_a_header_claims_of_other_accounts_are_refused_alike(system: &System) {
    let settings = [("auth", "trusted-header"), ("auth-header", "x-account-id")];
    let api = &system.another_api_with(&settings).await;

    foreign_claims_look_alike(system, api, |request| request.header("x-account-id", "7")).await;
}

async fn the_account_that_the_gateway_names_claims_and_reads(system: &System) {
    let settings = [("auth", "trusted-header"), ("auth-header", "X-Account-Id")];
    let api = &system.another_api_with(&settings).await;
    let campaign = system.space.campaign(1).await;

    for request in requests(api, campaign) {
        let named = |name: &'static str| request.try_clone().unwrap().header("x-account-id", name);
        for wrong in
            [request.try_clone().unwrap(), named("alice"), named("042"), named("42").header("x-account-id", "7")]
        {
            let answer = api.send(wrong).await;
            assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{answer:?}");
            assert!(!answer.header("www-authenticate").is_empty(), "{answer:?}");
        }
        let answer = api.send(named("42")).await;
        assert!((200..=202).contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

async fn the_openapi_document_says_who_may_claim(system: &System) {
    let issuer = TestIssuer::start().await;
    let header = [("auth", "trusted-header"), ("auth-header", "x-account-id")];
    let document = async |api: &Api| api.get("/openapi.json").await.json;
    let claims = "/v1/campaigns/{campaign_id}/claims";
    let operations = |document: &Value| {
        [
            document["paths"][claims]["post"].clone(),
            document["paths"][format!("{claims}/{{account_id}}")]["get"].clone(),
        ]
    };

    let open = document(&system.api).await;
    assert_eq!((&open["security"], &open["components"]["securitySchemes"]), (&json!([]), &Value::Null));
    assert!(operations(&open).iter().all(|operation| operation["responses"]["401"].is_null()), "{open}");

    let by_token = document(&system.with_tokens(&issuer).await.api).await;
    let by_header = document(&system.another_api_with(&header).await).await;
    assert_eq!(by_token["components"]["securitySchemes"]["account"]["scheme"], "bearer");
    assert_eq!(by_header["components"]["securitySchemes"]["account"]["name"], "x-account-id");
    for document in [by_token, by_header] {
        for operation in operations(&document) {
            assert_eq!(operation["security"], json!([{ "account": [] }]));
            assert!(operation["responses"]["401"]["headers"]["WWW-Authenticate"].is_object(), "{operation}");
            assert!(operation["responses"]["403"].is_object(), "{operation}");
        }
        assert!(document["paths"]["/v1/campaigns/{campaign_id}"]["get"]["security"].is_null(), "{document}");
    }
}
