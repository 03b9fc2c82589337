//! An installation's data, created by `migrate` and emptied by `reset`. Goal: both can be run again, and `reset`
//! deletes only what belongs to its own installation. Method: what MySQL, Redis and the broker hold before and after.

use std::collections::BTreeMap;

use coupon_core::redis::keys;
use coupon_core::{CampaignId, Installation, InstallationId};
use coupon_testkit::run;
use deadpool_redis::redis::AsyncCommands;
use futures_util::future::join_all;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;

use crate::{ctl, ctl_json, fails};

#[tokio::test]
async fn migrate_creates_the_database_and_can_be_run_again() {
    run(async |space| {
        space.sql(format!("DROP DATABASE `{}`", space.name())).await;
        fails(&ctl(&space, "campaign list").await, 1, &["couponctl migrate"]);

        let first = ctl_json(&space, "migrate").await;
        let second = ctl_json(&space, "migrate").await;

        assert!(first["applied"].as_array().is_some_and(|applied| !applied.is_empty()), "{first}");
        assert_eq!(second, json!({"version": first["version"], "applied": []}));
        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
    })
    .await;
}

/// MySQL commits each statement of a migration by itself, so one that is killed may have done any number of them.
#[tokio::test]
async fn a_migration_that_was_cut_off_is_finished() {
    run(async |space| {
        let mut conn = space.mysql().connection().await.unwrap();
        conn.query_drop("CREATE TABLE applied SELECT * FROM refinery_schema_history").await.unwrap();
        let whole = tables(&mut conn).await;
        for cut in 0..MIGRATIONS.len() {
            let before: Vec<String> = MIGRATIONS[..cut].iter().flat_map(|text| statements(text)).collect();
            let of_this = statements(MIGRATIONS[cut]);
            for done in 0..=of_this.len() {
                for table in whole.keys() {
                    conn.query_drop(format!("DROP TABLE IF EXISTS {table}")).await.unwrap();
                }
                let applied =
                    format!("CREATE TABLE refinery_schema_history SELECT * FROM applied WHERE version <= {cut}");
                let campaign = String::from("INSERT INTO campaign (id, name, coupons) VALUES (7, 'kept', 70)");
                let kept = (cut == 3).then_some(campaign);
                let done = before.iter().cloned().chain(kept).chain(of_this[..done].iter().cloned()).chain([applied]);
                for statement in done {
                    conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
                }

                let ran = ctl_json(&space, "migrate").await;

                assert_eq!(ran["applied"].as_array().map(Vec::len), Some(MIGRATIONS.len() - cut), "{ran}");
                assert_eq!(tables(&mut conn).await, whole, "migration {cut}, cut off");
                let rows: Vec<(u64, u64)> = conn
                    .query("SELECT (SELECT COUNT(*) FROM installation), (SELECT COUNT(*) FROM operator_lock)")
                    .await
                    .unwrap();
                assert_eq!(rows, [(1, 1)]);
                let loads: Vec<u64> = conn.query("SELECT loaded FROM coupon_load").await.unwrap();
                assert_eq!(loads, if cut == 3 { vec![70] } else { Vec::new() });
            }
        }
    })
    .await;
}

const MIGRATIONS: [&str; 4] = [
    include_str!("../../../coupon-core/migrations/V1__campaign_and_coupon.sql"),
    include_str!("../../../coupon-core/migrations/V2__coupons_in_order_of_campaign.sql"),
    include_str!("../../../coupon-core/migrations/V3__installation.sql"),
    include_str!("../../../coupon-core/migrations/V4__operators.sql"),
];

