//! Who may claim and read. Goal: only the account itself, where accounts show who they are; and nobody keeps another from
//! claiming, either way. Method: an issuer of the test's own, tokens of every wrong kind, and strangers at other addresses.

use std::collections::HashSet;
use std::time::Instant;

use coupon_core::tokens::KeyPair;
use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Answer, Api, TestIssuer, eventually};
use futures_util::future::join_all;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::system::{System, both};
use crate::{claims, crowd, outcomes, sold_out};

each_way![claims_keep_their_promises_with_tokens, crowds_keep_their_promises_with_tokens];

async fn claims_keep_their_promises_with_tokens(system: &System) {
    let system = &system.with_tokens(&TestIssuer::start().await).await;

    claims::a_claim_gets_a_coupon(system).await;
    claims::the_answer_is_as_documented(system).await;
    claims::an_account_claims_many_times_at_once(system).await;
    claims::another_instance_gives_the_same_coupon(system).await;
    outcomes::a_claim_that_was_never_made_is_pending(system).await;
    outcomes::many_who_wait_are_told(system).await;
    sold_out::a_winner_who_asks_again_gets_the_coupon(system).await;
    sold_out::a_loser_is_told_at_once(system).await;
}

async fn crowds_keep_their_promises_with_tokens(system: &System) {
    let system = &system.with_tokens(&TestIssuer::start().await).await;

    crowd::exactly_the_stock_is_issued(system).await;
    crowd::instances_share_the_stock(system).await;
    crowd::one_account_does_not_crowd_out_the_others(system).await;
}

/// A claim of account 42 and the question for its outcome, to be completed.
fn requests(api: &Api, campaign: CampaignId) -> [RequestBuilder; 2] {
    let path = format!("/v1/campaigns/{campaign}/claims");
    let claim = api.request(Method::POST, &path).header("content-type", "application/json");
    [claim.body(r#"{"account_id": 42}"#), api.request(Method::GET, &format!("{path}/42"))]
}

/// The same with this token, as they are answered.
async fn answers(api: &Api, campaign: CampaignId, token: &str) -> [Answer; 2] {
    let [claim, question] = requests(api, campaign).map(|request| request.bearer_auth(token));
    [api.send(claim).await, api.send(question).await]
}

fn is_taken(answers: &[Answer; 2]) -> bool {
    answers.iter().all(|answer| (200..=202).contains(&answer.status))
}

fn is_refused(answers: &[Answer; 2], case: &str) {
    for answer in answers {
        assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{case}: {answer:?}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer realm=\"coupons\", error=\"invalid_token\""), "{case}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{case}");
        assert_eq!(answer.header("cache-control"), "no-store", "{case}");
    }
}

/// A token of the issuer's key, with what it says changed; null takes a claim away.
fn changed(issuer: &TestIssuer, changes: &[(&str, Value)]) -> String {
    let mut claims = issuer.claims(42);
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes {
        members.insert(String::from(*name), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    issuer.key().sign(&claims).unwrap()
}

/// A token of this key, which names the issuer's, with a header of the test's own.
fn headed(issuer: &TestIssuer, key: &KeyPair, change: impl FnOnce(&mut Header)) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(issuer.key().id().to_owned());
    change(&mut header);
    let key = EncodingKey::from_ed_pem(key.to_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &issuer.claims(42), &key).unwrap()
}

/// A token whose secret is this, as one who knows public things only can make it.
fn with_secret(issuer: &TestIssuer, secret: &[u8]) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(issuer.key().id().to_owned());
    jsonwebtoken::encode(&header, &issuer.claims(42), &EncodingKey::from_secret(secret)).unwrap()
}

/// The token with another header.
fn with_header(token: &str, header: &Value) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    // In the middle of a token stands JSON in the form in which its header has to be.
    let signed = KeyPair::generate().unwrap().sign(header).unwrap();
    format!("{}.{rest}", signed.split('.').nth(1).unwrap())
}

