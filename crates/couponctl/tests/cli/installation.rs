//! An installation's data, created by `migrate` and emptied by `reset`. Goal: both can be run again, and `reset`
//! deletes only what belongs to its own installation. Method: what MySQL, Redis and the broker hold before and after.

use coupon_core::redis::keys;
use coupon_core::{CampaignId, Installation, InstallationId};
use coupon_testkit::run;
use deadpool_redis::redis::AsyncCommands;
use futures_util::future::join_all;
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

#[tokio::test]
async fn a_schema_of_another_build_is_left_as_it_is() {
    run(async |space| {
        space.sql("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1").await;
        for command in ["migrate", "campaign list"] {
            fails(&ctl(&space, command).await, 1, &["V1__", "run that build"]);
        }
        space.sql("DELETE FROM refinery_schema_history WHERE version > 1").await;
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
        assert_eq!(again.code, Some(0), "{again:?}");
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
