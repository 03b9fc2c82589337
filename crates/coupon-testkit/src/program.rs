//! Runs a program the way its operator does. Goal: it says briefly what is wrong, and how to fix it. Method: the real
//! binary, with only the variables that the test gives it.

use std::collections::BTreeMap;

use clap::CommandFactory;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::issuer::TestIssuer;
pub use crate::running::Running;
use crate::running::command;
use crate::space::TestSpace;
use crate::wait::{DEADLINE, eventually};

/// The result of running a program.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Panics
/// The program does not end.
pub async fn run(program: &str, arguments: &[String], environment: &[(&str, String)]) -> Ran {
    let running = command(program, arguments, environment).output();
    let ended = tokio::time::timeout(DEADLINE, running).await.expect("the program does not end").expect("a program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output that is text");
    Ran { code: ended.status.code(), stdout: text(ended.stdout), stderr: text(ended.stderr) }
}

/// Checks that `--help` shows an example and every setting with its variable.
///
/// # Panics
/// The check fails.
pub async fn help_is_complete<T: CommandFactory>(program: &str) {
    let help = run(program, &[String::from("--help")], &[]).await;

    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("Example:"), "{help:?}");
    for argument in T::command().get_arguments() {
        let Some(flag) = argument.get_long() else { continue };
        let variable = argument.get_env().unwrap_or_else(|| panic!("--{flag} has no variable")).to_string_lossy();
        assert!(help.stdout.contains(&format!("--{flag} <")), "--{flag} is missing: {help:?}");
        assert!(names_variable(&help, &variable), "{variable} is missing: {help:?}");
        assert!(argument.get_help().is_some(), "--{flag} is not explained");
    }
}

/// Whether a help text names a variable. The help leaves out the value of a variable that may hold a password.
#[must_use]
pub fn names_variable(help: &Ran, variable: &str) -> bool {
    [']', '='].iter().any(|end| help.stdout.contains(&format!("[env: {variable}{end}")))
}

/// Checks that all of these wrong settings are named in one run, one line each.
///
/// # Panics
/// The check fails.
pub async fn wrong_settings_are_all_named(program: &str, wrong: &[(&str, &str)]) {
    let environment: Vec<(&str, String)> = wrong.iter().map(|(name, value)| (*name, String::from(*value))).collect();
    let ran = run(program, &[], &environment).await;

    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(ran.stdout, "", "standard output is for results");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), wrong.len(), "a line for each: {ran:?}");
    for (variable, _) in wrong {
        let is_about = |line: &&&str| {
            line.starts_with("error: --") && line.contains(&format!("({variable})"))
                || line.starts_with(&format!("error: {variable} "))
        };
        let named = lines.iter().filter(is_about);
        assert_eq!(named.count(), 1, "{variable} is named once: {ran:?}");
    }
}

/// Checks that a service does not start on a database without the schema, and says what to do.
///
/// # Panics
/// The check fails.
pub async fn a_missing_schema_is_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    let tables = ["coupon", "campaign", "installation", "refinery_schema_history"];
    space.sql(format!("DROP TABLE {}", tables.join(", "))).await;

    let ran = run(program, &space.arguments::<T>(&[]), &[]).await;

    fails_in_one_line(&ran, "couponctl migrate");
}

/// Checks that a service says which setting is wrong when one of its addresses is already in use.
///
/// # Panics
/// The check fails.
pub async fn an_address_that_is_taken_is_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();

    for argument in T::command().get_arguments() {
        let Some(flag @ ("listen" | "admin-listen")) = argument.get_long() else { continue };
        let variable = argument.get_env().expect("a variable").to_string_lossy();

        let ran = run(program, &space.arguments::<T>(&[(flag, &address)]), &[]).await;

        fails_in_one_line(&ran, &format!("--{flag} ({variable})"));
        assert!(ran.stderr.contains(&address), "{ran:?}");
    }
    if T::command().get_arguments().any(|argument| argument.get_long() == Some("listen")) {
        drop(taken);
        let both = [("listen", address.as_str()), ("admin-listen", &address)];
        let ran = run(program, &space.arguments::<T>(&both), &[]).await;
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{ran:?}");
        assert!(ran.stderr.contains(" are the same: each needs an address of its own"), "{ran:?}");
    }
}