fn statements(migration: &str) -> Vec<String> {
    let text: Vec<&str> = migration.lines().filter(|line| !line.starts_with("--")).collect();
    text.join("\n").split(';').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

/// How each table was made, but for those of the test and the next number of a row.
async fn tables(conn: &mut Conn) -> BTreeMap<String, String> {
    let mut tables = BTreeMap::new();
    for table in conn.query::<String, _>("SHOW TABLES").await.unwrap() {
        let made: Option<(String, String)> = conn.query_first(format!("SHOW CREATE TABLE `{table}`")).await.unwrap();
        let made = made.unwrap().1;
        let made = made.split(" AUTO_INCREMENT=").next().unwrap().to_owned();
        if table != "applied" {
            tables.insert(table.clone(), if table == "refinery_schema_history" { String::new() } else { made });
        }
    }
    tables
}

#[tokio::test]
async fn a_reset_that_would_have_to_wait_deletes_nothing() {
    run(async |space| {
        let campaign = space.campaign(10).await;
        let mut backup = space.mysql().connection_of_its_own().await.unwrap();
        backup.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.unwrap();
        backup.query_drop("SELECT COUNT(*) FROM coupon").await.unwrap();

        let ran = ctl(&space, "reset --yes --mysql-only").await;

        fails(&ran, 1, &["nothing was deleted", "is open", "run this again"]);
        let mut claimer = space.mysql().connection_of_its_own().await.unwrap();
        claimer.query_drop("SET SESSION lock_wait_timeout = 1").await.unwrap();
        claimer.query_drop("SELECT id FROM coupon LIMIT 1").await.expect("nothing that claims would have to wait for");
        assert_eq!(ctl_json(&space, "campaign list").await[0]["free"], 10);
        backup.disconnect().await.unwrap();
        assert_eq!(ctl(&space, "reset --yes --mysql-only").await.code, Some(0));
        assert_eq!(space.issued(campaign).await, 0);
        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_schema_of_another_build_is_left_as_it_is() {
    run(async |space| {
        space.sql("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await;
        for command in ["migrate", "campaign list"] {
            fails(&ctl(&space, command).await, 1, &["V1__", "run that build"]);
        }
        space.sql("DELETE FROM refinery_schema_history WHERE version = 1").await;
        fails(&ctl(&space, "migrate").await, 1, &["V1__", "run that build"]);
        space.sql("DELETE FROM refinery_schema_history WHERE version > 2").await;
        space.sql("UPDATE refinery_schema_history SET version = 1000").await;
        fails(&ctl(&space, "migrate").await, 1, &["version 1000", "run newer builds"]);
        space.sql("DROP TABLE refinery_schema_history").await;
        fails(&ctl(&space, "migrate").await, 1, &["Table 'campaign' already exists", "--mysql-url"]);

        space.sql(format!("DROP DATABASE `{}`", space.name())).await;
        assert_eq!(ctl(&space, "migrate").await.code, Some(0));
    })
    .await;
}

#[tokio::test]
async fn concurrent_migrations_wait_for_each_other() {
    run(async |space| {
        space.sql(format!("DROP DATABASE `{}`", space.name())).await;

        let ran = join_all((0..6).map(|_| ctl(&space, "setup --id 1 --coupons 10"))).await;

        assert!(ran.iter().all(|ran| ran.code == Some(0)), "{ran:#?}");
        let campaigns = ctl_json(&space, "campaign list").await;
        assert_eq!(campaigns[0]["free"], 10, "{campaigns}");
    })
    .await;
}

#[tokio::test]
async fn reset_asks_for_confirmation() {
    run(async |space| {
        let campaign = space.campaign(10).await;
        space.queues.declare().await;
        space.queues.publish(lapin::BasicProperties::default(), b"waiting").await;
        space.redis().rpush::<_, _, ()>(keys::free_coupons(space.installation(), campaign), "id").await.unwrap();

        fails(&ctl(&space, "reset").await, 2, &["--yes"]);
        assert_eq!(ctl_json(&space, "campaign list").await.as_array().map(Vec::len), Some(1));
        assert_eq!((space.ids_in_redis(campaign).await, space.queues.waiting().await), (1, 1));

        let done = ctl_json(&space, "reset --yes").await;

        assert_eq!(done, json!({ "messages": 1, "keys": 1 }));
        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
        assert_eq!((space.ids_in_redis(campaign).await, space.queues.waiting().await), (0, 0));
        let again = ctl(&space, "reset --yes").await;
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
        let elsewhere = ctl(&space, "--namespace another reset --yes").await;
        assert!(elsewhere.code == Some(0) && elsewhere.stderr.contains("no queue another.claims"), "{elsewhere:?}");
        let anew = ctl_json(&space, &format!("campaign create --id {campaign} --coupons 3")).await;
        assert_eq!(anew[0]["coupons"], 3, "no record of the old one is left");
    })
    .await;
}

#[tokio::test]
async fn reset_leaves_other_installations_alone() {
    run(async |space| {
        let campaign = CampaignId(1);
        let ours = space.installation();
        let namesake = Installation { id: InstallationId(uuid::Uuid::new_v4()), ..ours.clone() };
        let other = Installation { namespace: format!("{}-2", space.name()).parse().unwrap(), ..ours.clone() };
        let lists = [namesake, other].map(|installation| keys::free_coupons(&installation, campaign));
        for list in &lists {
            space.redis().rpush::<_, _, ()>(list, "id").await.unwrap();
        }

        let done = ctl(&space, "reset --yes").await;

        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(space.redis().del::<_, u64>(&lists[..]).await.unwrap(), 2);
    })
    .await;
}
