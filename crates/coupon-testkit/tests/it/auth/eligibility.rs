//! Who may take part in a campaign. Goal: where a token must name the campaigns that it is for, nobody claims from
//! another, and what became of a claim can be read all the same. Method: an API that asks for the list in a claim, and
//! tokens with lists of every kind.

use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, Api, TestIssuer};
use reqwest::Method;
use serde_json::{Value, json};

use super::{answers, is_refused, is_taken, requests};
use crate::system::System;

both_ways![
    an_account_claims_from_the_campaigns_of_its_token_only,
    a_list_of_campaigns_that_is_none_makes_a_token_wrong,
    without_the_setting_the_list_is_not_read,
];

/// A token of account 42 with this in its claim `campaigns`.
fn token(issuer: &TestIssuer, campaigns: &Value) -> String {
    let mut claims = issuer.claims(42);
    claims["campaigns"] = campaigns.clone();
    issuer.key().sign(&claims).unwrap()
}

async fn api_that_asks(system: &System, issuer: &std::sync::Arc<TestIssuer>) -> Api {
    let system = system.with_tokens(issuer).await;
    system.another_api_with(&[("auth-eligibility-claim", "campaigns")]).await
}

fn is_not_eligible([claim, question]: &[Answer; 2]) {
    assert_eq!((claim.status, claim.code()), (403, "not_eligible"), "{claim:?}");
    assert_eq!((claim.json["field"].as_str(), claim.header("cache-control")), (Some("campaign_id"), "no-store"));
    assert_eq!(question.status, 200, "what became of a claim may be read: {question:?}");
}

async fn an_account_claims_from_the_campaigns_of_its_token_only(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &api_that_asks(system, &issuer).await;
    let (own, other) = (system.space.campaign(1).await, system.space.campaign(1).await);

    for listed in [json!([]), json!([other]), json!([own.to_string(), other, 9_007_199_254_740_991_u64])] {
        let (token, is_listed) = (token(&issuer, &listed), listed.as_array().unwrap().len() > 1);
        // The second time it is known.
        for _ in 0..2 {
            let answers = answers(api, own, &token).await;
            if is_listed {
                assert!(is_taken(&answers), "{listed}: {answers:?}");
            } else {
                is_not_eligible(&answers);
            }
        }
    }
    is_not_eligible(&answers(api, other, &issuer.token(42)).await);
    is_not_eligible(&answers(api, other, &token(&issuer, &json!([own]))).await);
    // The coupon can be read with any token of the account, but not claimed again.
    assert!(matches!(system.api.settled(own, 42).await, Outcome::Issued { .. }));
    let [claim, question] = answers(api, own, &token(&issuer, &json!([other]))).await;
    assert_eq!((claim.code(), question.json["status"].as_str()), ("not_eligible", Some("issued")));
    // Of a campaign that does not exist nothing is said.
    is_unknown_to_nobody(api, &issuer).await;
    assert_eq!(system.space.issued(other).await, 0);
}

async fn is_unknown_to_nobody(api: &Api, issuer: &TestIssuer) {
    let [claim, _] = requests(api, CampaignId(999)).map(|request| request.bearer_auth(token(issuer, &json!([1]))));
    assert_eq!(api.send(claim).await.code(), "not_eligible");
}

async fn a_list_of_campaigns_that_is_none_makes_a_token_wrong(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &api_that_asks(system, &issuer).await;
    let campaign = system.space.campaign(1).await;

    for wrong in [json!(campaign), json!(campaign.to_string()), json!(null), json!([campaign, "all"]), json!([0])] {
        is_refused(&answers(api, campaign, &token(&issuer, &wrong)).await, &wrong.to_string());
    }

    assert_eq!(system.space.issued(campaign).await, 0);
}

async fn without_the_setting_the_list_is_not_read(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let campaign = system.space.campaign(1).await;

    assert!(is_taken(&answers(api, campaign, &token(&issuer, &json!("everything"))).await));
    let document = api.send(api.request(Method::GET, "/openapi.json")).await.json;
    let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
    assert!(codes.contains(&json!("not_eligible")), "{codes:?}");
}
