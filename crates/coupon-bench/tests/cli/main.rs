//! Runs coupon-bench the way its user does. Goal: it does what it is asked, or refuses in one line, before any load.
//! Method: its own list of options, and the real program.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

mod experiments;

use std::time::Duration;

use coupon_bench::Bench;
use coupon_core::{CampaignId, mysql};
use coupon_testkit::{TestSpace, options, program, run, secrets};
use mysql_async::prelude::Queryable;

const PROGRAM: &str = env!("CARGO_BIN_EXE_coupon-bench");

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Starts both ways and returns the addresses of their APIs.
async fn both_apis(space: &TestSpace) -> [String; 2] {
    let settings: queue_consumer::Settings = space.settings(&[]);
    space.start(|stop| queue_consumer::start(settings, stop)).await;
    let settings: producer_api::Settings = space.settings(&[]);
    let producer = space.start(|stop| producer_api::start(settings, stop)).await;
    let settings: skiplock_api::Settings = space.settings(&[]);
    let skiplock = space.start(|stop| skiplock_api::start(settings, stop)).await;
    [producer, skiplock].map(|api| format!("http://{}", api.address()))
}

#[test]
fn every_option_is_taken_or_named() {
    options::every_option_is_taken_or_named::<Bench>(Bench::check);
}

#[tokio::test]
async fn odd_variables_are_named() {
    options::odd_variables_are_named::<Bench>(PROGRAM, &["ceilings"]).await;
}

