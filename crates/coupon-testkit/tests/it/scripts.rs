//! `scripts/services` as its user meets it. Goal: a wrong port or an unreachable server is named, and the exit code
//! says so. Method: the script itself, with almost nothing in its environment but what the test sets; it starts
//! nothing.

use std::path::Path;
use std::process::{Command, Output};

fn services(command: &str, variables: &[(&str, &str)]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kept = std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "PATH");
    let mut services = Command::new(root.join("scripts/services"));
    services.arg(command).current_dir(root).env_clear().envs(kept).envs(variables.iter().copied());
    services.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_invalid_port_is_named() {
    for (name, port) in [("COUPON_MYSQL_PORT", "abc"), ("COUPON_REDIS_PORT", "0"), ("COUPON_AMQP_PORT", "99999")] {
        let ran = services("env", &[(name, port)]);

        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains(&format!("{name}={port} is not a port")), "{ran:?}");
        assert_eq!(text(&ran.stdout), "", "no address is printed");
    }
}

#[test]
fn a_configured_server_that_is_unreachable_is_down() {
    // The port of the discard service, on which nothing listens.
    let ran = services("status", &[("COUPON_REDIS_URL", "redis://127.0.0.1:9/0")]);

    let status = text(&ran.stdout);
    let redis = status.lines().find(|line| line.starts_with("redis")).unwrap_or_else(|| panic!("a line: {ran:?}"));
    assert!(redis.contains("down") && redis.contains("127.0.0.1:9"), "{redis}");
    assert_eq!(ran.status.code(), Some(1), "{status}");
}