fn wrong_tokens(issuer: &TestIssuer) -> Vec<(&'static str, String)> {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let good = issuer.token(42);
    let (unsigned, signature) = good.rsplit_once('.').unwrap();
    let key = issuer.key().jwks()["keys"][0].clone();
    let public = key["x"].as_str().unwrap();
    let (ours, stranger) = (&*issuer.key(), KeyPair::generate().unwrap());
    let own: Jwk = serde_json::from_value(stranger.jwks()["keys"][0].clone()).unwrap();
    let elsewhere = String::from("http://127.0.0.1:1/jwks.json");
    let of_algorithm = |name: &str| with_header(&good, &json!({ "alg": name, "typ": "JWT", "kid": key["kid"] }));
    let none = of_algorithm("none");
    vec![
        ("expired", changed(issuer, &[("exp", json!(now - 3600))])),
        ("without an end", changed(issuer, &[("exp", Value::Null)])),
        ("with an end in words", changed(issuer, &[("exp", json!("tomorrow"))])),
        ("not valid yet", changed(issuer, &[("nbf", json!(now + 3600))])),
        ("for others", changed(issuer, &[("aud", json!("payments"))])),
        ("for nobody", changed(issuer, &[("aud", Value::Null)])),
        ("of another issuer", changed(issuer, &[("iss", json!("https://other.test"))])),
        ("of no issuer", changed(issuer, &[("iss", Value::Null)])),
        ("of a person", changed(issuer, &[("sub", json!("alice"))])),
        ("of another spelling", changed(issuer, &[("sub", json!("042"))])),
        ("of account 0", changed(issuer, &[("sub", json!(0))])),
        ("of no account", changed(issuer, &[("sub", Value::Null)])),
        ("of no algorithm", none.clone()),
        ("of no algorithm, without a signature", format!("{}.", none.rsplit_once('.').unwrap().0)),
        ("with the public key as secret", with_secret(issuer, public.as_bytes())),
        ("with the text of the keys as secret", with_secret(issuer, issuer.key().jwks().to_string().as_bytes())),
        ("with an empty secret", with_secret(issuer, b"")),
        ("said to be of another algorithm", of_algorithm("ES256")),
        ("said to be of an algorithm nobody knows", of_algorithm("XX256")),
        ("of a stranger", stranger.sign(&issuer.claims(42)).unwrap()),
        ("of a stranger who names a known key", headed(issuer, &stranger, |_| ())),
        ("of a stranger who brings a key along", headed(issuer, &stranger, |header| header.jwk = Some(own.clone()))),
        (
            "of a stranger with a key elsewhere",
            headed(issuer, &stranger, |header| header.jku = Some(elsewhere.clone())),
        ),
        ("of an unknown key", headed(issuer, ours, |header| header.kid = Some(String::from("unknown")))),
        ("of another kind", headed(issuer, ours, |header| header.typ = Some(String::from("logout+jwt")))),
        ("with a critical header", headed(issuer, ours, |header| header.crit = Some(vec![String::from("exp")]))),
        ("cut off", format!("{unsigned}.{}", &signature[..signature.len() - 4])),
        ("without a signature", format!("{unsigned}.")),
        ("of one part", String::from("token")),
        ("of four parts", format!("{good}.{signature}")),
        ("huge", format!("{good}{}", "A".repeat(20_000))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_wrong_is_refused() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let api = &system.with_tokens(&issuer).await.api;
        let campaign = system.space.campaign(1).await;

        for (case, token) in wrong_tokens(&issuer) {
            is_refused(&answers(api, campaign, &token).await, case);
        }

        assert_eq!(system.space.issued(campaign).await, 0);
        assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await), "and the right one is taken");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nobody_claims_or_reads() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let api = &system.with_tokens(&issuer).await.api;
        let campaign = system.space.campaign(1).await;

        for request in requests(api, campaign) {
            let answer = api.send(request.try_clone().unwrap()).await;
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer realm=\"coupons\""));

            let basic = api.send(request.try_clone().unwrap().basic_auth("42", Some("secret"))).await;
            assert_eq!(basic.status, 401, "another scheme is no token");

            let twice = request.bearer_auth(issuer.token(42)).bearer_auth(issuer.token(42));
            let twice = api.send(twice).await;
            assert_eq!((twice.status, twice.code()), (400, "invalid_request"));
            assert!(twice.header("www-authenticate").contains("error=\"invalid_request\""), "{twice:?}");
        }

        assert_eq!(system.space.issued(campaign).await, 0);
        assert_eq!(api.get(&format!("/v1/campaigns/{campaign}")).await.status, 200, "campaigns are public");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_hold_the_account_in_a_claim_of_its_own() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let system = &system.with_tokens(&issuer).await;
        let api = system.another_api_with(&[("auth-account-claim", "shop_account")]).await;
        let campaign = system.space.campaign(1).await;

        is_refused(&answers(&api, campaign, &issuer.token(42)).await, "its subject is somebody else's number");
        let named = changed(&issuer, &[("sub", json!("alice")), ("shop_account", json!(42))]);
        assert!(is_taken(&answers(&api, campaign, &named).await));
    })
    .await;
}

