//! The coupons of a campaign, as an operator loads them. Goal: a campaign has exactly the coupons that were ordered,
//! whatever is repeated, cut off or done at the same time. Method: loads that are killed, repeated and locked out.

use coupon_core::mysql::campaigns;
use coupon_testkit::{TestSpace, eventually, run};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::json;

use crate::{PROGRAM, ctl, ctl_json, fails};

/// Enough coupons for a load to be still running when the test kills it.
const MANY: u64 = 100_000;

#[tokio::test]
async fn a_load_that_was_cut_off_is_finished_by_repeating_it() {
    run(async |space| {
        for (id, before, line, total) in [
            (1, None, format!("campaign create --id 1 --coupons {MANY}"), MANY),
            (2, None, format!("setup --id 2 --coupons {MANY}"), MANY),
            (
                3,
                Some("campaign create --id 3 --coupons 10"),
                format!("campaign add-coupons --id 3 --key more --coupons {MANY}"),
                10 + MANY,
            ),
            (
                4,
                Some("campaign create --id 4 --coupons 10"),
                format!("campaign add-coupons --id 4 --total {MANY}"),
                MANY,
            ),
        ] {
            if let Some(before) = before {
                ctl_json(&space, before).await;
            }
            let loaded = cut_off(&space, id, &line).await;
            assert!(loaded < total, "it was not cut off: {loaded}");
            space.audit().await;
            let shown = ctl(&space, &format!("campaign show --id {id}")).await;
            let notice = format!("{} coupons that were ordered are not there", total - loaded);
            assert!(shown.stdout.contains(&notice), "{shown:?}");

            assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(total), "{line}");
            assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(total), "{line}, once more");
            space.audit().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_total_takes_the_place_of_a_load_that_was_cut_off() {
    run(async |space| {
        for (id, made) in [(1, "setup"), (2, "campaign create")] {
            let line = format!("{made} --id {id} --coupons {MANY}");
            cut_off(&space, id, &line).await;

            let raised = ctl(&space, &format!("campaign add-coupons --id {id} --total {MANY}")).await;

            assert!(raised.code == Some(0) && !raised.stdout.contains("not there"), "{raised:?}");
            assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(MANY), "{line} adds nothing");
        }
        let line = format!("setup --id 3 --coupons {MANY}");
        let loaded = cut_off(&space, 3, &line).await;
        ctl_json(&space, &format!("campaign add-coupons --id 3 --total {loaded}")).await;
        assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(loaded), "that many are enough");
        space.audit().await;
    })
    .await;
}

