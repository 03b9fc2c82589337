//! A limit on how often one account may claim, against bots and impatient fingers.
//!
//! Each instance counts for itself, so an account gets at most the limit times the number of instances. A refused claim
//! costs neither queue nor database.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::Problem;
use crate::domain::AccountId;

/// How often accounts that have their full allowance again are forgotten, so that memory holds only the busy ones.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// The limit of a service.
#[derive(Args, Clone, Copy, Debug)]
pub struct RateSettings {
    /// Claims that one account may make at once at this instance, and in each second after; further ones get 429. 0 = no
    /// limit.
    #[arg(long, env = "CLAIMS_PER_ACCOUNT", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000), default_value_t = 20)]
    pub claims_per_account: u32,
}

type Accounts = RateLimiter<AccountId, DashMapStateStore<AccountId>, DefaultClock>;

/// Counts claims by account. Cheap to clone.
#[derive(Clone)]
pub struct RateLimit {
    accounts: Option<Arc<Accounts>>,
}

impl RateLimit {
    /// Starts counting; the task that forgets ends when the last clone is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(settings: RateSettings) -> Self {
        let accounts = NonZeroU32::new(settings.claims_per_account)
            .map(|limit| Arc::new(RateLimiter::dashmap(Quota::per_second(limit))));
        if let Some(accounts) = &accounts {
            let accounts = Arc::downgrade(accounts);
            tokio::spawn(async move {
                while let Some(accounts) = accounts.upgrade() {
                    accounts.retain_recent();
                    drop(accounts);
                    tokio::time::sleep(FORGET_EVERY).await;
                }
            });
        }
        Self { accounts }
    }

    /// Counts a claim.
    ///
    /// # Errors
    /// 429 with the time after which the account may claim again.
    pub fn count(&self, account: AccountId) -> Result<(), Problem> {
        let Some(accounts) = &self.accounts else { return Ok(()) };
        accounts
            .check_key(&account)
            .map_err(|refused| Problem::too_many_claims(refused.wait_time_from(DefaultClock::default().now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_account_is_held_back_and_another_is_not() {
        let limit = RateLimit::start(RateSettings { claims_per_account: 3 });
        let (busy, other) = (AccountId(1), AccountId(2));

        assert!((0..3).all(|_| limit.count(busy).is_ok()));
        assert!(limit.count(busy).is_err());
        assert!(limit.count(other).is_ok());
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let limit = RateLimit::start(RateSettings { claims_per_account: 0 });

        assert!((0..1_000).all(|_| limit.count(AccountId(1)).is_ok()));
    }
}
