//! Waiting for something to happen.

use std::time::Duration;

use tokio::time::Instant;

/// No event of a test takes longer than this, on a slow machine either.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How often a condition is checked that nothing reports by itself.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// It does not hold within [`DEADLINE`]; `what` is then named.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < end, "still waiting after {DEADLINE:?} until {what}");
        tokio::time::sleep(CHECK_EVERY).await;
    }
}
