//! `couponctl audit`. Goal: it names a broken invariant, and calls nothing clean that was not checked. Method: a sound
//! system, the same system with one thing broken, and with servers that are away.

use coupon_core::rabbitmq::message;
use coupon_core::redis::keys;
use coupon_core::{AccountId, CampaignId, Claim, ClaimKey};
use coupon_testkit::{TestSpace, run};
use deadpool_redis::redis::{self, AsyncCommands};
use serde_json::{Value, json};

use crate::{ctl, ctl_json};

#[tokio::test]
async fn an_audit_of_a_sound_system_is_clean() {
    run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(10).await;
        space.campaign(3).await;
        issue(&space, campaign, 4).await;

        let table = ctl(&space, "audit").await;
        let report = ctl_json(&space, "audit").await;
        let one = ctl_json(&space, &format!("audit --campaign {campaign}")).await;

        assert_eq!(table.code, Some(0), "{table:?}");
        assert!(table.stdout.contains("clean: 2 campaigns, 4 coupons issued, 9 free"), "{table:?}");
        assert_eq!((&report["clean"], &report["not_checked"]), (&json!(true), &json!([])));
        assert_eq!(report["verdict"], "clean");
        let invariants = report["invariants"].as_array().unwrap();
        assert_eq!(invariants.len(), 6, "one finding for each invariant: {report}");
        assert_eq!(one["campaigns"], json!([{"campaign_id": campaign, "coupons": 10, "issued": 4, "free": 6}]));
    })
    .await;
}

