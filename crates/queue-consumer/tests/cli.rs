//! Runs queue-consumer the way its operator does: help, wrong settings, a start that fails, a stop.

use coupon_testkit::service_tests;
use queue_consumer::Settings;

const WRONG: &[(&str, &str)] = &[
    ("ADMIN_LISTEN", "8080"),
    ("COUPON_AMQP_MANAGEMENT_URL", "ftp://rabbit:15672"),
    ("BATCH_MAX", "0"),
    ("PREFETCH", "many"),
    ("COUPON_REDIS_URL", "localhost"),
    ("AMQP_DEADLINE", "0s"),
    ("LOG", "info,="),
    ("OTEL_SDK_DISABLED", "yes"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer x"),
];

service_tests!(
    Settings,
    env!("CARGO_BIN_EXE_queue-consumer"),
    WRONG,
    [a_database_that_redis_lacks_is_named, a_queue_made_otherwise_is_named]
);
