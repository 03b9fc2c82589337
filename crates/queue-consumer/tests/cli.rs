//! The program queue-consumer as its operator meets it: help, wrong settings, a start that cannot be, a stop.

use coupon_testkit::{options, program, run, secrets};
use queue_consumer::Settings;

const PROGRAM: &str = env!("CARGO_BIN_EXE_queue-consumer");

const WRONG: &[(&str, &str)] = &[
    ("ADMIN_LISTEN", "8080"),
    ("COUPON_AMQP_MANAGEMENT_URL", "https://rabbit:15672"),
    ("BATCH_MAX", "0"),
    ("PREFETCH", "many"),
    ("COUPON_REDIS_URL", "localhost"),
    ("AMQP_DEADLINE", "0s"),
    ("LOG", "info,="),
    ("OTEL_SDK_DISABLED", "yes"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer x"),
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
async fn a_database_that_redis_lacks_is_named() {
    run(async |space| program::a_database_that_redis_lacks_is_named::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    run(async |space| program::an_address_that_is_taken_is_named::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn a_queue_made_otherwise_is_named() {
    run(async |space| program::a_queue_made_otherwise_is_named::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn signals_stop_it() {
    run(async |space| program::signals_stop_it::<Settings>(PROGRAM, &space).await).await;
}

#[tokio::test]
async fn its_health_is_asked_at_its_own_listener() {
    run(async |space| program::its_health_is_asked_at_its_own_listener::<Settings>(PROGRAM, &space).await).await;
}
