//! Waits for something to happen.

use std::time::Duration;

use tokio::time::Instant;

/// No event in a test takes longer than this, even on a slow machine.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How often a condition is polled.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// The condition does not hold within [`DEADLINE`]; the message names `what`.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < end, "still waiting after {DEADLINE:?} until {what}");
        tokio::time::sleep(CHECK_EVERY).await;
    }
}
