//! Which tokens are accepted, and where their keys come from. Goal: every token that is wrong in one thing is refused,
//! and an issuer that is away or asked about unknown keys costs a service nothing. Method: tokens of every wrong kind,
//! and an issuer that changes its keys, publishes nonsense or nothing.

use std::time::Instant;

use coupon_core::tokens::KeyPair;
use coupon_testkit::{Answer, TestAuthority, TestIssuer, TlsProxy, eventually};
use futures_util::future::join_all;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{answers, is_refused, is_taken};
use crate::system::System;

both_ways![
    a_token_that_is_wrong_is_refused,
    a_token_may_hold_the_account_in_a_claim_of_its_own,
    a_new_key_of_the_issuer_is_taken_at_once,
    unknown_keys_do_not_make_a_service_ask_its_issuer_again_and_again,
    known_keys_serve_while_the_issuer_is_away,
    a_service_whose_issuer_is_away_at_the_start_waits_for_it,
    keys_are_taken_only_from_the_issuer_that_the_certificate_names,
];

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
        ("with an end in a list", changed(issuer, &[("exp", json!([now + 3600]))])),
        ("with a beginning in words", changed(issuer, &[("nbf", json!("today"))])),
        ("not valid yet", changed(issuer, &[("nbf", json!(now + 3600))])),
        ("for others", changed(issuer, &[("aud", json!("payments"))])),
        ("for nobody", changed(issuer, &[("aud", Value::Null)])),
        ("of another issuer", changed(issuer, &[("iss", json!("https://other.test"))])),
        ("of several issuers", changed(issuer, &[("iss", json!([issuer.claims(42)["iss"], "https://other.test"]))])),
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

async fn a_token_that_is_wrong_is_refused(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let campaign = system.space.campaign(1).await;

    for (case, token) in wrong_tokens(&issuer) {
        is_refused(&answers(api, campaign, &token).await, case);
    }

    assert_eq!(system.space.issued(campaign).await, 0);
    assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await), "and the right one is taken");
}

async fn a_token_may_hold_the_account_in_a_claim_of_its_own(system: &System) {
    let issuer = TestIssuer::start().await;
    let system = &system.with_tokens(&issuer).await;
    let api = system.another_api_with(&[("auth-account-claim", "shop_account")]).await;
    let campaign = system.space.campaign(1).await;

    is_refused(&answers(&api, campaign, &issuer.token(42)).await, "its subject is somebody else's number");
    let named = changed(&issuer, &[("sub", json!("alice")), ("shop_account", json!(42))]);
    assert!(is_taken(&answers(&api, campaign, &named).await));
}

async fn a_new_key_of_the_issuer_is_taken_at_once(system: &System) {
    let issuer = TestIssuer::start().await;
    let api = &system.with_tokens(&issuer).await.api;
    let campaign = system.space.campaign(1).await;
    let old = issuer.token(42);
    assert!(is_taken(&answers(api, campaign, &old).await));

    issuer.change_key();

    assert!(is_taken(&answers(api, campaign, &issuer.token(42)).await));
    is_refused(&answers(api, campaign, &old).await, "the issuer has withdrawn the key");
}

async fn unknown_keys_do_not_make_a_service_ask_its_issuer_again_and_again(system: &System) {
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
}

async fn known_keys_serve_while_the_issuer_is_away(system: &System) {
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
}

async fn a_service_whose_issuer_is_away_at_the_start_waits_for_it(system: &System) {
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
}

async fn keys_are_taken_only_from_the_issuer_that_the_certificate_names(system: &System) {
    let issuer = TestIssuer::start().await;
    let system = &system.with_tokens(&issuer).await;
    let campaign = system.space.campaign(1).await;
    let published = issuer.settings()["auth-jwks-url"].clone();
    let (authority, stranger) = (TestAuthority::new(), TestAuthority::new());
    let asked_over_tls = async |shown: &[&str], own: &[(&str, &str)]| {
        let proxy = TlsProxy::before(&published, &authority.issue(shown), None).await;
        let api = system.another_api_with(&[&[("auth-jwks-url", proxy.url())], own].concat()).await;
        answers(&api, campaign, &issuer.token(42)).await
    };

    assert!(is_taken(&asked_over_tls(&["localhost"], &[("tls-ca", &authority.file())]).await));

    for (shown, own) in [
        ("localhost", &[][..]),
        ("localhost", &[("tls-ca", &*stranger.file())]),
        ("other.example", &[("tls-ca", &*authority.file())]),
    ] {
        let refused = asked_over_tls(&[shown], own).await;
        assert!(refused.iter().all(Answer::is_unavailable), "{shown}, {own:?}: {refused:?}");
    }
}
