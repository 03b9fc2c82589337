//! Installations as small as the settings let them be. Goal: each setting works at its least value, all of them at
//! once. Method: the least of every number is asked of the programs themselves, so a new setting is in by itself.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use coupon_core::settings::try_parse_from;
use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Api, TestSpace, eventually};

use crate::programs::couponctl;
use crate::system::{count_coupons, start_consumer, start_producer_api, start_skiplock};

/// The settings that are numbers, each with the least that is taken.
fn least<T: CommandFactory + FromArgMatches>() -> Vec<(String, &'static str)> {
    let command = T::command();
    let is_number = |argument: &&clap::Arg| {
        let [default] = argument.get_default_values() else { return false };
        default.to_str().is_some_and(|default| default.parse::<u64>().is_ok())
    };
    let is_taken = |flag: &str, value: &str| {
        let line = ["test", &format!("--{flag}={value}")].map(OsString::from);
        try_parse_from::<T>(&line).is_ok()
    };
    let flags = command.get_arguments().filter(is_number).filter_map(clap::Arg::get_long);
    let least = flags.map(|flag| {
        let value = ["0", "1"].into_iter().find(|value| is_taken(flag, value));
        (flag.to_owned(), value.unwrap_or_else(|| panic!("--{flag} takes neither 0 nor 1")))
    });
    least.collect()
}

/// The same, as a test gives settings.
fn all<'a>(least: &'a [(String, &'static str)]) -> Vec<(&'a str, &'a str)> {
    least.iter().map(|(flag, value)| (flag.as_str(), *value)).collect()
}

/// The same, with connections for a crowd: with one, the second client waits until the first has hung up.
fn for_a_crowd<'a>(least: &'a [(String, &'static str)]) -> Vec<(&'a str, &'a str)> {
    all(least).into_iter().filter(|(flag, _)| *flag != "http-connections").collect()
}

/// More accounts than coupons, a repeated claim, a restock: what both ways promise to a crowd, and to one at a time.
async fn keep_their_promises(space: &TestSpace, api: &Api, alone: &Api) {
    let campaign = CampaignId(1);
    let made = couponctl(space, "--mysql-connections 1 campaign create --id 1 --coupons 5");
    let seen = async {
        loop {
            let view = api.get("/v1/campaigns/1").await;
            if view.status == 200 {
                return view;
            }
        }
    };
    let ((), seen) = tokio::join!(made, seen);
    assert_eq!(seen.json["total"], 5, "it is never seen without its coupons");

    let outcomes = api.claim_all_patiently(campaign, (1..=8).chain(1..=8)).await;

    assert_eq!(count_coupons(&outcomes), 5);
    for (account, outcome) in &outcomes {
        assert_eq!(api.settled(campaign, *account).await, *outcome, "account {account}, asked again");
    }
    eventually("it is sold out", async || api.post_claim(campaign, 99).await.status == 409).await;
    let view = api.get("/v1/campaigns/1").await;
    assert_eq!((view.json["total"].as_u64(), view.json["free"].as_u64()), (Some(5), Some(0)), "{view:?}");
    let (winner, coupon) = outcomes.iter().find(|(_, outcome)| matches!(outcome, Outcome::Issued { .. })).unwrap();
    assert_eq!(api.claim_patiently(campaign, *winner).await, *coupon, "a winner claims again");

    // One for the account that claimed last, in case that its claim still waits in the queue, and one more.
    space.restock(campaign, 2).await;
    eventually("the restock is seen", async || alone.get("/v1/campaigns/1").await.json["total"] == 7).await;
    let outcome = alone.claim_patiently(campaign, 100).await;
    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
    assert_eq!(alone.claim_patiently(campaign, 100).await, outcome, "asked again");
    assert!(matches!(space.issued(campaign).await, 6..=7));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_way_works_at_the_least_of_all_its_settings() {
    coupon_testkit::run(async |space| {
        let (producer, consumer) = (least::<producer_api::Settings>(), least::<queue_consumer::Settings>());
        assert!(producer.len() >= 6 && consumer.len() >= 4, "{producer:?} {consumer:?}");
        let api = start_producer_api(&space, &for_a_crowd(&producer)).await;
        let alone = start_producer_api(&space, &all(&producer)).await.hanging_up();
        start_consumer(&space, &all(&consumer)).await;

        keep_their_promises(&space, &api, &alone).await;

        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_skiplock_way_works_at_the_least_of_all_its_settings() {
    coupon_testkit::run(async |space| {
        let least = least::<skiplock_api::Settings>();
        assert!(least.len() >= 5, "{least:?}");
        let api = space.api(start_skiplock(&space, &for_a_crowd(&least)).await.address());
        let alone = space.api(start_skiplock(&space, &all(&least)).await.address()).hanging_up();

        keep_their_promises(&space, &api, &alone).await;

        space.audit().await;
    })
    .await;
}
