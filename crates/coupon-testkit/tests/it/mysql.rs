//! MySQL down, silent, or with its rows locked by others. Goal: no answer is untrue, accepted claims wait, and
//! everything goes on once MySQL works again. Method: a proxy that is cut, frozen and healed, and transactions that
//! hold rows.

use std::time::Duration;

use coupon_core::mysql::sql::{self, Wanted};
use coupon_core::{CampaignId, Outcome};
use coupon_testkit::{Api, Proxy, TestSpace, eventually};
use futures_util::future::join_all;
use mysql_async::prelude::Queryable;

use crate::programs;
use crate::system::{
    System, claims_are_accepted, claims_are_issued, count_coupons, each_gets_a_coupon, start_consumer,
    start_producer_api, start_skiplock,
};

both_ways![nothing_is_issued_without_the_unique_key];

audited![
    a_consumers_batch_waits_for_mysql,
    the_producer_accepts_claims_while_mysql_is_down,
    no_holder_of_a_coupon_is_answered_pending_while_mysql_is_down,
    skiplock_coalesced_refuses_while_mysql_is_down,
    skiplock_select_update_refuses_while_mysql_is_down,
    operators_see_why_a_service_is_not_ready_and_clients_do_not,
    skiplock_answers_busy_not_sold_out_while_others_lock_every_row,
    skiplock_finds_the_rows_that_others_release,
    skiplock_keeps_no_campaign_waiting_for_the_locked_rows_of_another,
    skiplock_reports_the_error_of_a_trigger_and_is_ready_once_it_is_gone,
];

async fn a_consumers_batch_waits_for_mysql(space: &TestSpace) {
    let campaign = space.campaign(20).await;
    let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[("mysql-url", proxy.url()), ("mysql-deadline", "1s")]).await;
    api.claim(campaign, 1).await;

    proxy.cut();
    claims_are_accepted(&api, campaign, 2..=20).await;
    eventually("the consumer holds them", async || space.queues.waiting().await == 0).await;
    assert_eq!(space.issued(campaign).await, 1);
    proxy.heal();

    claims_are_issued(&api, campaign, 2..=20).await;
}

async fn the_producer_accepts_claims_while_mysql_is_down(space: &TestSpace) {
    let Served { campaign, api, proxy, first } = served_through_a_proxy(space).await;

    proxy.cut();
    claims_are_accepted(&api, campaign, 2..=10).await;
    assert_eq!(api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), first, "Redis has it");
    let unknown = api.post_claim(CampaignId(404), 1).await;
    assert!(unknown.is_unavailable(), "whether the campaign exists cannot be known: {unknown:?}");
    let ready = async || api.get("/readyz").await.json["servers"]["mysql"] == "down";
    eventually("it reports that MySQL is down", ready).await;
    proxy.heal();

    claims_are_issued(&api, campaign, 2..=10).await;
}

async fn no_holder_of_a_coupon_is_answered_pending_while_mysql_is_down(space: &TestSpace) {
    let Served { campaign, proxy, first, .. } = served_through_a_proxy(space).await;
    // Another instance is asked, because the one that published the claim remembers its coupon.
    let api = start_producer_api(space, &[("mysql-url", proxy.url()), ("mysql-deadline", "1s")]).await;
    assert_eq!(api.get_claim(campaign, 1, Duration::ZERO).await.outcome(), first);
    space.empty_redis().await;

    proxy.cut();
    for wait in [0, 50, 700, 1_500] {
        let answer = api.get_claim(campaign, 1, Duration::from_millis(wait)).await;
        assert!(answer.is_unavailable(), "after {wait} ms: {answer:?}");
    }
    proxy.heal();

    assert_eq!(api.settled(campaign, 1).await, first);
}

/// A producer-api that reaches MySQL through a proxy, after its first claim. The consumer that settled the claim
/// reaches MySQL directly.
struct Served {
    campaign: CampaignId,
    api: Api,
    proxy: Proxy,
    /// The outcome of account 1.
    first: Outcome,
}