/// What somebody else may see of a claim: nothing, not even whether there is one.
async fn foreign_claims_look_alike(system: &System, others: &Api, me: impl Fn(RequestBuilder) -> RequestBuilder) {
    let campaign = system.space.campaign(2).await;
    assert!(matches!(system.api.claim(campaign, 42).await, Outcome::Issued { .. }));
    assert!(matches!(system.api.claim(campaign, 43).await, Outcome::Issued { .. }));
    assert_eq!(system.api.claim(campaign, 44).await, Outcome::SoldOut);

    let mut seen = HashSet::new();
    for (campaign, account) in [(campaign, 42), (campaign, 44), (campaign, 1_000_000), (CampaignId(999), 42)] {
        let path = format!("/v1/campaigns/{campaign}/claims");
        let question = others.request(Method::GET, &format!("{path}/{account}?wait=30s"));
        let claim = others.request(Method::POST, &path).header("content-type", "application/json");
        for request in [question, claim.body(json!({ "account_id": account }).to_string())] {
            let mut answer = others.send(me(request)).await;
            answer.json.as_object_mut().unwrap().remove("trace_id");
            let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            assert_eq!((answer.status, answer.code()), (403, "other_account"), "{answer:?}");
            seen.insert(format!("{} {} {names:?}", answer.json, answer.header("content-length")));
        }
    }

    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_refused_whatever_its_claim_is_by_token() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let api = &system.with_tokens(&issuer).await.api;
        let token = issuer.token(7);

        foreign_claims_look_alike(system, api, |request| request.bearer_auth(&token)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_refused_whatever_its_claim_is_by_header() {
    both(async |system| {
        let settings = [("auth", "trusted-header"), ("auth-header", "x-account-id")];
        let api = &system.another_api_with(&settings).await;

        foreign_claims_look_alike(system, api, |request| request.header("x-account-id", "7")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_gateway_names_claims_and_reads() {
    both(async |system| {
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
    })
    .await;
}

/// 100 claims in the name of account 42, and then its own.
async fn is_not_locked_out(system: &System, strangers: &Api, me: impl Fn(RequestBuilder) -> RequestBuilder, own: &Api) {
    let campaign = system.space.campaign(1).await;

    let foreign = join_all((0..100).map(|_| {
        let [claim, _] = requests(strangers, campaign);
        strangers.send(me(claim))
    }));
    let refused = foreign.await.iter().filter(|answer| answer.status == 429 || answer.status == 403).count();

    assert!(refused > 0, "a hundred claims at once were all taken");
    let claim = own.post_claim(campaign, 42).await;
    assert!((200..=202).contains(&claim.status), "{claim:?}");
    assert!(matches!(own.settled(campaign, 42).await, Outcome::Issued { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_locked_out_by_claims_in_their_name_from_elsewhere() {
    both(async |system| {
        let api = system.another_api_with(&[("claims-per-account", "2")]).await;
        let strangers = api.clone().calling_from([127, 0, 0, 2]);

        is_not_locked_out(system, &strangers, |request| request, &api).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_locked_out_by_claims_in_their_name_with_another_token() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let system = &system.with_tokens(&issuer).await;
        let api = system.another_api_with(&[("claims-per-account", "2")]).await;
        let token = issuer.token(7);

        is_not_locked_out(system, &api, |request| request.bearer_auth(&token), &api).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_believed_of_a_trusted_proxy_only() {
    both(async |system| {
        let campaign = system.space.campaign(1).await;
        let limit = [("claims-per-account", "1"), ("trusted-proxies", "127.0.0.1")];
        let api = system.another_api_with(&limit).await;
        let elsewhere = api.clone().calling_from([127, 0, 0, 2]);
        let claims = async |api: &Api| {
            let claims = (0..40).map(|client| {
                let [claim, _] = requests(api, campaign);
                api.send(claim.header("x-forwarded-for", format!("192.0.2.{client}")))
            });
            join_all(claims).await.iter().filter(|answer| answer.status == 429).count()
        };

        assert_eq!(claims(&api).await, 0, "the proxy says that they are forty");
        assert!(claims(&elsewhere).await > 0, "a client only says so of itself");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_issuer_is_taken_at_once() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let api = &system.with_tokens(&issuer).await.api;
        let campaign = system.space.campaign(1).await;
        let old = issuer.token(42);
        assert!(is_taken(&answers(api, campaign, &old).await));

        issuer.change_key();

        assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await));
        is_refused(&answers(api, campaign, &old).await, "the issuer has withdrawn the key");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_do_not_make_a_service_ask_its_issuer_again_and_again() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let api = &system.with_tokens(&issuer).await.api;
        let campaign = system.space.campaign(1).await;
        let (started, before) = (Instant::now(), issuer.asked());
        let unknown = |n: usize| headed(&issuer, &issuer.key(), |header| header.kid = Some(format!("unknown {n}")));

        let refused = join_all((0..100).map(unknown).map(async |token| answers(api, campaign, &token).await)).await;

        for answers in &refused {
            is_refused(answers, "unknown");
        }
        // One each 30 s, and one each 5 min whatever comes, however slow this machine is.
        let allowed = 1 + started.elapsed().as_secs() / 30 + 1 + started.elapsed().as_secs() / 300;
        assert!((1..=allowed).contains(&(issuer.asked() - before)), "{} of {allowed}", issuer.asked() - before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_serve_while_the_issuer_is_away() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let campaign = system.space.campaign(1).await;
        let stranger = KeyPair::generate().unwrap();
        let (theirs, good) = (stranger.sign(&issuer.claims(42)).unwrap(), issuer.key().jwks().to_string());

        let huge = format!("{{\"keys\":{},\"x\":\"{}\"}}", stranger.jwks()["keys"], "x".repeat(300_000));
        let nonsense = ["<html>not found</html>", "{\"keys\":[]}", &huge].map(String::from).map(Some);
        for published in [None].into_iter().chain(nonsense) {
            issuer.publish(Some(good.clone()));
            let api = &system.with_tokens(&issuer).await.api;
            issuer.publish(published);
            let before = issuer.asked();

            is_refused(&answers(api, campaign, &theirs).await, "it makes the service ask");
            assert!(issuer.asked() > before);
            assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_issuer_is_away_at_the_start_waits_for_it() {
    both(async |system| {
        let issuer = TestIssuer::start().await;
        let published = issuer.key().jwks().to_string();
        issuer.publish(None);
        let with_tokens = system.with_tokens(&issuer).await;
        let (api, campaign) = (&with_tokens.api, system.space.campaign(1).await);

        let early = answers(api, campaign, &issuer.token(42)).await;
        assert!(early.iter().all(Answer::is_unavailable), "{early:?}");
        let ready = async || with_tokens.admin().get("/readyz").await;
        eventually("it is not ready", async || ready().await.json["servers"]["issuer"] == "down").await;
        assert_eq!(ready().await.status, 503);

        issuer.publish(Some(published));

        eventually("it is ready", async || ready().await.status == 200).await;
        assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_who_may() {
    both(async |system| {
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
    })
    .await;
}
