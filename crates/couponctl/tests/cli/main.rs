//! The operator's command, used the way an operator does. Goal: every command can be run again, does what it says or
//! nothing, and has an exit code and JSON that scripts can rely on. Method: the real program on the test's own
//! database.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

mod audit;
mod campaigns;
mod dead;
mod ending;
mod explain;
mod forget;
mod installation;
mod output;
mod stock;
mod tokens;
mod usage;

use coupon_testkit::TestSpace;
use coupon_testkit::program::{self, Ran};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_couponctl");

async fn ctl(space: &TestSpace, line: &str) -> Ran {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    program::run(PROGRAM, &arguments, &space.environment()).await
}

/// Runs a command that must succeed, and returns its JSON.
async fn ctl_json(space: &TestSpace, line: &str) -> Value {
    let ran = ctl(space, &format!("--json {line}")).await;
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{line} printed no JSON: {ran:?}"))
}

/// Checks that a command fails with one line on standard error that contains these words.
fn fails(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(matches!(&lines[..], [line] if line.starts_with("error: ")), "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
}
