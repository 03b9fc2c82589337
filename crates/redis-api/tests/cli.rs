//! Runs redis-api the way its operator does: help, wrong settings, a start that fails, a stop.

use coupon_testkit::service_tests;
use redis_api::Settings;

const WRONG: &[(&str, &str)] = &[
    ("LISTEN", "127.0.0.1"),
    ("BATCHES", "0"),
    ("BATCH_MAX", "2001"),
    ("REFILL_MAX", "-1"),
    ("COUPON_MYSQL_URL", "mysql://localhost"),
    ("COUPON_REDIS_URL", "localhost"),
    ("COUPON_NAMESPACE", "*"),
    ("AUTH", "basic"),
    ("LOG", "inof"),
];

service_tests!(
    Settings,
    env!("CARGO_BIN_EXE_redis-api"),
    WRONG,
    [
        a_key_that_is_too_short_is_named,
        a_silent_issuer_is_not_waited_for,
        connections_fit_the_open_files,
        who_may_claim_must_be_said_where_others_reach_it
    ]
);
