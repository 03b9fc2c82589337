//! The program coupon-bench as its user meets it. Goal: whatever it is asked, it does or refuses in a line, before any
//! load. Method: its own list of options, and the real program.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

use coupon_bench::Bench;
use coupon_testkit::{options, program, run, secrets};

const PROGRAM: &str = env!("CARGO_BIN_EXE_coupon-bench");

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
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
        ("load --campaign 1 --url https://127.0.0.1:8080", "--url"),
        ("load --campaign 1 --url http://127.0.0.1:8080/v1", "--url"),
        ("load --campaign 1 --repeats 18446744073709551615", "--repeats"),
        ("load --campaign 1 --repeats 10000000000", "--repeats"),
        ("load --campaign 1 --first-account 18446744073709551600 --accounts 100", "--first-account"),
        ("load --campaign 1 --first-account 9223372036854775807 --accounts 2", "--first-account"),
        ("load --campaign 1 --accounts", "--accounts"),
        ("compare --coupons 2 --campaigns 3", "--campaigns"),
        ("traces --jaeger ftp://127.0.0.1", "--jaeger"),
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
async fn a_report_of_no_jaeger_is_an_error() {
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
        assert!(ran.stderr.contains("no Jaeger"), "{ran:?}");
    })
    .await;
}

#[tokio::test]
async fn a_report_is_opened_before_the_load_and_the_table_is_shown_without_it() {
    run(async |space| {
        let settings: skiplock_api::Settings = space.settings(&[]);
        let api = space.start(|stop| skiplock_api::start(settings, stop)).await;
        let url = format!("http://{}", api.address());
        let compare = format!("compare --queue-url {url} --skiplock-url {url} --coupons 2 --accounts 6 --clients 2");

        for (report, tables) in [("/dev/null/report.json", false), ("/proc/report.json", false), ("/dev/full", true)] {
            let line = format!("{compare} --report {report}");
            let ran = program::run(PROGRAM, &arguments(&line), &space.environment()).await;

            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.lines().last().is_some_and(|line| line.starts_with("error: cannot ")), "{ran:?}");
            assert_eq!(ran.stdout.contains("issued"), tables, "{ran:?}");
            assert_eq!(ran.stderr.contains("campaign"), tables, "{ran:?}");
        }
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_comparison_makes_as_many_campaigns_as_its_crowd_claims_from() {
    run(async |space| {
        let settings: skiplock_api::Settings = space.settings(&[]);
        let api = space.start(|stop| skiplock_api::start(settings, stop)).await;
        let url = format!("http://{}", api.address());

        let line = format!(
            "--json compare --queue-url {url} --skiplock-url {url} --coupons 10 --campaigns 3 --accounts 60 --clients 4"
        );
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
