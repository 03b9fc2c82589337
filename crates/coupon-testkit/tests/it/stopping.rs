//! Stopping a service. Goal: load balancers have time to notice, requests in progress are finished, and no others are
//! accepted after that. Method: the tables are locked, so that requests are certainly in progress when the service is
//! asked to stop.

use std::time::Duration;

use coupon_core::Outcome;
use coupon_testkit::eventually;
use tokio::net::TcpStream;

use crate::system::System;

each_way![
    requests_in_progress_are_finished,
    a_waiting_client_is_answered_before_the_end,
    claims_are_accepted_until_load_balancers_have_noticed,
];

async fn requests_in_progress_are_finished(system: &System) {
    let campaign = system.space.campaign(10).await;
    let locks = system.space.lock_tables().await;
    let in_progress = tokio::spawn({
        let api = system.api.clone();
        async move { api.post_claim(campaign, 1).await }
    });
    eventually("the claim waits in MySQL", async || !system.space.running("SELECT id, name").await.is_empty()).await;

    system.service.ask_to_stop();
    no_longer_listening(system).await;
    assert_eq!(system.admin().get("/livez").await.status, 200, "its health is reported until the end");
    locks.disconnect().await.unwrap();

    let answer = in_progress.await.unwrap();
    assert_eq!(answer.status, system.lets_in_with(), "{answer:?}");
    system.service.stop().await;
    let outcome = system.another_api().await.settled(campaign, 1).await;
    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
}

async fn a_waiting_client_is_answered_before_the_end(system: &System) {
    let campaign = system.space.campaign(10).await;
    let other = system.another_api().await;
    assert_eq!(system.api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), Outcome::Pending);
    let locks = system.space.lock_tables().await;
    let waiting = tokio::spawn({
        let api = system.api.clone();
        async move { api.get_claim(campaign, 1, Duration::from_secs(30)).await }
    });
    let is_running = async || !system.space.running("SELECT campaign_id, account_id, id").await.is_empty();
    eventually("the lookup waits in MySQL", is_running).await;

    system.service.ask_to_stop();
    no_longer_listening(system).await;
    locks.disconnect().await.unwrap();

    assert_eq!(waiting.await.unwrap().outcome(), Outcome::Pending, "the client can ask another instance");
    system.service.stop().await;
    assert!(matches!(other.claim(campaign, 1).await, Outcome::Issued { .. }));
}

async fn claims_are_accepted_until_load_balancers_have_noticed(system: &System) {
    let campaign = system.space.campaign(10).await;
    let service = system.another_service(&[("drain-delay", "5min")]).await;
    let (api, admin) = (system.space.api(service.address()), system.space.api(service.admin()));
    eventually("it is ready", async || api.get("/readyz").await.status == 200).await;

    service.ask_to_stop();

    let seen = api.get("/readyz").await;
    assert_eq!((seen.status, seen.header("connection")), (503, "close"), "a load balancer sees it: {seen:?}");
    let seen_by_operators = admin.get("/readyz").await;
    assert_eq!(seen_by_operators.status, 503);
    assert!(seen_by_operators.json["reasons"]["service"].as_str().is_some_and(|reason| reason.contains("is draining")));
    let outcome = system.space.api(service.address()).claim(campaign, 1).await;
    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
    service.kill();
}

async fn no_longer_listening(system: &System) {
    let address = system.service.address();
    eventually("the port is closed", async || TcpStream::connect(address).await.is_err()).await;
}
