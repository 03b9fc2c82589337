//! Claims in somebody else's name. Goal: they never count against the limit of the account itself. Method: a limit of
//! one or two claims per account, and claims of strangers before its own.

use coupon_core::Outcome;
use coupon_testkit::{Api, TestIssuer};
use futures_util::future::join_all;
use reqwest::RequestBuilder;

use super::requests;
use crate::system::System;

both_ways![
    nobody_is_locked_out_by_claims_in_their_name_from_elsewhere,
    nobody_is_locked_out_by_claims_in_their_name_with_another_token,
    only_a_trusted_proxy_may_name_the_address_of_a_client,
];

/// Sends 100 claims of strangers in the name of account 42, then its own, which must be accepted. `sign_in` adds the
/// credentials of the strangers to a request.
async fn assert_not_locked_out(
    system: &System,
    strangers: &Api,
    sign_in: impl Fn(RequestBuilder) -> RequestBuilder,
    (at_least, status): (usize, u16),
    own: &Api,
) {
    let campaign = system.space.campaign(1).await;

    let foreign = join_all((0..100).map(|_| {
        let [claim, _] = requests(strangers, campaign);
        strangers.send(sign_in(claim))
    }));
    let refused = foreign.await.iter().filter(|answer| answer.status == status).count();

    assert!((at_least..=100).contains(&refused), "{refused} of a hundred claims at once got {status}");
    let claim = own.post_claim(campaign, 42).await;
    assert!((200..=202).contains(&claim.status), "{claim:?}");
    assert!(matches!(own.settled(campaign, 42).await, Outcome::Issued { .. }));
}

async fn nobody_is_locked_out_by_claims_in_their_name_from_elsewhere(system: &System) {
    let api = system.another_api_with(&[("claims-per-account", "2")]).await;
    let strangers = api.clone().calling_from([127, 0, 0, 2]);

    assert_not_locked_out(system, &strangers, |request| request, (1, 429), &api).await;
}

async fn nobody_is_locked_out_by_claims_in_their_name_with_another_token(system: &System) {
    let issuer = TestIssuer::start().await;
    let system = &system.with_tokens(&issuer).await;
    let api = system.another_api_with(&[("claims-per-account", "2")]).await;
    let token = issuer.token(7);

    assert_not_locked_out(system, &api, |request| request.bearer_auth(&token), (100, 403), &api).await;
}

async fn only_a_trusted_proxy_may_name_the_address_of_a_client(system: &System) {
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

    assert_eq!(claims(&api).await, 0, "the proxy says that there are forty clients");
    assert!(claims(&elsewhere).await > 0, "a client cannot say so");
}
