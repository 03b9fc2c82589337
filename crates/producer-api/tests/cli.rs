//! Runs producer-api the way its operator does: help, wrong settings, a start that fails, a stop.

use coupon_testkit::service_tests;
use producer_api::Settings;

const WRONG: &[(&str, &str)] = &[
    ("COUPON_AMQP_MANAGEMENT_URL", "ftp://rabbit:15672"),
    ("LISTEN", "nowhere"),
    ("ADMIN_LISTEN", "127.0.0.1:99999"),
    ("HTTP_WORKERS", "0"),
    ("MYSQL_CONNECTIONS", "many"),
    ("COUPON_AMQP_URL", "http://rabbit"),
    ("QUEUE_MAX", "-1"),
    ("COUPON_NAMESPACE", "a b"),
    ("LOG_FORMAT", "xml"),
    ("AUTH", "basic"),
    ("AUTH_ALGORITHMS", "HS256"),
    ("AUTH_JWKS_URL", "http://issuer.example/jwks.json"),
    ("TRUSTED_PROXIES", "proxy"),
    ("DRAIN_DELAY", "6min"),
    ("DRAIN_DEADLINE", "soon"),
    ("OTEL_TRACES_SAMPLER", "foo"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
    ("LOG", "warning"),
];

service_tests!(
    Settings,
    env!("CARGO_BIN_EXE_producer-api"),
    WRONG,
    [
        a_key_that_is_too_short_is_named,
        a_silent_issuer_is_not_waited_for,
        a_database_that_redis_lacks_is_named,
        a_queue_made_otherwise_is_named,
        connections_fit_the_open_files,
        who_may_claim_must_be_said_where_others_reach_it
    ]
);