async fn served_through_a_proxy(space: &TestSpace) -> Served {
    let campaign = space.campaign(20).await;
    let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
    let api = start_producer_api(space, &[("mysql-url", proxy.url()), ("mysql-deadline", "1s")]).await;
    start_consumer(space, &[]).await;
    let first = api.claim(campaign, 1).await;
    Served { campaign, api, proxy, first }
}

async fn skiplock_coalesced_refuses_while_mysql_is_down(space: &TestSpace) {
    skiplock_without_mysql(space, "coalesced").await;
}

async fn skiplock_select_update_refuses_while_mysql_is_down(space: &TestSpace) {
    skiplock_without_mysql(space, "select-update").await;
}

async fn skiplock_without_mysql(space: &TestSpace, strategy: &str) {
    let campaign = space.campaign(20).await;
    let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
    let own = [("mysql-url", proxy.url()), ("mysql-deadline", "1s"), ("strategy", strategy)];
    let api = space.api(start_skiplock(space, &own).await.address());
    let first = api.claim(campaign, 1).await;

    for break_it in [Proxy::cut, Proxy::freeze] {
        break_it(&proxy);
        let post = api.post_claim(campaign, 2).await;
        assert!(post.is_unavailable(), "{post:?}");
        let get = api.get_claim(campaign, 1, Duration::ZERO).await;
        assert!(get.is_unavailable(), "neither issued nor pending is known to be true: {get:?}");
        let get = api.get_claim(campaign, 1, Duration::from_millis(700)).await;
        assert!(get.is_unavailable(), "nor after a wait: {get:?}");
        let ready = async || api.get("/readyz").await.status == 503;
        eventually("it reports that MySQL is down", ready).await;
        proxy.heal();
        assert_eq!(api.claim_patiently(campaign, 1).await, first);
        eventually("it is ready again", async || api.get("/readyz").await.status == 200).await;
    }

    each_gets_a_coupon(&api, campaign, 2..=20).await;
}

async fn operators_see_why_a_service_is_not_ready_and_clients_do_not(space: &TestSpace) {
    let proxy = Proxy::start(&space.servers().mysql.mysql_url).await;
    let service = start_skiplock(space, &[("mysql-url", proxy.url()), ("mysql-deadline", "1s")]).await;
    let (api, admin) = (space.api(service.address()), space.api(service.admin()));
    assert_eq!(admin.get("/readyz").await.json, serde_json::json!({"ready": true, "servers": {"mysql": "up"}}));

    proxy.cut();

    eventually("it is not ready", async || admin.get("/readyz").await.status == 503).await;
    let (answer, public) = (admin.get("/readyz").await, api.get("/readyz").await);
    let reason = answer.json["reasons"]["mysql"].as_str().unwrap_or_default();
    assert!(reason.contains("MySQL") && reason.contains("COUPON_MYSQL_URL"), "{answer:?}");
    assert!(!answer.text.contains("skiplock-api@"), "the address with its password is shown: {answer:?}");
    assert_eq!(public.json, serde_json::json!({"ready": false, "servers": {"mysql": "down"}}));
}

async fn skiplock_answers_busy_not_sold_out_while_others_lock_every_row(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    for (account, strategy) in [(1, "coalesced"), (2, "select-update")] {
        let api = space.api(start_skiplock(space, &[("strategy", strategy)]).await.address());
        let locks = space.lock_rows(campaign).await;
        let answer = api.post_claim(campaign, account).await;
        assert!(answer.is_unavailable(), "{strategy}: {answer:?}");
        locks.disconnect().await.unwrap();
        assert!(matches!(api.claim(campaign, account).await, Outcome::Issued { .. }), "{strategy}");
    }
}

