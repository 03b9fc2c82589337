//! Services with every setting at its minimum. Goal: each setting works at the smallest value that it accepts, and all
//! of them do at once. Method: the test asks the programs for the minimum of every number, so a new setting is covered
//! without a change here.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use coupon_core::settings::try_parse_from;
use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Api, DEADLINE, TestSpace, eventually};

use crate::programs::couponctl;
use crate::system::{count_coupons, start_consumer, start_producer_api, start_skiplock};

/// The settings of a program that are numbers, each with the smallest value that it accepts.
fn minimums<T: CommandFactory + FromArgMatches>() -> Vec<(String, &'static str)> {
    let command = T::command();
    let is_number = |argument: &&clap::Arg| {
        let [default] = argument.get_default_values() else { return false };
        default.to_str().is_some_and(|default| default.parse::<u64>().is_ok())
    };
    let is_accepted = |flag: &str, value: &str| {
        let line = ["test", &format!("--{flag}={value}")].map(OsString::from);
        try_parse_from::<T>(&line).is_ok()
    };
    let flags = command.get_arguments().filter(is_number).filter_map(clap::Arg::get_long);
    let minimums = flags.map(|flag| {
        let value = ["0", "1"].into_iter().find(|value| is_accepted(flag, value));
        (flag.to_owned(), value.unwrap_or_else(|| panic!("--{flag} accepts neither 0 nor 1")))
    });
    minimums.collect()
}

/// The same settings, borrowed, for a service to start with.
fn borrowed<'a>(settings: &'a [(String, &'static str)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(flag, value)| (flag.as_str(), *value)).collect()
}

/// Like [`borrowed`], but for many clients at once, who need the default number of connections: with the minimum of
/// one, the second client waits until the first disconnects.
fn for_many_clients<'a>(settings: &'a [(String, &'static str)]) -> Vec<(&'a str, &'a str)> {
    borrowed(settings).into_iter().filter(|(flag, _)| *flag != "http-connections").collect()
}

/// Checks what both approaches promise when there are more accounts than coupons, when a claim is repeated and after a
/// restock. `api` serves many clients at once, `single` one at a time.
async fn promises_are_kept(space: &TestSpace, api: &Api, single: &Api) {
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
    let ((), seen) = tokio::join!(made, tokio::time::timeout(DEADLINE, seen));
    let seen = seen.expect("the campaign appears");
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

    // One coupon for account 99, whose claims may still be in the queue, and one for account 100.
    space.restock(campaign, 2).await;
    eventually("the restock is seen", async || single.get("/v1/campaigns/1").await.json["total"] == 7).await;
    let outcome = single.claim_patiently(campaign, 100).await;
    assert!(matches!(outcome, Outcome::Issued { .. }), "{outcome:?}");
    assert_eq!(single.claim_patiently(campaign, 100).await, outcome, "asked again");
    assert!(matches!(space.issued(campaign).await, 6..=7));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_works_with_every_setting_at_its_minimum() {
    coupon_testkit::run(async |space| {
        let (producer, consumer) = (minimums::<producer_api::Settings>(), minimums::<queue_consumer::Settings>());
        assert!(producer.len() >= 6 && consumer.len() >= 4, "{producer:?} {consumer:?}");
        let api = start_producer_api(&space, &for_many_clients(&producer)).await;
        let single = start_producer_api(&space, &borrowed(&producer)).await.hanging_up();
        start_consumer(&space, &borrowed(&consumer)).await;

        promises_are_kept(&space, &api, &single).await;

        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skiplock_works_with_every_setting_at_its_minimum() {
    coupon_testkit::run(async |space| {
        let skiplock = minimums::<skiplock_api::Settings>();
        assert!(skiplock.len() >= 5, "{skiplock:?}");
        let api = space.api(start_skiplock(&space, &for_many_clients(&skiplock)).await.address());
        let single = space.api(start_skiplock(&space, &borrowed(&skiplock)).await.address()).hanging_up();

        promises_are_kept(&space, &api, &single).await;

        space.audit().await;
    })
    .await;
}
