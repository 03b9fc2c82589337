//! Stopping a service. Goal: a request in hand is finished, a new one is not taken. Method: the tables are locked, so
//! that requests are surely in hand while the service is asked to stop.

use std::time::Duration;

use coupon_core::Outcome;
use coupon_testkit::eventually;
use tokio::net::TcpStream;

use crate::system::System;

each_way![requests_in_hand_are_finished, who_waits_is_told_before_the_end];

async fn requests_in_hand_are_finished(system: &System) {
    let campaign = system.space.campaign(10).await;
    let locks = system.space.lock_tables().await;
    let in_hand = tokio::spawn({
        let api = system.api.clone();
        async move { api.post_claim(campaign, 1).await }
    });
    eventually("the claim waits in MySQL", async || !system.space.running("SELECT id, name").await.is_empty()).await;

    system.service.ask_to_stop();
    no_longer_listening(system).await;
    locks.disconnect().await.unwrap();

    let answer = in_hand.await.unwrap();
    assert_eq!(answer.status, if system.is_queue() { 202 } else { 201 }, "{answer:?}");
    system.service.stop().await;
    let told = system.another_api().await.settled(campaign, 1).await;
    assert!(matches!(told, Outcome::Issued { .. }), "{told:?}");
}

async fn who_waits_is_told_before_the_end(system: &System) {
    let campaign = system.space.campaign(10).await;
    let other = system.another_api().await;
    assert_eq!(system.api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), Outcome::Pending);
    let locks = system.space.lock_tables().await;
    let waiting = tokio::spawn({
        let api = system.api.clone();
        async move { api.get_claim(campaign, 1, Duration::from_secs(30)).await }
    });
    let in_hand = async || !system.space.running("SELECT campaign_id, account_id, id").await.is_empty();
    eventually("the question waits in MySQL", in_hand).await;

    system.service.ask_to_stop();
    no_longer_listening(system).await;
    locks.disconnect().await.unwrap();
    let issued = other.claim(campaign, 1).await;

    assert_eq!(waiting.await.unwrap().outcome(), issued);
    system.service.stop().await;
}

async fn no_longer_listening(system: &System) {
    let address = system.service.address();
    eventually("the port is closed", async || TcpStream::connect(address).await.is_err()).await;
}
