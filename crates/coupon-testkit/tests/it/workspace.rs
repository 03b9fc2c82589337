//! The shape of the workspace. Goal: services stay apart and share only `coupon-core`, whose domain knows no server,
//! HTTP or telemetry; only the bench and the tests receive spans, with `coupon-otlp`; only the model and
//! redis-api call another program's code; and libraries that must exist once in a process (runtime, drivers, tracing) come in one version. Method:
//! cargo's metadata, `Cargo.lock` and the text of the domain.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Programs that must be in the workspace, because the rules below are about them.
const PROGRAMS: [&str; 5] = ["producer-api", "queue-consumer", "skiplock-api", "couponctl", "coupon-bench"];

/// Two versions of one of these in a process would not know of each other.
const ONE_OF: [&str; 13] = [
    "actix-web",
    "aws-lc-rs",
    "lapin",
    "mysql_async",
    "opentelemetry",
    "opentelemetry_sdk",
    "redis",
    "rustls",
    "time",
    "tokio",
    "tracing",
    "tracing-opentelemetry",
    "uuid",
];

/// The crates that the domain may name, for values and their text.
const OF_THE_DOMAIN: [&str; 3] = ["serde", "time", "uuid"];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).no_deps().exec().unwrap()
}

/// The workspace's packages that this one depends on, tests aside.
fn dependencies(package: &Package, members: &BTreeSet<String>) -> Vec<String> {
    let kinds = [DependencyKind::Normal, DependencyKind::Build];
    let needed = package.dependencies.iter().filter(|dependency| kinds.contains(&dependency.kind));
    needed.map(|dependency| dependency.name.clone()).filter(|name| members.contains(name)).collect()
}

#[test]
fn dependencies_point_to_the_core_only() {
    let metadata = metadata();
    let members: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();

    for program in PROGRAMS {
        assert!(members.contains(program), "{program} is not in the workspace any more: {members:?}");
    }
    for package in metadata.workspace_packages() {
        let found = dependencies(package, &members);
        match package.name.as_str() {
            name @ ("coupon-core" | "coupon-otlp") => assert!(found.is_empty(), "{name} depends on {found:?}"),
            name @ ("coupon-bench" | "coupon-testkit") => {
                let is_allowed = |found: &String| ["coupon-core", "coupon-otlp"].contains(&found.as_str());
                assert!(found.iter().all(is_allowed), "{name} depends on {found:?}");
            }
            // It runs the programs as an operator does, and breaks their connections with the testkit's tools.
            name @ "coupon-faults" => assert_eq!(found, ["coupon-core", "coupon-testkit"], "{name}"),
            // One calls the decisions that the consumer makes without a server, the other settles claims as the consumer
            // does.
            name @ ("coupon-model" | "redis-api") => {
                assert_eq!(found, ["coupon-core", "queue-consumer"], "{name}");
            }
            name => assert!(found.iter().all(|found| found == "coupon-core"), "{name} depends on {found:?}"),
        }
    }
}

#[test]
fn the_domain_names_no_server_and_no_protocol() {
    let metadata = metadata();
    let core = metadata.workspace_packages().into_iter().find(|package| package.name == "coupon-core").unwrap();
    let domain = std::fs::read_to_string(core.manifest_path.with_file_name("src/domain.rs")).unwrap();
    let (domain, _tests) = domain.split_once("#[cfg(test)]").unwrap();
    let is_in_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = domain
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split(|c| !is_in_a_name(c)))
        .collect();

    for dependency in &core.dependencies {
        let name = dependency.name.replace('-', "_");
        let is_named = words.contains(name.as_str());
        assert!(!is_named || OF_THE_DOMAIN.contains(&name.as_str()), "src/domain.rs names {name}");
    }
    // Other modules of the crate know servers, HTTP and telemetry.
    assert!(!domain.contains("crate::") && !domain.contains("super::"), "src/domain.rs names another module");
}

#[test]
fn what_must_exist_once_comes_in_one_version() {
    let lock = std::fs::read_to_string(metadata().workspace_root.join("Cargo.lock")).unwrap();

    for name in ONE_OF {
        let count = lock.lines().filter(|line| *line == format!("name = \"{name}\"")).count();
        assert!(count <= 1, "{name} comes in {count} versions: cargo tree --invert {name} says why");
        // Only OpenTelemetry's crates may be missing; any other missing name is probably misspelled above.
        assert!(count == 1 || name.contains("opentelemetry"), "{name} is not there: is its name still right?");
    }
}