/// Whichever began it: an operator repeats what the history shows, and Compose runs `setup` at each start.
#[tokio::test]
async fn a_creation_that_was_cut_off_is_finished_by_create_and_by_setup() {
    run(async |space| {
        for (id, began, other) in [(1, "setup", "campaign create"), (2, "campaign create", "setup")] {
            let loaded = cut_off(&space, id, &format!("{began} --id {id} --coupons {MANY}")).await;

            let more = ctl(&space, &format!("{other} --id {id} --coupons {}", MANY + 1)).await;
            let in_words = [format!("{MANY} coupons"), format!("{} of its coupons are not there yet", MANY - loaded)];
            assert!(in_words.iter().all(|words| more.stderr.contains(words)), "{more:?}");
            assert_eq!(ctl_json(&space, &format!("campaign show --id {id}")).await[0]["coupons"], json!(loaded));

            let finished = ctl_json(&space, &format!("{other} --id {id} --coupons {MANY}")).await;
            assert_eq!(finished[0]["coupons"], json!(MANY), "{other} after {began}");
        }
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_load_that_was_cut_off_is_finished_after_the_campaign_has_changed() {
    run(async |space| {
        let line = format!("campaign create --id 1 --name first --coupons {MANY}");
        cut_off(&space, 1, &line).await;
        ctl_json(&space, "campaign update --id 1 --name second").await;
        ctl_json(&space, "campaign close --id 1").await;

        let other = ctl(&space, &format!("campaign create --id 1 --name second --coupons {MANY}")).await;
        let shown = ctl_json(&space, &line).await;

        fails(&other, 1, &["campaign 1 already exists", "--closes-at"]);
        assert_eq!((&shown[0]["coupons"], &shown[0]["name"]), (&json!(MANY), &json!("second")));
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_campaign_that_was_deleted_by_hand_can_be_created_again() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 1 --coupons 10").await;
        ctl_json(&space, "campaign add-coupons --id 1 --key more --coupons 5").await;
        space.sql("DELETE FROM campaign WHERE id = 1").await;
        fails(&ctl(&space, "campaign create --id 1 --coupons 10").await, 1, &["coupons of campaign 1", "--id"]);
        space.sql("DELETE FROM coupon WHERE campaign_id = 1").await;

        assert_eq!(ctl_json(&space, "campaign create --id 1 --coupons 6000").await[0]["coupons"], 6_000);
        let more = ctl_json(&space, "campaign add-coupons --id 1 --key more --coupons 5").await;
        assert_eq!(more[0]["coupons"], 6_005, "it is another load");
        space.audit().await;
    })
    .await;
}

/// Kills a command in the middle of its load, and returns how many coupons the campaign then has.
async fn cut_off(space: &TestSpace, id: u64, line: &str) -> u64 {
    let before = stock(space, id).await;
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(line.split(' ')).env_clear().envs(space.environment()).kill_on_drop(true);
    let mut loading = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("the load has begun", async || stock(space, id).await > before).await;
    let mut holder = lock_campaign(space, id).await;
    loading.kill().await.unwrap();
    holder.query_drop("ROLLBACK").await.unwrap();
    // A chunk whose COMMIT was on its way may still be added.
    eventually("its connections are gone", async || space.running("").await.len() <= 1).await;
    stock(space, id).await
}

async fn stock(space: &TestSpace, id: u64) -> u64 {
    let mut conn = space.mysql().connection().await.unwrap();
    let coupons: Option<u64> = conn.query_first(format!("SELECT coupons FROM campaign WHERE id = {id}")).await.unwrap();
    coupons.unwrap_or(0)
}

/// Holds the row of a campaign, so that no coupon can be added to it until the end of this transaction.
async fn lock_campaign(space: &TestSpace, id: u64) -> Conn {
    let mut conn = space.mysql().connection().await.unwrap();
    conn.query_drop("START TRANSACTION").await.unwrap();
    conn.query_drop(format!("SELECT id FROM campaign WHERE id = {id} FOR UPDATE")).await.unwrap();
    conn
}

#[tokio::test]
async fn nothing_adds_coupons_that_nobody_asked_for() {
    run(async |space| {
        let coupons = async |line: &str| ctl_json(&space, line).await[0]["coupons"].clone();

        assert_eq!(coupons("campaign create --id 1 --coupons 100").await, 100);
        let set_up = ctl(&space, "setup --id 1 --coupons 1000").await;
        assert!(set_up.stderr.contains("100 coupons"), "it says that the campaign is not as asked for: {set_up:?}");
        assert_eq!(coupons("setup --id 1 --coupons 1000").await, 100, "setup did not make it");
        assert_eq!(coupons("campaign add-coupons --id 1 --key more --coupons 50").await, 150);
        assert_eq!(coupons("campaign add-coupons --id 1 --key more --coupons 50").await, 150, "the same restock");
        assert_eq!(coupons("campaign add-coupons --id 1 --key create --coupons 50").await, 200, "another");
        assert_eq!(coupons("campaign create --id 1 --coupons 100").await, 200, "made before the restock");
        assert_eq!(coupons("campaign add-coupons --id 1 --total 150").await, 200, "never lowered");
        assert_eq!(coupons("campaign add-coupons --id 1 --total 250").await, 250);
        assert_eq!(coupons("campaign add-coupons --id 1 --total 250").await, 250);
        fails(&ctl(&space, "campaign add-coupons --id 1 --key more --coupons 60").await, 1, &["more", "50"]);
        fails(&ctl(&space, "campaign create --id 1 --coupons 1000").await, 1, &["100 coupons", "add-coupons"]);

        assert_eq!(coupons("setup --id 2 --coupons 10").await, 10);
        assert_eq!(coupons("campaign add-coupons --id 2 --key more --coupons 5").await, 15);
        assert_eq!(coupons("setup --id 2 --coupons 10").await, 15);
        assert_eq!(coupons("setup --id 2 --coupons 20").await, 15);
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn one_connection_is_enough_to_create_and_restock_a_campaign() {
    run(async |space| {
        for (line, coupons) in [
            ("--mysql-connections 1 campaign create --id 1 --coupons 12000", 12_000),
            ("--mysql-connections 1 campaign add-coupons --id 1 --key more --coupons 6000", 18_000),
            ("--mysql-connections 1 campaign add-coupons --id 1 --total 30000", 30_000),
            ("--mysql-connections 1 setup --id 2 --coupons 12000", 12_000),
        ] {
            assert_eq!(ctl_json(&space, line).await[0]["coupons"], coupons, "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_operator_loads_at_a_time_while_others_may_pause() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 1 --coupons 1").await;
        let lock = campaigns::lock_for_operator(space.mysql()).await.unwrap();

        for line in ["campaign create --coupons 1", "campaign add-coupons --id 1 --total 2", "setup --id 1 --coupons 1"]
        {
            fails(&ctl(&space, line).await, 1, &["another couponctl"]);
        }
        assert_eq!(ctl_json(&space, "campaign pause --id 1").await[0]["paused"], true);

        lock.release().await;
        assert_eq!(ctl_json(&space, "campaign add-coupons --id 1 --total 2").await[0]["coupons"], 2);
    })
    .await;
}
