//! Starts the services as processes of their own, for tests of what only a whole process has: its environment, its
//! metrics, and what it logs as it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use clap::CommandFactory;
use coupon_testkit::program::{self, Running};
use coupon_testkit::{Api, Collector, TestSpace};

/// The folder where cargo puts the programs. Cargo is asked to build them first, because a test must not run outdated
/// ones. It builds them along with all tests, as it built this one, so little is left to do; on their own they would
/// have other features, and everything would be compiled again.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Command::new(env!("CARGO")).args(["test", "--workspace", "--no-run", "--locked", "--quiet"]).status();
    assert!(built.unwrap().success(), "the programs were not built");
    // This test is in target/debug/deps.
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
});

pub fn path(program: &str) -> String {
    PROGRAMS.join(program).to_str().unwrap().to_owned()
}

/// Runs an operator's command, which must succeed.
pub async fn couponctl(space: &TestSpace, line: &str) {
    succeed(space, "couponctl", line, &[]).await;
}

/// Runs the load tool, which must succeed, and returns its JSON.
pub async fn bench(space: &TestSpace, line: &str, own: &[(&'static str, &str)]) -> serde_json::Value {
    serde_json::from_str(&succeed(space, "coupon-bench", line, own).await).unwrap()
}

async fn succeed(space: &TestSpace, program: &str, line: &str, own: &[(&'static str, &str)]) -> String {
    let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let mut environment = space.environment();
    environment.extend(own.iter().map(|(name, value)| (*name, String::from(*value))));
    let ran = program::run(&path(program), &arguments, &environment).await;
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    ran.stdout
}

/// Starts a service in this space, with these variables in its environment.
pub async fn start<T: CommandFactory>(space: &TestSpace, program: &str, environment: &[(&str, &str)]) -> Running {
    start_with::<T>(space, program, &[], environment).await
}

/// Like [`start`], but with additional settings.
pub async fn start_with<T: CommandFactory>(
    space: &TestSpace,
    program: &str,
    own: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> Running {
    let environment: Vec<(&str, String)> =
        environment.iter().map(|(name, value)| (*name, String::from(*value))).collect();
    Running::start(&path(program), &space.arguments::<T>(own), &environment).await
}

/// Starts a service that reads all its settings from the environment: those of this space, and these.
pub async fn start_by_environment(space: &TestSpace, program: &str, own: &[(&'static str, &str)]) -> Running {
    let mut environment: BTreeMap<&str, String> = space.environment().into_iter().collect();
    environment.insert("LISTEN", String::from("127.0.0.1:0"));
    environment.insert("ADMIN_LISTEN", String::from("127.0.0.1:0"));
    environment.extend(own.iter().map(|(name, value)| (*name, String::from(*value))));
    Running::start(&path(program), &[], &environment.into_iter().collect::<Vec<_>>()).await
}

/// The variables of a service that sends its spans to this collector.
pub fn traced(collector: &Collector) -> Vec<(&'static str, &str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("LOG_FORMAT", "json"),
        ("LOG", "info"),
    ]
}

/// A producer-api and its client.
pub async fn producer(space: &TestSpace, environment: &[(&str, &str)]) -> (Running, Api) {
    let running = start::<producer_api::Settings>(space, "producer-api", environment).await;
    let api = space.api(running.address());
    (running, api)
}

/// A producer-api with additional settings, and its client.
pub async fn producer_with(space: &TestSpace, own: &[(&str, &str)]) -> (Running, Api) {
    let running = start_with::<producer_api::Settings>(space, "producer-api", own, &[]).await;
    let api = space.api(running.address());
    (running, api)
}

/// A queue-consumer.
pub async fn consumer(space: &TestSpace, environment: &[(&str, &str)]) -> Running {
    start::<queue_consumer::Settings>(space, "queue-consumer", environment).await
}

/// A queue-consumer with additional settings.
pub async fn consumer_with(space: &TestSpace, own: &[(&str, &str)]) -> Running {
    start_with::<queue_consumer::Settings>(space, "queue-consumer", own, &[]).await
}

/// A skiplock-api with additional settings.
pub async fn skiplock_with(space: &TestSpace, own: &[(&str, &str)]) -> Running {
    start_with::<skiplock_api::Settings>(space, "skiplock-api", own, &[]).await
}

/// A skiplock-api and its client.
pub async fn skiplock(space: &TestSpace, environment: &[(&str, &str)]) -> (Running, Api) {
    let running = start::<skiplock_api::Settings>(space, "skiplock-api", environment).await;
    let api = space.api(running.address());
    (running, api)
}