#[tokio::test]
async fn a_right_that_is_missing_in_redis_is_named() {
    run(async |space| {
        space.queues.declare().await;
        let user = space.name();
        let mut redis = space.redis();
        let mut make = redis::cmd("ACL");
        make.arg("SETUSER").arg(user).arg(&["reset", "on", ">secret", "~*", "&*", "+@all", "-scan"]);
        make.exec_async(&mut redis).await.unwrap();
        let url = space.servers().redis.redis_url.with_user(user, "secret");

        let ran = ctl(&space, &format!("--redis-url={} audit", url.reveal())).await;

        redis::cmd("ACL").arg("DELUSER").arg(user).exec_async(&mut redis).await.unwrap();
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stdout.contains("'scan'") && ran.stdout.contains("docs/RIGHTS.md"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn an_audit_names_what_is_broken() {
    run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(10).await;
        issue(&space, campaign, 4).await;
        let outcome = |account| {
            keys::outcome(space.installation(), ClaimKey { campaign_id: campaign, account_id: AccountId(account) })
        };
        let mut redis = space.redis();

        space.sql("UPDATE campaign SET coupons = 11").await;
        broken(&space, &["issued_within_stock"]).await;
        space.sql("UPDATE campaign SET coupons = 10").await;

        space.sql(format!("INSERT INTO coupon (id, campaign_id) VALUES (x'{:032x}', 404)", 1)).await;
        broken(&space, &["issued_within_stock"]).await;
        space.sql("DELETE FROM coupon WHERE campaign_id = 404").await;

        let another = uuid::Uuid::new_v4();
        redis.set::<_, _, ()>(outcome(1), another.as_bytes()).await.unwrap();
        broken(&space, &["coupon_keeps_its_account"]).await;
        redis.del::<_, ()>(outcome(1)).await.unwrap();

        redis.set::<_, _, ()>(outcome(2), "-").await.unwrap();
        broken(&space, &["sold_out_only_when_true"]).await;
        ctl_json(&space, &format!("campaign add-coupons --id {campaign} --key more --coupons 1")).await;
        assert_eq!(ctl(&space, "audit").await.code, Some(0), "it may have been the answer before the restock");
        redis.del::<_, ()>(outcome(2)).await.unwrap();

        space.queues.publish_dead_letter(lapin::BasicProperties::default(), b"poison").await;
        broken(&space, &["accepted_claims_settle"]).await;
        space.queues.take_dead_letters().await;

        space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;
        space.sql("UPDATE coupon SET account_id = 1 WHERE account_id IS NULL LIMIT 1").await;
        broken(&space, &["account_has_one_coupon"]).await;
        space.sql("UPDATE coupon SET account_id = NULL").await;
        space.sql("ALTER TABLE coupon ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)").await;

        assert_eq!(ctl(&space, "audit").await.code, Some(0), "everything is repaired");
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_not_blamed_for_the_dead_letters_of_another() {
    run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(1).await;
        let claim = Claim { campaign_id: CampaignId(campaign.0 + 1), account_id: AccountId(1), accepted_at_ms: 5 };
        let properties = message::dead_letter_properties(space.installation().id, "no such campaign");
        space.queues.publish_dead_letter(properties, &message::encode(&[claim]).unwrap()).await;

        assert_eq!(ctl(&space, "audit").await.code, Some(1));
        assert_eq!(ctl(&space, &format!("audit --campaign {campaign}")).await.code, Some(0));

        space.queues.publish_dead_letter(lapin::BasicProperties::default(), b"poison").await;
        let whose = ctl(&space, &format!("audit --campaign {campaign}")).await;
        assert_eq!(whose.code, Some(1), "nobody knows whose message that was: {whose:?}");
        space.queues.take_dead_letters().await;
    })
    .await;
}

/// Checks that the audit fails and names these invariants and no others.
async fn broken(space: &TestSpace, invariants: &[&str]) {
    let ran = ctl(space, "audit --json").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let named: Vec<&str> = report["invariants"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["broken"] != 0)
        .map(|finding| finding["invariant"].as_str().unwrap())
        .collect();
    assert_eq!(named, invariants, "{report:#}");
    assert_eq!((&report["clean"], &report["verdict"]), (&json!(false), &json!("broken")));
    let table = ctl(space, "audit").await;
    assert!(table.stdout.contains("BROKEN") && table.stdout.contains(invariants[0]), "{table:?}");
}

#[tokio::test]
async fn an_audit_that_could_not_check_everything_is_not_clean() {
    run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(1).await;
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (no_redis, no_rabbitmq) =
            (format!("--redis-url=redis://{closed}/0"), format!("--amqp-url=amqp://{closed}/%2f"));

        for (away, not_checked) in [(vec![&no_redis], 1), (vec![&no_rabbitmq], 1), (vec![&no_redis, &no_rabbitmq], 2)] {
            let flags = away.into_iter().cloned().collect::<Vec<_>>().join(" ");
            let json = ctl(&space, &format!("{flags} audit --json")).await;
            let table = ctl(&space, &format!("{flags} audit")).await;

            assert_eq!((json.code, table.code), (Some(3), Some(3)), "{flags}: {json:?} {table:?}");
            let report: Value = serde_json::from_str(&json.stdout).unwrap();
            assert_eq!(report["not_checked"].as_array().map(Vec::len), Some(not_checked), "{report}");
            assert_eq!((&report["clean"], &report["verdict"]), (&json!(false), &json!("not_checked")));
            assert_eq!(table.stdout.matches("not checked: ").count(), not_checked, "{table:?}");
            assert!(!table.stdout.contains("clean"), "{table:?}");
        }
        let mysql_only = ctl_json(&space, &format!("{no_redis} {no_rabbitmq} audit --mysql-only")).await;
        assert_eq!(mysql_only["verdict"], "clean", "nothing else had to be checked");

        space.sql(format!("UPDATE campaign SET coupons = 2 WHERE id = {campaign}")).await;
        let broken = ctl(&space, &format!("{no_redis} audit")).await;
        assert_eq!(broken.code, Some(1), "what is broken is broken, whatever else was not checked: {broken:?}");
        space.sql(format!("UPDATE campaign SET coupons = 1 WHERE id = {campaign}")).await;
    })
    .await;
}

#[tokio::test]
async fn an_audit_of_the_wrong_namespace_is_not_clean() {
    run(async |space| {
        space.queues.declare().await;
        space.campaign(1).await;

        let ran = ctl(&space, "--namespace=another audit").await;

        assert_eq!(ran.code, Some(3), "{ran:?}");
        for word in ["not checked: the dead letters", "no queue another.claims.dead", "--amqp-url", "--mysql-only"] {
            assert!(ran.stdout.contains(word), "{word} is missing: {ran:?}");
        }
        assert_eq!(ctl(&space, "audit").await.code, Some(0));
    })
    .await;
}

/// Issues this many coupons, to the accounts from 1 on.
async fn issue(space: &TestSpace, campaign: CampaignId, count: u64) {
    for account in 1..=count {
        space
            .sql(format!(
                "UPDATE coupon SET account_id = {account} WHERE campaign_id = {campaign} AND account_id IS NULL LIMIT 1"
            ))
            .await;
    }
}
