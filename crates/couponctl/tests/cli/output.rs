//! The program's output. Goal: nothing that it prints moves a terminal's cursor, and a result that could not be written
//! is an error. Method: names with control characters, full disks and closed pipes.

use coupon_testkit::program;
use coupon_testkit::run;
use serde_json::Value;

use crate::{PROGRAM, ctl, ctl_json, fails};

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
        space.queues.declare().await;
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