#[tokio::test]
async fn wrong_usage_is_reported_with_exit_code_2() {
    for (line, word) in [
        ("load", "--campaign"),
        ("load --campaign 0", "--campaign"),
        ("load --campaign 9007199254740992", "9007199254740991"),
        ("load --campaign 1 --url nonsense", "'nonsense': must be like http://127.0.0.1:8080"),
        ("load --campaign 1 --url ftp://127.0.0.1:8080", "or https://api.example"),
        ("load --campaign 1 --url http://127.0.0.1:8080/v1", "--url"),
        ("load --campaign 1 --repeats 18446744073709551615", "--repeats"),
        ("load --campaign 1 --repeats 10000000000", "--repeats"),
        ("load --campaign 1 --first-account 18446744073709551600 --accounts 100", "--first-account"),
        ("load --campaign 1 --first-account 9223372036854775807 --accounts 2", "--first-account"),
        ("load --campaign 1 --accounts", "--accounts"),
        ("compare --coupons 2 --campaigns 3", "--campaigns"),
        ("traces --jaeger ftp://127.0.0.1", "--jaeger"),
        ("matrix --claims 10", "--claims"),
        ("matrix --quick --turns 3", "--turns"),
        (
            "matrix --only skiplock",
            "must be one of: queue; coalesced; queue, no broker; queue, one by one; select-update",
        ),
        ("order --replicas 1,0", "--replicas"),
        ("order --trouble frozen", "--trouble"),
        ("sweep --over LISTEN=1", "--over"),
        ("sweep --over PREFETCH=0", "must be like PREFETCH=10,50,200"),
        ("sweep --over BATCH_MAX=100,5000", "BATCH_MAX is at most 2000"),
        ("sweep --way skiplock --over PREFETCH=10", "PREFETCH=… is no setting of the skiplock way"),
        ("report", "<FILE>"),
        ("report a.json --page ./a.json", "--page = './a.json' is another file of this command"),
        ("report a.json --page b --markdown b", "--markdown = 'b'"),
        ("", "subcommand"),
    ] {
        let ran = program::run(PROGRAM, &arguments(line), &[]).await;

        assert_eq!(ran.code, Some(2), "{line}: {ran:?}");
        assert!(matches!(ran.stderr.lines().collect::<Vec<_>>()[..], [line] if line.contains(word)), "{line}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_its_secrets() {
    let lines = ["load --campaign 1 --url http://127.0.0.1:9", "--help"];
    run(async |space| secrets::a_command_keeps_its_secrets::<Bench>(PROGRAM, &space, &lines).await).await;
}

#[tokio::test]
async fn traces_from_a_server_that_is_not_jaeger_are_an_error() {
    run(async |space| {
        let settings: skiplock_api::Settings = space.settings(&[]);
        let no_jaeger = space.start(|stop| skiplock_api::start(settings, stop)).await;
        let report = std::env::temp_dir().join(format!("{}.json", space.name()));
        std::fs::write(&report, r#"{"ways":[{"way":"queue","trace_ids":["0af7651916cd43dd8448eb211c80319c"]}]}"#)
            .unwrap();

        let line = format!("traces --report {} --jaeger http://{}", report.display(), no_jaeger.address());
        let ran = program::run(PROGRAM, &arguments(&line), &[]).await;

        std::fs::remove_file(&report).unwrap();
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains("not Jaeger"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn too_few_open_files_are_named() {
    run(async |space| {
        program::too_few_open_files_are_named::<Bench>(PROGRAM, &space).await;

        let settings: skiplock_api::Settings = space.settings(&[]);
        let api = space.start(|stop| skiplock_api::start(settings, stop)).await;
        let campaign = space.campaign(4).await;
        let load = format!("exec '{PROGRAM}' load --campaign {campaign} --url http://{}", api.address());
        let shell = [String::from("-c"), format!("ulimit -n 200; {load}")];
        let ran = program::run("/bin/sh", &shell, &space.environment()).await;

        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with("error: --clients and --followers: 200 open files are too few, 576"), "{ran:?}");
        assert_eq!(space.issued(campaign).await, 0, "nothing was claimed");
    })
    .await;
}

#[tokio::test]
async fn an_address_that_leads_to_no_api_is_named_with_its_option_before_the_load() {
    run(async |space| {
        let settings: skiplock_api::Settings = space.settings(&[]);
        let api = space.start(|stop| skiplock_api::start(settings, stop)).await;
        let api = format!("http://{}", api.address());
        let campaign = space.campaign(4).await;
        let (mysql, redis) = (&space.servers().mysql.mysql_url, &space.servers().redis.redis_url);
        let address = |(host, port)| format!("{host}:{port}");
        let of_servers = [address(mysql.host_and_port(3306)), address(redis.host_and_port(6379))];
        for elsewhere in of_servers.into_iter().chain([String::from("127.0.0.1:9")]) {
            let compare = "compare --coupons 2 --accounts 2 --clients 1";
            for (option, line) in [
                ("--url", format!("load --campaign {campaign} --url http://{elsewhere}")),
                ("--queue-url", format!("{compare} --queue-url http://{elsewhere} --skiplock-url {api}")),
                ("--skiplock-url", format!("{compare} --skiplock-url http://{elsewhere} --queue-url {api}")),
            ] {
                let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

                let start = format!("error: {option} http://{elsewhere}/: no HTTP answer from {elsewhere}: ");
                assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
                assert!(
                    matches!(ran.stderr.lines().collect::<Vec<_>>()[..], [line] if line.starts_with(&start)),
                    "{ran:?}"
                );
            }
        }

        let missing = format!("load --campaign {campaign} --campaigns 99 --accounts 99 --url {api}");
        let ran = program::run(PROGRAM, &arguments(&missing), &space.environment()).await;

        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with("error: there is no campaign "), "{ran:?}");
        assert_eq!(space.issued(campaign).await, 0, "nothing was claimed");
    })
    .await;
}

#[tokio::test]
async fn an_api_with_another_database_is_named_before_the_load() {
    run(async |theirs| {
        run(async |ours| {
            let settings: skiplock_api::Settings = theirs.settings(&[]);
            let api = theirs.start(|stop| skiplock_api::start(settings, stop)).await;
            let url = format!("http://{}", api.address());
            let same = theirs.campaign(2).await;
            for space in [&theirs, &ours] {
                space.sql(format!("REPLACE INTO campaign (id, name) VALUES (7, '{}')", space.name())).await;
            }
            assert_eq!(ours.campaign(2).await, same);
            let only_ours = ours.campaign(2).await;

            for (campaign, words) in [
                (CampaignId(7), "campaign 7 is another one than in mysql://"),
                (only_ours, "there is no campaign 2, but in mysql://"),
            ] {
                let line = format!("load --campaign {campaign} --url {url}");
                let ran = program::run(PROGRAM, &arguments(&line), &ours.environment()).await;

                assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (Some(1), "", 1), "{ran:?}");
                assert!(ran.stderr.starts_with(&format!("error: --url {url}/: {words}")), "{ran:?}");
                assert!(ran.stderr.contains("; --mysql-url (COUPON_MYSQL_URL) may name another database"), "{ran:?}");
            }
            assert_eq!(theirs.issued(same).await, 0, "nothing was claimed");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_comparison_without_a_free_campaign_number_names_one_of_its_own_options() {
    run(async |space| {
        space.sql("INSERT INTO campaign (id, name) VALUES (9007199254740990, 'last but one')").await;

        let line = "compare --coupons 2 --campaigns 2 --accounts 2 --clients 1";
        let ran = program::run(PROGRAM, &arguments(line), &space.environment()).await;

        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:?}");
        assert!(ran.stderr.contains("--mysql-url (COUPON_MYSQL_URL)") && !ran.stderr.contains("--id"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn a_report_is_opened_before_the_load_and_the_table_is_shown_without_it() {
    run(async |space| {
        let [queue, skiplock] = both_apis(&space).await;
        let compare =
            format!("compare --queue-url {queue} --skiplock-url {skiplock} --coupons 2 --accounts 6 --clients 2");

        for (report, tables) in [("/dev/null/report.json", false), ("/proc/report.json", false), ("/dev/full", true)] {
            let line = format!("{compare} --report {report}");
            let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.lines().last().is_some_and(|line| line.starts_with("error: cannot ")), "{ran:?}");
            assert_eq!(ran.stdout.contains("issued"), tables, "{ran:?}");
            assert_eq!(ran.stderr.contains("campaign"), tables, "{ran:?}");
        }
        let report = std::env::temp_dir().join(space.name());
        let nobody = compare.replacen(&queue, "http://127.0.0.1:1", 1);
        let line = format!("{nobody} --report {}", report.display());
        let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;
        assert_eq!((ran.code, report.exists()), (Some(1), false), "nothing was measured: {ran:?}");
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn an_api_of_the_other_way_is_named_before_any_load() {
    run(async |space| {
        let [queue, skiplock] = both_apis(&space).await;

        for (queue, skiplock, words) in [
            (
                &skiplock,
                &skiplock,
                format!("--queue-url {skiplock}/ is not a producer-api: it answered a claim with 201"),
            ),
            (&queue, &queue, format!("--skiplock-url {queue}/ is not a skiplock-api: it answered a claim with 202")),
        ] {
            let line = format!("compare --queue-url {queue} --skiplock-url {skiplock} --coupons 2 --accounts 2");
            let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

            assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (Some(1), "", 1), "{ran:?}");
            assert!(ran.stderr.starts_with(&format!("error: {words}")), "{ran:?}");
        }
        let mut conn = space.mysql().connection().await.unwrap();
        let left: Option<u64> = conn.query_first("SELECT COUNT(*) FROM campaign WHERE coupons > 1").await.unwrap();
        assert_eq!(left, Some(0), "no campaign of the comparison itself was made");
    })
    .await;
}

#[tokio::test]
async fn a_load_on_a_campaign_that_has_issued_coupons_says_what_it_cannot_show() {
    run(async |space| {
        let [_, skiplock] = both_apis(&space).await;
        let campaign = space.campaign(2).await;
        let line = format!("load --campaign {campaign} --url {skiplock} --accounts 4 --clients 1");

        for is_again in [false, true] {
            let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!(ran.stderr.contains("coupons have been issued there before"), is_again, "{ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_comparison_creates_as_many_campaigns_as_its_clients_claim_from() {
    run(async |space| {
        let [queue, skiplock] = both_apis(&space).await;
        let crowd = "--coupons 10 --campaigns 3 --accounts 60 --clients 4";

        let line = format!("--json compare --queue-url {queue} --skiplock-url {skiplock} {crowd}");
        let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        for way in report["ways"].as_array().unwrap() {
            let counts = ["coupons", "issued", "sold_out", "errors"].map(|name| way[name].as_u64().unwrap());
            assert_eq!(counts, [10, 10, 50, 0], "{way}");
        }
        space.audit().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsafe_shows_what_goes_wrong_without_each_guard() {
    run(async |space| {
        let ran = program::run(PROGRAM, &arguments("--json unsafe --claims 400"), &space.environment()).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let shown = shown.as_array().unwrap();
        assert_eq!(shown.len(), 4, "{ran:?}");
        for variant in shown {
            assert_eq!((&variant["claims"], &variant["wrong_with"]), (&400.into(), &0.into()), "{variant}");
            assert_ne!(variant["wrong_without"], 0, "{variant}");
        }
        let mut other = space.mysql().connection_of_its_own().await.unwrap();
        assert!(mysql::lock(&mut other, "unguarded", space.name(), Duration::ZERO).await.unwrap());
        let second = program::run(PROGRAM, &arguments("unsafe --claims 400"), &space.environment()).await;
        assert!(second.code == Some(1) && second.stderr.contains("another `coupon-bench unsafe`"), "{second:?}");
    })
    .await;
}