/// Checks that a service that others can reach starts only if its settings say who may claim, and warns at each start
/// if anybody may.
///
/// # Panics
/// The check fails.
pub async fn who_may_claim_must_be_said_where_others_reach_it<T: CommandFactory>(program: &str, space: &TestSpace) {
    let reached = ("listen", "0.0.0.0:0");

    let silent = run(program, &space.arguments::<T>(&[reached]), &[]).await;
    for no_keys in ["/no/such/file", "/dev/zero", "/", program] {
        let keys = [reached, ("auth", "jwt"), ("auth-keys", no_keys), ("auth-issuer", "i"), ("auth-audience", "a")];
        let ran = run(program, &space.arguments::<T>(&keys), &[]).await;
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{ran:?}");
        assert!(ran.stderr.starts_with(&format!("error: --auth-keys (AUTH_KEYS) = '{no_keys}': ")), "{ran:?}");
    }
    let mut open = Running::start(program, &space.arguments::<T>(&[reached, ("auth", "none")]), &[]).await;

    assert_eq!((silent.code, silent.stderr.lines().count()), (Some(2), 1), "{silent:?}");
    for word in ["error: --auth (AUTH)", "jwt", "trusted-header", "none"] {
        assert!(silent.stderr.contains(word), "{silent:?}");
    }
    open.says_once(&["may claim for any account"]).await;
    assert_eq!(open.stop("TERM").await, Some(0));
}

/// A key half as long as required.
fn short_key() -> Value {
    json!({ "kty": "RSA", "kid": "short", "e": "AQAB", "n": "____".repeat(42) + "__8" })
}

/// Checks that a service does not start with a key too short to verify any token, and ignores such a key if an issuer
/// publishes it.
///
/// # Panics
/// The check fails.
pub async fn a_key_that_is_too_short_is_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    let words = "\"short\": an RSA key has 2048 to 8192 bits, and it has 1024";
    let file = std::env::temp_dir().join(format!("{}.json", space.name()));
    std::fs::write(&file, json!({ "keys": [short_key()] }).to_string()).expect("a file");
    let keys = file.display().to_string();
    let own = [("auth", "jwt"), ("auth-keys", &keys), ("auth-issuer", "i"), ("auth-audience", "a")];

    let ran = run(program, &space.arguments::<T>(&own), &[]).await;

    std::fs::remove_file(&file).expect("a file");
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{ran:?}");
    assert!(ran.stderr.starts_with("error: --auth-keys (AUTH_KEYS) = ") && ran.stderr.contains(words), "{ran:?}");

    let issuer = TestIssuer::start().await;
    let mut published = issuer.key().jwks();
    published.get_mut("keys").and_then(Value::as_array_mut).expect("keys").push(short_key());
    issuer.publish(Some(published.to_string()));
    let service = Running::start(program, &issuer_arguments::<T>(space, &issuer.settings()), &[]).await;
    service.says_once(&["WARN", words]).await;
}

/// Checks that a service whose issuer never answers listens anyway, and says which address it has no keys from.
///
/// # Panics
/// The check fails.
pub async fn a_silent_issuer_is_not_waited_for<T: CommandFactory>(program: &str, space: &TestSpace) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks.json", silent.local_addr().expect("an address"));
    let mut settings = TestIssuer::start().await.settings();
    settings.insert("auth-jwks-url", url.clone());

    let service = Running::start(program, &issuer_arguments::<T>(space, &settings), &[]).await;

    service.says_once(&["no keys yet from", &url]).await;
    let admin = space.api(service.admin());
    let health = async || admin.get("/readyz").await.json;
    eventually("it gives the reason", async || health().await.pointer("/reasons/issuer").is_some()).await;
}

fn issuer_arguments<T: CommandFactory>(space: &TestSpace, settings: &BTreeMap<&'static str, String>) -> Vec<String> {
    let own: Vec<(&str, &str)> = settings.iter().map(|(flag, value)| (*flag, value.as_str())).collect();
    space.arguments::<T>(&own)
}

/// Checks that a program with too low a limit on open files says so, and how to raise the limit.
///
/// # Panics
/// The check fails.
pub async fn too_few_open_files_are_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    for limit in [8, 10, 12, 16, 24, 63] {
        let ran = run("/bin/sh", &with_open_files::<T>(program, space, limit, &[]), &[]).await;

        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{limit}: {ran:?}");
        let words = format!("{limit} open files are too few, 64 are needed: raise the limit (ulimit -n, LimitNOFILE)");
        assert!(
            matches!(ran.stderr.lines().collect::<Vec<_>>()[..], [line] if line.contains(&words)),
            "{limit}: {ran:?}"
        );
    }
}

