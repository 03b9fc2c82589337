//! How long work is retried that lost against others: it was a deadlock's victim, waited too long for a lock, or found
//! every free row held.

use std::time::{Duration, Instant};

use backon::ExponentialBuilder;

/// How long work that lost against others is retried.
const CONFLICTS_FOR: Duration = Duration::from_secs(3);

/// When a piece of work first lost against others, if it has.
#[derive(Default)]
pub struct Lost(Option<Instant>);

impl Lost {
    /// Notes that the work has lost, and says whether it may try again. A conflict may itself take five seconds of
    /// waiting for a lock.
    pub fn may_try_again(&mut self) -> bool {
        self.0.get_or_insert_with(Instant::now).elapsed() < CONFLICTS_FOR
    }
}

/// Pauses before work that lost against others is retried, because it was a deadlock's victim or every free row was
/// held. Jitter keeps the losers from meeting again.
pub fn pauses_after_conflicts() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(50))
        .with_total_delay(Some(CONFLICTS_FOR))
        .without_max_times()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_conflicts_begins_with_the_first() {
        let mut waited_in_line = Lost::default();
        assert!(waited_in_line.may_try_again(), "whenever it came");
        assert!(waited_in_line.may_try_again());

        let mut lost_long_ago = Lost(Instant::now().checked_sub(CONFLICTS_FOR));
        assert!(!lost_long_ago.may_try_again());
    }
}
