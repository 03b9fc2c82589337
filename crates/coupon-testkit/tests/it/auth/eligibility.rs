//! Who may take part in a campaign. Goal: where a token must list the campaigns that it is for, nobody claims from any
//! other, and the outcome of a claim can be read all the same. Method: an API with `--auth-eligibility-claim`, and
//! tokens with lists of every kind.

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, Api, TestIssuer};
use reqwest::Method;
use serde_json::{Value, json};

use super::{answers, are_accepted, assert_refused, requests};
use crate::system::System;

both_ways![
    an_account_claims_from_the_campaigns_of_its_token_only,
    a_token_with_a_malformed_list_is_refused,
    without_the_setting_the_list_is_ignored,
];

/// A token of account 42 with this value of the claim `campaigns`.
fn token(issuer: &TestIssuer, campaigns: &Value) -> String {
    let mut claims = issuer.claims(42);
    claims["campaigns"] = campaigns.clone();
    issuer.key().sign(&claims).unwrap()
}

async fn api_with_eligibility(system: &System, issuer: &std::sync::Arc<TestIssuer>) -> Api {
    let system = system.with_tokens(issuer).await;
    system.another_api_with(&[("auth-eligibility-claim", "campaigns")]).await
}

fn assert_not_eligible([claim, read]: &[Answer; 2]) {
    assert_eq!((claim.status, claim.code()), (403, "not_eligible"), "{claim:?}");
    assert_eq!((claim.json["field"].as_str(), claim.header("cache-control")), (Some("campaign_id"), "no-store"));
    assert_eq!(read.status, 200, "the outcome may be read: {read:?}");
}

async fn an_account_claims_from_the_campaigns_of_its_token_only(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &api_with_eligibility(system, &issuer).await;
    let (own, other) = (system.space.campaign(1).await, system.space.campaign(1).await);

    for listed in [json!([]), json!([other]), json!([own.to_string(), other, 9_007_199_254_740_991_u64])] {
        let (token, is_listed) = (token(&issuer, &listed), listed.as_array().unwrap().len() > 1);
        // The second time, the token has already been checked.
        for _ in 0..2 {
            let answers = answers(api, own, &token).await;
            if is_listed {
                assert!(are_accepted(&answers), "{listed}: {answers:?}");
            } else {
                assert_not_eligible(&answers);
            }
        }
    }
    assert_not_eligible(&answers(api, other, &issuer.token(42)).await);
    assert_not_eligible(&answers(api, other, &token(&issuer, &json!([own]))).await);
    // The coupon can be read with any token of the account, but not claimed again.
    assert!(matches!(system.api.settled(own, 42).await, Outcome::Issued { .. }));
    let [claim, read] = answers(api, own, &token(&issuer, &json!([other]))).await;
    assert_eq!((claim.code(), read.json["status"].as_str()), ("not_eligible", Some("issued")));
    // The answer does not reveal that a campaign does not exist.
    assert_unknown_campaign_not_eligible(api, &issuer).await;
    assert_eq!(system.space.issued(other).await, 0);
}

async fn assert_unknown_campaign_not_eligible(api: &Api, issuer: &TestIssuer) {
    let [claim, _] = requests(api, CampaignId(999)).map(|request| request.bearer_auth(token(issuer, &json!([1]))));
    assert_eq!(api.send(claim).await.code(), "not_eligible");
}

async fn a_token_with_a_malformed_list_is_refused(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &api_with_eligibility(system, &issuer).await;
    let campaign = system.space.campaign(1).await;

    for wrong in [json!(campaign), json!(campaign.to_string()), json!(null), json!([campaign, "all"]), json!([0])] {
        assert_refused(&answers(api, campaign, &token(&issuer, &wrong)).await, &wrong.to_string());
    }

    assert_eq!(system.space.issued(campaign).await, 0);
}

async fn without_the_setting_the_list_is_ignored(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let campaign = system.space.campaign(1).await;

    assert!(are_accepted(&answers(api, campaign, &token(&issuer, &json!("everything"))).await));
    let document = api.send(api.request(Method::GET, "/openapi.json")).await.json;
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
    assert!(codes.contains(&json!("not_eligible")), "{codes:?}");
}
