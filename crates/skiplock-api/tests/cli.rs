//! The program skiplock-api as its operator meets it: help, wrong settings, a start that cannot be, a stop.

use coupon_testkit::{options, program, run, secrets};
use skiplock_api::Settings;

const PROGRAM: &str = env!("CARGO_BIN_EXE_skiplock-api");

const WRONG: &[(&str, &str)] = &[
    ("LISTEN", "127.0.0.1"),
    ("ADMIN_LISTEN", "localhost"),
    ("STRATEGY", "luck"),
    ("GROUP_MAX", "0"),
    ("COUPON_MYSQL_URL", "mysql://localhost"),
    ("MYSQL_DEADLINE", "5"),
    ("AUTH", "basic"),
    ("AUTH_ALGORITHMS", "HS256"),
    ("AUTH_JWKS_URL", "http://issuer.example/jwks.json"),
    ("TRUSTED_PROXIES", "proxy"),
    ("DRAIN_DELAY", "-1s"),
    ("OTEL_TRACES_SAMPLER_ARG", "1%"),
    ("OTEL_TRACES_EXPORTER", "console"),
    ("LOG", "inof"),
];

#[tokio::test]
async fn help_is_complete() {
    program::help_is_complete::<Settings>(PROGRAM).await;
}

#[tokio::test]
async fn wrong_settings_are_all_named_at_once() {
    program::wrong_settings_are_all_named(PROGRAM, WRONG).await;
}

#[test]
fn every_option_is_taken_or_named() {
    options::every_option_is_taken_or_named::<Settings>(|_| Ok(()));
}

#[tokio::test]
async fn odd_variables_are_named() {
    options::odd_variables_are_named::<Settings>(PROGRAM, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_its_secrets() {
    run(async |space| secrets::a_service_keeps_its_secrets::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn a_missing_schema_is_named() {
    run(async |space| program::a_missing_schema_is_named::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    run(async |space| program::an_address_that_is_taken_is_named::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn who_may_claim_must_be_said_where_others_reach_it() {
    run(async |space| program::who_may_claim_must_be_said::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn signals_stop_it() {
    run(async |space| program::signals_stop_it::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn its_health_is_asked_at_its_own_listener() {
    run(async |space| program::its_health_is_asked_at_its_own_listener::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn connections_fit_the_open_files() {
    run(async |space| program::connections_fit_the_open_files::<Settings>(PROGRAM, &space).await).await;
}
