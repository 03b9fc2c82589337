//! `couponctl explain`. Goal: it shows what makes a claim correct and who waits for whom, and changes nothing. Method:
//! the test's own campaign.

use std::pin::pin;

use coupon_core::AccountId;
use coupon_testkit::run;
use futures_util::future::{Either, select};
use serde_json::{Value, json};

use crate::{ctl, ctl_json, fails};

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_shown_with_its_plan_and_what_a_second_claimer_does() {
    run(async |space| {
        let campaign = space.campaign(1_000).await;
        let highest = AccountId::MAX;
        space
            .sql(format!("UPDATE coupon SET account_id = {highest} WHERE campaign_id = {campaign} ORDER BY id LIMIT 1"))
            .await;

        let text = ctl(&space, &format!("explain --campaign {campaign}")).await;
        let shown = ctl_json(&space, &format!("explain --campaign {campaign} --batch 3")).await;

        assert_eq!(text.code, Some(0), "{text:?}");
        for words in
            ["issue, skip locked (skiplock, coalesced)", "plan       coupon: ", "a second claimer goes on at once"]
        {
            assert!(text.stdout.contains(words), "{words} is missing: {text:?}");
        }
        let beside = |name: &str| statement(&shown, name)["beside"].clone();
        assert_eq!(beside("issue"), "waits", "for the same coupons");
        assert_eq!(beside("claim the first"), "waits");
        for name in ["issue, skip locked", "lock free coupons", "claim one"] {
            assert_eq!(beside(name), "goes_on", "{name}");
        }
        assert_eq!(beside("free coupons"), Value::Null, "it locks nothing");
        assert_eq!(statement(&shown, "lock free coupons")["reads"], 1, "the first free coupon");
        assert_eq!(statement(&shown, "coupons of accounts")["plan"][0]["key"], "coupon_campaign_account");
        // MariaDB shows locks only while another transaction waits for them.
        if statement(&shown, "issue")["locks_unknown"].is_null() {
            let of_rows = json!({ "table": "coupon", "index": "PRIMARY", "mode": "X,REC_NOT_GAP", "rows": 3 });
            assert!(statement(&shown, "issue")["locks"].as_array().unwrap().contains(&of_rows), "{shown}");
        }
        assert_eq!(space.issued(campaign).await, 1, "everything was rolled back");
        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_come_in_meanwhile_are_not_in_its_way() {
    run(async |space| {
        let campaign = space.campaign(2_000).await;
        let claims = async {
            for account in 1..=1_500 {
                let first = "account_id IS NULL ORDER BY id LIMIT 1";
                space
                    .sql(format!("UPDATE coupon SET account_id = {account} WHERE campaign_id = {campaign} AND {first}"))
                    .await;
            }
        };
        let line = format!("explain --campaign {campaign}");

        let shown = match select(pin!(ctl(&space, &line)), pin!(claims)).await {
            Either::Left((shown, _)) => shown,
            Either::Right(((), shown)) => shown.await,
        };

        assert_eq!(shown.code, Some(0), "{shown:?}");
        assert!(space.issued(campaign).await > 1, "claims came in");
    })
    .await;
}

#[tokio::test]
async fn a_campaign_without_enough_coupons_is_an_error() {
    run(async |space| {
        let campaign = space.campaign(2).await;

        let shown = ctl(&space, &format!("explain --campaign {campaign}")).await;

        fails(&shown, 1, &["2 free coupons", "--batch"]);
        let none = ctl(&space, "explain --campaign 99999").await;
        fails(&none, 1, &["there is no campaign 99999"]);
    })
    .await;
}

fn statement<'a>(shown: &'a Value, name: &str) -> &'a Value {
    shown.as_array().unwrap().iter().find(|statement| statement["name"] == name).unwrap()
}
