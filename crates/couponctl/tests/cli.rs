//! The operator's command as its operator meets it. Goal: every command can be run again, does what it says or nothing,
//! and its exit code and JSON can be relied on in scripts. Method: the real program on a database of the test's own.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

use coupon_core::{AccountId, CampaignId, ClaimKey, Installation, InstallationId, keys};
use coupon_testkit::program::{self, Ran};
use coupon_testkit::{TestSpace, run};
use deadpool_redis::redis::AsyncCommands;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_couponctl");

async fn ctl(space: &TestSpace, line: &str) -> Ran {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    program::run(PROGRAM, &arguments, &space.environment()).await
}

/// Runs a command that must succeed and gives its JSON.
async fn ctl_json(space: &TestSpace, line: &str) -> Value {
    let ran = ctl(space, &format!("--json {line}")).await;
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{line} printed no JSON: {ran:?}"))
}

/// Checks that a command fails with one line on standard error that has these words in it.
fn fails(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(matches!(&lines[..], [line] if line.starts_with("error: ")), "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}

#[tokio::test]
async fn migrate_makes_the_database_and_can_be_run_again() {
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
async fn a_campaign_is_made_shown_and_restocked() {
    run(async |space| {
        let create = "campaign create --id 7 --name Noon --coupons 120 --opens-at 2030-01-01T12:00:00+09:00";
        let noon = |coupons: u64| {
            json!([{
                "id": 7, "name": "Noon", "opens_at": "2030-01-01T03:00:00Z", "closes_at": null,
                "coupons": coupons, "issued": 0, "free": coupons,
            }])
        };

        assert_eq!(ctl_json(&space, create).await, noon(120));
        assert_eq!(ctl_json(&space, "campaign show --id 7").await, noon(120));
        assert_eq!(ctl_json(&space, "campaign add-coupons --id 7 --coupons 30").await, noon(150));
        assert_eq!(ctl_json(&space, "campaign list").await, noon(150));
        let table = ctl(&space, "campaign list").await;
        assert!(table.stdout.contains("Noon") && table.stdout.contains("150"), "{table:?}");
        assert_eq!(ctl_json(&space, "campaign create --coupons 1").await[0]["id"], 8, "the next free number");
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_load_that_was_cut_off_is_finished() {
    run(async |space| {
        let create = "campaign create --id 7 --coupons 12000";
        ctl_json(&space, "campaign create --id 7 --coupons 5000").await;

        let finished = ctl(&space, create).await;
        let again = ctl_json(&space, create).await;

        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stderr.contains("adding the 7000 that are missing"), "{finished:?}");
        assert_eq!((&again[0]["coupons"], &again[0]["free"]), (&json!(12_000), &json!(12_000)));
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_campaign_that_differs_is_left_as_it_is() {
    run(async |space| {
        let before = ctl_json(&space, "campaign create --id 7 --name Noon --coupons 10").await;

        for (line, word) in [
            ("campaign create --id 7 --name Night --coupons 10", "--name"),
            ("campaign create --id 7 --name Noon --coupons 10 --opens-at 2030-01-01T12:00:00Z", "--opens-at"),
            ("campaign create --id 7 --name Noon --coupons 9", "10 coupons already"),
            ("campaign add-coupons --id 8 --coupons 1", "no campaign 8"),
            ("campaign show --id 8", "no campaign 8"),
            (
                "campaign create --coupons 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                "--closes-at",
            ),
        ] {
            fails(&ctl(&space, line).await, 1, &[word]);
        }

        assert_eq!(ctl_json(&space, "campaign list").await, before);
    })
    .await;
}

#[tokio::test]
async fn wrong_usage_is_told_with_exit_code_2() {
    run(async |space| {
        for (line, words) in [
            ("campaign create", &["--coupons"][..]),
            ("campaign create --id 0 --coupons=-1", &["--id", "--coupons"]),
            ("campaign create --coupons 1 --opens-at noon", &["--opens-at", "2030-01-01T12:00:00Z"]),
            ("campaign add-coupons --id 1 --coupons 0", &["--coupons"]),
            ("--mysql-url=http://nowhere migrate", &["COUPON_MYSQL_URL"]),
            ("mend", &["mend"]),
        ] {
            let ran = ctl(&space, line).await;
            assert_eq!(ran.code, Some(2), "{line}: {ran:?}");
            assert!(ran.stderr.lines().all(|line| line.starts_with("error: ")), "{ran:?}");
            assert!(words.iter().all(|word| ran.stderr.contains(word)), "{line}: {ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_command_shows_an_example() {
    for line in [
        "--help",
        "migrate --help",
        "campaign create --help",
        "campaign add-coupons --help",
        "campaign show --help",
        "campaign list --help",
        "audit --help",
        "reset --help",
    ] {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let help = program::run(PROGRAM, &arguments, &[]).await;
        assert_eq!(help.code, Some(0), "{line}: {help:?}");
        assert!(help.stdout.contains("Example:\n  couponctl "), "{line}: {help:?}");
    }
    let help = program::run(PROGRAM, &[String::from("--help")], &[]).await;
    for variable in ["COUPON_MYSQL_URL", "COUPON_REDIS_URL", "COUPON_AMQP_URL", "COUPON_NAMESPACE"] {
        assert!(program::names_variable(&help, variable), "{variable}: {help:?}");
    }
}

#[tokio::test]
async fn an_audit_of_a_sound_system_is_clean() {
    run(async |space| {
        let campaign = space.campaign(10).await;
        space.campaign(3).await;
        issue(&space, campaign, 4).await;

        let table = ctl(&space, "audit").await;
        let report = ctl_json(&space, "audit").await;
        let one = ctl_json(&space, &format!("audit --campaign {campaign}")).await;

        assert_eq!(table.code, Some(0), "{table:?}");
        assert!(table.stdout.contains("clean: 2 campaigns, 4 coupons issued, 9 free"), "{table:?}");
        assert_eq!((&report["clean"], &report["not_checked"]), (&json!(true), &json!([])));
        let invariants = report["invariants"].as_array().unwrap();
        assert_eq!(invariants.len(), 6, "one finding for each invariant: {report}");
        assert_eq!(one["campaigns"], json!([{"campaign_id": campaign, "coupons": 10, "issued": 4, "free": 6}]));
    })
    .await;
}

#[tokio::test]
async fn an_audit_names_what_is_broken() {
    run(async |space| {
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
        redis.del::<_, ()>(outcome(2)).await.unwrap();

        space.queues.declare().await;
        space.queues.publish_dead_letter(b"poison").await;
        broken(&space, &["accepted_claims_settle"]).await;
        space.queues.take_dead_letters().await;

        space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;
        space.sql("UPDATE coupon SET account_id = 1 WHERE account_id IS NULL LIMIT 1").await;
        broken(&space, &["account_has_one_coupon"]).await;
        space.sql("UPDATE coupon SET account_id = NULL").await;
        space.sql("ALTER TABLE coupon ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)").await;

        assert_eq!(ctl(&space, "audit").await.code, Some(0), "all is mended");
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
    assert_eq!(report["clean"], false);
    let table = ctl(space, "audit").await;
    assert!(table.stdout.contains("BROKEN") && table.stdout.contains(invariants[0]), "{table:?}");
}

#[tokio::test]
async fn an_audit_tells_what_it_could_not_check() {
    run(async |space| {
        space.campaign(1).await;
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

        let line = format!("audit --json --amqp-url=amqp://{closed}/%2f --redis-url=redis://{closed}/0");
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (flags, command): (Vec<String>, Vec<String>) =
            arguments.into_iter().partition(|argument| argument.contains("-url="));
        let ran = program::run(PROGRAM, &[flags, command].concat(), &space.environment()).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["not_checked"].as_array().map(Vec::len), Some(2), "{report}");
    })
    .await;
}

#[tokio::test]
async fn reset_asks_to_be_meant() {
    run(async |space| {
        let campaign = space.campaign(10).await;
        space.queues.declare().await;
        space.queues.publish(lapin::BasicProperties::default(), b"waiting").await;
        space.redis().rpush::<_, _, ()>(keys::free_coupons(space.installation(), campaign), "id").await.unwrap();

        fails(&ctl(&space, "reset").await, 1, &["--yes"]);
        assert_eq!(ctl_json(&space, "campaign list").await.as_array().map(Vec::len), Some(1));
        assert_eq!((space.ids_in_redis(campaign).await, space.queues.waiting().await), (1, 1));

        let done = ctl(&space, "reset --yes").await;

        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
        assert_eq!((space.ids_in_redis(campaign).await, space.queues.waiting().await), (0, 0));
        let again = ctl(&space, "reset --yes").await;
        assert_eq!(again.code, Some(0), "{again:?}");
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

/// Issues coupons to the accounts from 1 on.
async fn issue(space: &TestSpace, campaign: CampaignId, count: u64) {
    for account in 1..=count {
        space
            .sql(format!(
                "UPDATE coupon SET account_id = {account} WHERE campaign_id = {campaign} AND account_id IS NULL LIMIT 1"
            ))
            .await;
    }
}
