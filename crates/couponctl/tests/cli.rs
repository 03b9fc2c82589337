//! The operator's command as its operator meets it. Goal: every command can be run again, does what it says or nothing,
//! and its exit code and JSON can be relied on in scripts. Method: the real program on a database of the test's own.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

use coupon_core::mysql::campaigns;
use coupon_core::redis::keys;
use coupon_core::{AccountId, CampaignId, ClaimKey, Installation, InstallationId};
use coupon_testkit::program::{self, Ran};
use coupon_testkit::{TestSpace, eventually, options, run, secrets};
use couponctl::Couponctl;
use deadpool_redis::redis::AsyncCommands;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
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
                "coupons": coupons, "paused": false, "issued": 0, "free": coupons,
            }])
        };

        assert_eq!(ctl_json(&space, create).await, noon(120));
        assert_eq!(ctl_json(&space, "campaign show --id 7").await, noon(120));
        assert_eq!(ctl_json(&space, "campaign add-coupons --id 7 --key second --coupons 30").await, noon(150));
        assert_eq!(ctl_json(&space, "campaign list").await, noon(150));
        let table = ctl(&space, "campaign list").await;
        assert!(table.stdout.contains("Noon") && table.stdout.contains("150"), "{table:?}");
        assert_eq!(ctl_json(&space, "campaign create --coupons 1").await[0]["id"], 8, "the next free number");
        space.audit().await;
    })
    .await;
}

/// More coupons than are loaded before somebody has looked.
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

            assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(total), "{line}");
            assert_eq!(ctl_json(&space, &line).await[0]["coupons"], json!(total), "{line}, once more");
            space.audit().await;
        }
    })
    .await;
}

