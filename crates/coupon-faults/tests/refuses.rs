//! Runs that `coupon-faults` refuses. Goal: it breaks no servers but its own, and says what is wrong with a schedule.
//! Method: the program itself, which must end before it starts or kills anything.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::process::{Command, Output};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let kept = std::env::vars_os().filter(|(name, _)| name == "HOME" || name == "PATH");
    let mut faults = Command::new(env!("CARGO_BIN_EXE_coupon-faults"));
    faults.args(arguments).env_clear().envs(kept).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn servers_of_others_are_left_alone() {
    // Without any variable, the program would use the servers of all other tests.
    for variables in [&[][..], &[("COUPON_REDIS_URL", "redis://127.0.0.1:9/0")][..]] {
        let ran = run(&[], variables);

        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(3), "{error}");
        assert!(error.contains("not one of the servers of `scripts/services --failures`"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_file_that_is_not_a_schedule_is_named() {
    let ran = run(&["--replay", "/dev/null"], &[]);

    let error = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{error}");
    assert!(error.contains("--replay /dev/null"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