async fn skiplock_finds_the_rows_that_others_release(space: &TestSpace) {
    for strategy in ["coalesced", "select-update", "single-statement", "scattered"] {
        let campaign = space.campaign(10).await;
        let api = space.api(start_skiplock(space, &[("strategy", strategy)]).await.address());
        let mut others = space.mysql().connection().await.unwrap();
        others.query_drop("START TRANSACTION").await.unwrap();
        let first_three = Wanted { campaign_id: campaign, count: 3, after: None };
        others.query_drop(sql::lock_free_coupons(first_three)).await.unwrap();

        let meanwhile = api.claim_all(campaign, 1..=7).await;
        others.disconnect().await.unwrap();
        let after = api.claim_all(campaign, 8..=12).await;

        assert_eq!((count_coupons(&meanwhile), count_coupons(&after)), (7, 3), "{strategy}");
    }
}

async fn skiplock_keeps_no_campaign_waiting_for_the_locked_rows_of_another(space: &TestSpace) {
    let (free, held) = (space.campaign(40).await, space.campaign(1).await);
    let api = space.api(start_skiplock(space, &[("groups", "1")]).await.address());
    let locks = space.lock_rows(held).await;

    let (refused, answers) =
        tokio::join!(api.post_claim(held, 1), join_all((1..=40).map(|account| api.post_claim(free, account))),);

    assert!(refused.is_unavailable(), "{refused:?}");
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    locks.disconnect().await.unwrap();
    assert!(matches!(api.claim(held, 1).await, Outcome::Issued { .. }));
}

async fn skiplock_reports_the_error_of_a_trigger_and_is_ready_once_it_is_gone(space: &TestSpace) {
    for (account, strategy) in [(1, "coalesced"), (2, "select-update")] {
        let campaign = space.campaign(2).await;
        let skiplock = programs::skiplock_with(space, &[("strategy", strategy)]).await;
        let (api, admin) = (space.api(skiplock.address()), space.api(skiplock.admin()));
        space
            .sql(
                "CREATE TRIGGER refuse BEFORE UPDATE ON coupon FOR EACH ROW \
                 SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed for stocktaking'",
            )
            .await;

        assert!(api.post_claim(campaign, account).await.is_unavailable(), "{strategy}");

        eventually("it is not ready", async || admin.get("/readyz").await.status == 503).await;
        let answer = admin.get("/readyz").await;
        assert!(answer.text.contains("closed for stocktaking"), "{strategy}: {answer:?}");
        space.sql("DROP TRIGGER refuse").await;
        eventually("it is ready again", async || admin.get("/readyz").await.status == 200).await;
        assert!(matches!(api.claim(campaign, account).await, Outcome::Issued { .. }), "{strategy}");
        let error = skiplock.says_once(&["Z ERROR "]).await;
        assert!(error.contains("closed for stocktaking"), "{error}");
    }
}

/// An operator drops the key under running services, which already hold ids and connections: no check at their start
/// can notice it.
async fn nothing_is_issued_without_the_unique_key(system: &System) {
    let (space, api) = (&system.space, &system.api);
    let campaign = space.campaign(20).await;
    each_gets_a_coupon(api, campaign, 1..=2).await;

    space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;
    for _ in 0..3 {
        let answer = api.post_claim_preferring("wait=1", campaign, 3).await;
        assert!(answer.status == 202 || answer.is_unavailable(), "{answer:?}");
    }
    let admin = system.admin();
    let is_named = async || {
        let reasons = admin.get("/readyz").await.json["reasons"]["mysql"].to_string();
        reasons.contains("coupon_campaign_account") && reasons.contains("couponctl doctor")
    };
    eventually("the reason is given", is_named).await;
    assert_eq!(space.issued(campaign).await, 2);

    space.sql("ALTER TABLE coupon ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)").await;
    assert!(matches!(api.claim_patiently(campaign, 3).await, Outcome::Issued { .. }));
    eventually("it is ready again", async || admin.get("/readyz").await.status == 200).await;
}