/// Kills a command in the middle of its load, and gives the coupons that the campaign has then.
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
async fn one_connection_is_enough_to_make_and_restock_a_campaign() {
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

#[tokio::test]
async fn a_campaign_is_changed_and_its_history_tells_by_whom() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 7 --name Noon --coupons 120").await;
        for (line, field, value) in [
            ("campaign update --id 7 --name Night --opens-at 2030-01-01T12:00:00Z", "name", json!("Night")),
            ("campaign update --id 7 --closes-at 2030-01-02T12:00:00Z", "closes_at", json!("2030-01-02T12:00:00Z")),
            ("campaign update --id 7 --no-opens-at", "opens_at", json!(null)),
            ("campaign pause --id 7", "paused", json!(true)),
            ("campaign pause --id 7", "paused", json!(true)),
            ("campaign resume --id 7", "paused", json!(false)),
            ("campaign add-coupons --id 7 --key more --coupons 30", "coupons", json!(150)),
            ("campaign add-coupons --id 7 --key more --coupons 30", "coupons", json!(150)),
        ] {
            assert_eq!(ctl_json(&space, line).await[0][field], value, "{line}");
        }
        let closed = ctl_json(&space, "campaign close --id 7").await;
        assert!(closed[0]["closes_at"].as_str().unwrap() < "2030-01-01", "{closed}");
        assert_eq!(ctl_json(&space, "campaign close --id 7").await, closed, "it is over");
        assert!(ctl(&space, "campaign show --id 7").await.stdout.contains("closed"));
        let window = ctl(&space, "campaign update --id 7 --opens-at 2040-01-01T12:00:00Z").await;
        fails(&window, 1, &["--closes-at must be after --opens-at"]);
        assert_eq!(ctl_json(&space, "campaign update --id 7 --no-closes-at").await[0]["closes_at"], json!(null));

        let history = ctl_json(&space, "campaign history --id 7").await;
        let lines: Vec<(&str, &str, &str)> = history
            .as_array()
            .unwrap()
            .iter()
            .map(|line| {
                assert!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
                assert!(line["who"].as_str().is_some_and(|who| who.contains('@')), "{line}");
                assert_eq!(line["campaign_id"], 7);
                (line["what"].as_str().unwrap(), line["old"].as_str().unwrap_or("-"), line["new"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            lines[..7],
            [
                ("create", "-", "name 'Noon', opens at -, closes at -, 120 coupons"),
                ("update", "name 'Noon', opens at -", "name 'Night', opens at 2030-01-01T12:00:00Z"),
                ("update", "closes at -", "closes at 2030-01-02T12:00:00Z"),
                ("update", "opens at 2030-01-01T12:00:00Z", "opens at -"),
                ("pause", "not paused", "paused"),
                ("resume", "paused", "not paused"),
                ("add-coupons", "120 coupons", "150 coupons, key more"),
            ]
        );
        let rest: Vec<&str> = lines[7..].iter().map(|(what, ..)| *what).collect();
        assert_eq!(rest, ["close", "update"], "what changes nothing has no line");
        let table = ctl(&space, "campaign history --id 7").await;
        assert_eq!(table.stdout.lines().count(), 1 + lines.len(), "{table:?}");
    })
    .await;
}

#[tokio::test]
async fn a_change_and_its_line_in_the_history_are_one() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 7 --coupons 10").await;
        space.sql("ALTER TABLE campaign_change ADD CONSTRAINT CHECK (what = 'create' AND campaign_id = 7)").await;

        for line in [
            "campaign pause --id 7",
            "campaign close --id 7",
            "campaign update --id 7 --name Night",
            "campaign add-coupons --id 7 --key more --coupons 5",
            "campaign add-coupons --id 7 --total 20",
            "campaign create --id 8 --coupons 5",
        ] {
            fails(&ctl(&space, line).await, 1, &["MySQL"]);
        }

        let left = ctl_json(&space, "campaign list").await;
        let noon = json!([{
            "id": 7, "name": "campaign", "opens_at": null, "closes_at": null,
            "coupons": 10, "paused": false, "issued": 0, "free": 10,
        }]);
        assert_eq!(left, noon);
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_never_seen_without_the_first_of_its_coupons() {
    run(async |space| {
        space.sql("ALTER TABLE coupon ADD CONSTRAINT CHECK (campaign_id <> 7)").await;

        fails(&ctl(&space, "campaign create --id 7 --coupons 10").await, 1, &["MySQL"]);

        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_name_that_moves_the_cursor_is_shown_as_text() {
    run(async |space| {
        let create = ["campaign", "create", "--coupons=1", "--name=a\u{1b}[31m\nb"].map(String::from);
        let refused = program::run(PROGRAM, &create, &space.environment()).await;
        fails(&refused, 2, &["--name", "\\u{1b}"]);
        space.campaign(1).await;
        space.sql("UPDATE campaign SET name = CONCAT('red', CHAR(27), '[31m', CHAR(10), 'line')").await;

        let table = ctl(&space, "campaign list").await;
        let json = ctl(&space, "campaign list --json").await;

        assert!(table.stdout.contains("red\\u{1b}[31m\\u{a}line"), "{table:?}");
        assert!(!json.stdout.contains('\u{1b}'), "{json:?}");
        let parsed: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(parsed[0]["name"], "red\u{1b}[31m\nline");
    })
    .await;
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_an_error() {
    run(async |space| {
        space.campaign(1).await;
        for line in ["campaign list", "campaign list --json", "audit", "audit --json", "--help", "--version"] {
            for (disk, code) in [("/dev/full", 1), ("/dev/null", 0)] {
                let script = format!("exec '{PROGRAM}' {line} >{disk}");
                let arguments = ["-c", script.as_str()].map(String::from);
                let ran = program::run("/bin/sh", &arguments, &space.environment()).await;

                assert_eq!(ran.code, Some(code), "{line} >{disk}: {ran:?}");
                assert_eq!(ran.stderr.lines().count(), usize::from(code == 1), "{line} >{disk}: {ran:?}");
            }
        }
        let closed = format!("'{PROGRAM}' campaign list | true; exit ${{PIPESTATUS[0]}}");
        let ran = program::run("/bin/bash", &[String::from("-c"), closed], &space.environment()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn a_note_that_cannot_be_written_is_an_error() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 1 --coupons 10").await;
        for (disk, code) in [("/dev/full", 1), ("/dev/null", 0)] {
            let script = format!("exec '{PROGRAM}' setup --id 1 --coupons 20 2>{disk}");
            let ran = program::run("/bin/sh", &[String::from("-c"), script], &space.environment()).await;
            assert_eq!(ran.code, Some(code), "2>{disk}: {ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_with_the_cause() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let waiting = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    run(async |space| {
        let right = &space.servers().mysql.mysql_url;
        let stranger = right.with_user("nobody-of-this-name", "wrong");
        for (url, words) in [
            (format!("mysql://me:wrong@{silent}/coupon"), &["Connection refused", "; start it with"][..]),
            (format!("mysql://me:wrong@{}/coupon", waiting.local_addr().unwrap()), &["took longer than 1s"]),
            (String::from("mysql://me:wrong@nowhere.invalid/coupon"), &["lookup"]),
            (stranger.reveal().to_owned(), &["MySQL: "]),
        ] {
            for line in ["campaign list", "migrate"] {
                let ran = ctl(&space, &format!("--mysql-deadline=1s --mysql-url={url} {line}")).await;

                fails(&ran, 1, words);
                assert_eq!(ran.stderr.contains("services up"), url.contains(&silent.to_string()), "{ran:?}");
                assert!(!ran.stderr.contains("wrong@"), "{ran:?}");
            }
        }
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
            ("campaign create --id 7 --name Noon --coupons 9", "10 coupons"),
            ("campaign add-coupons --id 8 --key more --coupons 1", "no campaign 8"),
            ("campaign add-coupons --id 8 --total 1", "no campaign 8"),
            ("campaign update --id 8 --name Night", "no campaign 8"),
            ("campaign pause --id 8", "no campaign 8"),
            ("campaign close --id 8", "no campaign 8"),
            ("campaign show --id 8", "no campaign 8"),
            ("campaign history --id 8", "no campaign 8"),
            ("audit --campaign 8", "no campaign 8"),
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
            (
                "campaign create --coupons 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            (
                "setup --id 1 --coupons 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            (
                "campaign update --id 1 --opens-at 2030-01-02T00:00:00Z --closes-at 2030-01-01T00:00:00Z",
                &["--closes-at"],
            ),
            ("campaign create --coupons 1 --opens-at 0000-01-01T00:00:00Z", &["--opens-at", "1000 to 9999"]),
            ("campaign create --coupons 1 --closes-at 9999-12-31T23:59:59-23:59", &["--closes-at"]),
            ("campaign create --id 9007199254740992 --coupons 1", &["--id", "9007199254740991"]),
            ("campaign add-coupons --id 1 --key more --coupons 0", &["--coupons"]),
            ("campaign add-coupons --id 1 --coupons 5", &["--key"]),
            ("campaign add-coupons --id 1 --key more", &["--coupons"]),
            ("campaign add-coupons --id 1", &["--key", "--total"]),
            ("campaign add-coupons --id 1 --key more --coupons 5 --total 5", &["--total"]),
            ("campaign add-coupons --id 1 --coupons 5 --total 5", &["--total"]),
            ("campaign update --id 1", &["--name", "--no-closes-at"]),
            ("campaign update --id 1 --opens-at 2030-01-02T00:00:00Z --no-opens-at", &["--no-opens-at"]),
            ("campaign show --id", &["--id"]),
            ("campaign", &["create", "history"]),
            ("", &["campaign", "audit"]),
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
        "campaign update --help",
        "campaign pause --help",
        "campaign resume --help",
        "campaign close --help",
        "campaign history --help",
        "campaign show --help",
        "campaign list --help",
        "audit --help",
        "doctor --help",
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
        assert_eq!(report["verdict"], "clean");
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
    assert_eq!((&report["clean"], &report["verdict"]), (&json!(false), &json!("broken")));
    let table = ctl(space, "audit").await;
    assert!(table.stdout.contains("BROKEN") && table.stdout.contains(invariants[0]), "{table:?}");
}

#[tokio::test]
async fn an_audit_that_could_not_check_everything_is_not_clean() {
    run(async |space| {
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
        assert_eq!(mysql_only["verdict"], "clean", "nothing else was to be checked");

        space.sql(format!("UPDATE campaign SET coupons = 2 WHERE id = {campaign}")).await;
        let broken = ctl(&space, &format!("{no_redis} audit")).await;
        assert_eq!(broken.code, Some(1), "what is broken is broken, whatever else was not checked: {broken:?}");
        space.sql(format!("UPDATE campaign SET coupons = 1 WHERE id = {campaign}")).await;
    })
    .await;
}

#[test]
fn every_option_is_taken_or_named() {
    options::every_option_is_taken_or_named::<Couponctl>(Couponctl::check);
}

#[tokio::test]
async fn odd_variables_are_named() {
    options::odd_variables_are_named::<Couponctl>(PROGRAM, &["campaign", "list"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_its_secrets() {
    let lines = ["migrate", "campaign list", "audit", "doctor", "reset", "--help", "campaign create"];
    run(async |space| secrets::a_command_keeps_its_secrets::<Couponctl>(PROGRAM, &space, &lines).await).await;
}

#[tokio::test]
async fn reset_asks_to_be_meant() {
    run(async |space| {
        let campaign = space.campaign(10).await;
        space.queues.declare().await;
        space.queues.publish(lapin::BasicProperties::default(), b"waiting").await;
        space.redis().rpush::<_, _, ()>(keys::free_coupons(space.installation(), campaign), "id").await.unwrap();

        fails(&ctl(&space, "reset").await, 2, &["--yes"]);
        assert_eq!(ctl_json(&space, "campaign list").await.as_array().map(Vec::len), Some(1));
        assert_eq!((space.ids_in_redis(campaign).await, space.queues.waiting().await), (1, 1));

        let done = ctl(&space, "reset --yes").await;

        assert_eq!(done.code, Some(0), "{done:?}");
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

#[tokio::test]
async fn keys_and_tokens_are_made_to_try_out() {
    run(async |space| {
        use std::os::unix::fs::PermissionsExt;

        let folder = std::env::temp_dir().join(space.name());
        let (folder, private) = (folder.to_str().unwrap(), folder.join("private.pem"));
        let keys = format!("token keys --out {folder}");
        let issue = format!("--key {} --account 42 --issuer me --audience coupons", private.to_str().unwrap());

        let made = ctl(&space, &keys).await;
        let again = ctl(&space, &keys).await;
        let token = ctl(&space, &format!("token issue {issue}")).await;
        let as_json = ctl_json(&space, &format!("token issue {issue} --valid 1min")).await;

        assert_eq!(made.code, Some(0), "{made:?}");
        fails(&again, 1, &["private.pem"]);
        assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600, "for nobody else");
        let public = std::fs::read_to_string(format!("{folder}/jwks.json")).unwrap();
        assert!(!public.contains("\"d\""), "{public}");
        assert_eq!((token.code, token.stdout.trim().split('.').count()), (Some(0), 3), "{token:?}");
        assert_eq!(as_json["token"].as_str().unwrap().split('.').count(), 3);
        fails(&ctl(&space, &format!("token issue {}", issue.replace("private.pem", "jwks.json"))).await, 1, &["--key"]);
        fails(&ctl(&space, "token issue --key none --account 0 --issuer me --audience a").await, 2, &["--account"]);
        std::fs::remove_dir_all(folder).unwrap();
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

/// As in a container: to process 1 the kernel delivers no signal that it has no handler for.
#[tokio::test]
async fn a_command_that_is_process_1_ends_when_it_is_asked_to() {
    run(async |space| {
        for (id, signal, code) in [(91, "INT", 130), (92, "TERM", 143)] {
            let locked = space.lock_tables().await;
            let line = ["campaign".to_owned(), "show".to_owned(), "--id".to_owned(), id.to_string()];
            let alone = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", PROGRAM].map(String::from);
            let arguments = [&alone[..], &line[..]].concat();
            let environment = space.environment();
            let ending = async {
                eventually("it waits for MySQL", async || !space.running("SELECT id, name").await.is_empty()).await;
                let pid = pid_of(&line);
                let kill = format!("kill -{signal} {pid}");
                let killed = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
                assert!(killed.success(), "{kill}");
            };

            let (ran, ()) = tokio::join!(program::run("unshare", &arguments, &environment), ending);

            locked.disconnect().await.unwrap();
            fails(&ran, code, &[&format!("stopped by SIG{signal}")]);
        }
    })
    .await;
}

/// The process of this program with these arguments, as this machine numbers it.
fn pid_of(arguments: &[String]) -> u32 {
    let is_it = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next() == Some(PROGRAM) && words.take(arguments.len()).eq(arguments.iter().map(String::as_str))
    };
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_it).max().expect("a process")
}
