//! Searches the logs of all programs and servers for words that must never be in one.

use std::path::Path;

use crate::checkers::Check;
use crate::journal::Micros;

/// Words of a panic, a crash, or damaged data.
const NEVER: [&str; 6] = [
    "panicked at",
    "mysqld got signal",
    "Assertion failure",
    "=== REDIS BUG REPORT",
    "is corrupted",
    "Bad file format reading the append only file",
];

/// The most characters of a line that are shown.
const SHOWN: usize = 300;

/// Checks every log of a run.
///
/// # Errors
/// A log cannot be read.
pub fn check(logs: &Path) -> anyhow::Result<Check> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(logs)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find(|line| NEVER.iter().any(|never| line.contains(never)));
        found.push((name, line.map(|line| line.chars().take(SHOWN).collect::<String>())));
    }
    let says = "No program or server has panicked, crashed, or found its data damaged.";
    Ok(Check::of("logs", says, found.iter(), |(name, line)| {
        line.as_ref().map(|line| ((0, Micros::MAX), format!("{name}: {line}")))
    }))
}
