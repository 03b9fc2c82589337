//! Runs skiplock-api the way its operator does: help, wrong settings, a start that fails, a stop.

use coupon_testkit::program::Running;
use coupon_testkit::{run, service_tests};
use skiplock_api::Settings;

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

service_tests!(
    Settings,
    env!("CARGO_BIN_EXE_skiplock-api"),
    WRONG,
    [
        a_key_that_is_too_short_is_named,
        a_silent_issuer_is_not_waited_for,
        connections_fit_the_open_files,
        who_may_claim_must_be_said_where_others_reach_it
    ]
);

#[tokio::test]
async fn settings_that_the_strategy_does_not_read_are_named() {
    run(async |space| {
        let own = [("strategy", "select-update"), ("groups", "4")];
        let program = env!("CARGO_BIN_EXE_skiplock-api");

        let service = Running::start(program, &space.arguments::<Settings>(&own), &[]).await;

        service.says_once(&["WARN", "CLAIM_GROUPS"]).await;
    })
    .await;
}
