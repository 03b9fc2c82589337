//! A limit on how often one account may claim, against bots and impatient fingers. Without authentication it applies to
//! one account from one address, so that nobody elsewhere can use up its allowance.
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

use super::auth::Claimant;
use crate::http::problem::Problem;

/// How often accounts that have their full allowance again are forgotten, so that memory holds only the busy ones.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// The limit of a service.
#[derive(Args, Clone, Copy, Debug)]
pub struct RateSettings {
    /// Claims that one account may make in one burst at this instance, and in each second after that; further ones
    /// get 429. With --auth none they are counted by account and address. 0 = no limit.
    #[arg(long, env = "CLAIMS_PER_ACCOUNT", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000), default_value_t = 20)]
    pub claims_per_account: u32,
}

type Claimants = RateLimiter<Claimant, DashMapStateStore<Claimant>, DefaultClock>;

/// Counts claims. Cheap to clone.
#[derive(Clone)]
pub struct RateLimit {
    claimants: Option<Arc<Claimants>>,
}

impl RateLimit {
    /// Starts counting; the task that forgets accounts ends when the last clone is dropped.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn start(settings: RateSettings) -> Self {
        let claimants = NonZeroU32::new(settings.claims_per_account)
            .map(|limit| Arc::new(RateLimiter::dashmap(Quota::per_second(limit))));
        if let Some(claimants) = &claimants {
            let claimants = Arc::downgrade(claimants);
            tokio::spawn(async move {
                while let Some(claimants) = claimants.upgrade() {
                    claimants.retain_recent();
                    drop(claimants);
                    tokio::time::sleep(FORGET_EVERY).await;
                }
            });
        }
        Self { claimants }
    }

    /// Counts a claim.
    ///
    /// # Errors
    /// 429 with the time after which the claimant may claim again.
    pub fn count(&self, claimant: Claimant) -> Result<(), Problem> {
        let Some(claimants) = &self.claimants else { return Ok(()) };
        claimants
            .check_key(&claimant)
            .map_err(|refused| Problem::too_many_claims(refused.wait_time_from(DefaultClock::default().now())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::auth::{Caller, Eligibility};
    use super::*;
    use crate::domain::AccountId;

    fn claimant(account: u64) -> Claimant {
        Caller::Account(AccountId(account), Eligibility::Any).acting_for(AccountId(account)).unwrap()
    }

    fn named_from(last: u8, account: u64) -> Claimant {
        Caller::Anybody([192, 0, 2, last].into()).acting_for(AccountId(account)).unwrap()
    }

    #[tokio::test]
    async fn one_account_is_held_back_and_another_is_not() {
        let limit = RateLimit::start(RateSettings { claims_per_account: 3 });
        let (busy, other) = (claimant(1), claimant(2));

        assert!((0..3).all(|_| limit.count(busy).is_ok()));
        assert!(limit.count(busy).is_err());
        assert!(limit.count(other).is_ok());
    }

    #[tokio::test]
    async fn an_account_is_not_held_back_by_those_who_name_it_elsewhere() {
        let limit = RateLimit::start(RateSettings { claims_per_account: 3 });

        assert!((0..100).filter(|_| limit.count(named_from(1, 42)).is_ok()).count() < 100);
        assert!(limit.count(named_from(2, 42)).is_ok());
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let limit = RateLimit::start(RateSettings { claims_per_account: 0 });

        assert!((0..1_000).all(|_| limit.count(claimant(1)).is_ok()));
    }
}