/// The arguments of a shell that runs a program with this limit on open files.
fn with_open_files<T: CommandFactory>(
    program: &str,
    space: &TestSpace,
    limit: u32,
    own: &[(&str, &str)],
) -> Vec<String> {
    let shell = [String::from("-c"), format!("ulimit -n {limit}; exec {program} \"$@\""), String::from(program)];
    [&shell[..], &space.arguments::<T>(own)].concat()
}

/// Checks that a service does not start on a queue declared with other properties, and says what to do.
///
/// # Panics
/// The check fails.
pub async fn a_queue_made_otherwise_is_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    space.queues.declare_claims_as(true, FieldTable::default()).await;

    let ran = run(program, &space.arguments::<T>(&[]), &[]).await;

    fails_in_one_line(&ran, "rabbitmqctl delete_queue");
}

/// Checks that a service does not start with a Redis database that the server does not have.
///
/// # Panics
/// The check fails.
pub async fn a_database_that_redis_lacks_is_named<T: CommandFactory>(program: &str, space: &TestSpace) {
    let redis = space.servers().redis.redis_url.with_path("9999");
    let own = [("redis-url", redis.reveal())];

    let ran = run(program, &space.arguments::<T>(&own), &[]).await;

    fails_in_one_line(&ran, "end COUPON_REDIS_URL with the number of a database");
    assert!(ran.stderr.contains("/9999: "), "{ran:?}");
}

fn fails_in_one_line(ran: &Ran, with: &str) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(matches!(&errors[..], [error] if error.contains(with)), "one line with {with}: {ran:?}");
    for noise in ["panicked", "backtrace", "Stack"] {
        assert!(!ran.stderr.contains(noise), "{ran:?}");
    }
}

/// Checks that a service with a low limit on open files accepts fewer connections, and says so.
///
/// # Panics
/// The check fails.
pub async fn connections_fit_the_open_files<T: CommandFactory>(program: &str, space: &TestSpace) {
    let workers = [("http-workers", "100")];
    let ran = run("/bin/sh", &with_open_files::<T>(program, space, 400, &workers), &[]).await;
    fails_in_one_line(&ran, "--http-workers (HTTP_WORKERS) = 100: 400 open files are too few, 464 are needed");

    let mut service = Running::start("/bin/sh", &with_open_files::<T>(program, space, 400, &[]), &[]).await;

    service.says_once(&["WARN", "HTTP_CONNECTIONS", "25000", "400 open files"]).await;
    assert_eq!(service.stop("TERM").await, Some(0));
}

/// Checks that the service's own health command succeeds while it runs, and fails once it has stopped.
///
/// # Panics
/// The check fails.
pub async fn its_health_is_asked_at_its_own_listener<T: CommandFactory>(program: &str, space: &TestSpace) {
    let mut service = Running::start(program, &space.arguments::<T>(&[]), &[]).await;
    let admin = format!("--admin-listen={}", service.admin());
    let ask = async || run(program, &[admin.clone(), String::from("check-health")], &[]).await;

    eventually("it is healthy", async || ask().await.code == Some(0)).await;
    service.stop("TERM").await;

    fails_in_one_line(&ask().await, "no answer from");
}

/// Checks that a service says where it listens, and ends with exit code 0 after SIGTERM, SIGINT and SIGHUP, even when
/// nobody reads its log any more.
///
/// # Panics
/// The check fails.
pub async fn signals_stop_it<T: CommandFactory>(program: &str, space: &TestSpace) {
    for signal in ["TERM", "INT", "HUP"] {
        let mut service = Running::start(program, &space.arguments::<T>(&[]), &[]).await;

        let code = service.stop(signal).await;

        assert_eq!(code, Some(0), "{signal}: {}", service.log());
    }
    // Like a supervisor that signals a process, and then its group.
    let mut service = Running::start(program, &space.arguments::<T>(&[]), &[]).await;
    let code = service.stop_by(&["TERM", "INT"]).await;
    assert_eq!(code, Some(0), "{}", service.log());
    let mut service = Running::start(program, &space.arguments::<T>(&[]), &[]).await;
    service.close_log().await;

    assert_eq!(service.stop("TERM").await, Some(0), "without a log");
}
