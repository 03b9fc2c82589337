//! Runs the system in each of its ways, so that a promise is tested once for all of them.

use std::sync::Arc;

use clap::ValueEnum as _;
use coupon_core::{CampaignId, Claim, Outcome};
use coupon_testkit::{Api, Service, TestIssuer, TestSpace};
use skiplock_api::StrategyName;

/// A way to run the system: the queue with batches, one claim at a time or without its broker, or skiplock with one of
/// its strategies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    Queue,
    QueueOneByOne,
    QueueWithoutBroker,
    Skiplock(StrategyName),
}

impl Way {
    /// Whether a claim in a crowd may lose to others until its time is over, and is told to come back later. That is
    /// what the strategies that are there for comparison do on a slow machine; both defaults answer the whole crowd.
    fn may_lose(self) -> bool {
        matches!(self, Self::Skiplock(strategy) if strategy != StrategyName::Coalesced)
    }
}

/// Makes a test of each of these functions for each way: `async fn name(system: &System)`.
macro_rules! each_way {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use skiplock_api::StrategyName;

            use crate::system::{System, Way};

            a_test!($test, queue, Way::Queue);
            a_test!($test, queue_one_by_one, Way::QueueOneByOne);
            a_test!($test, queue_without_broker, Way::QueueWithoutBroker);
            a_test!($test, skiplock_coalesced, Way::Skiplock(StrategyName::Coalesced));
            a_test!($test, skiplock_select_update, Way::Skiplock(StrategyName::SelectUpdate));
            a_test!($test, skiplock_single_statement, Way::Skiplock(StrategyName::SingleStatement));
            a_test!($test, skiplock_scattered, Way::Skiplock(StrategyName::Scattered));
            a_test!($test, skiplock_for_update, Way::Skiplock(StrategyName::ForUpdate));
            a_test!($test, skiplock_blind_update, Way::Skiplock(StrategyName::BlindUpdate));
        }
    )+};
}

/// Makes a test of one way.
macro_rules! a_test {
    ($test:ident, $name:ident, $way:expr) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            System::run($way, super::$test).await;
        }
    };
}

/// Makes a test of each of these functions for both approaches with their default settings, where it makes no
/// difference how a claim finds its coupon: `async fn name(system: &System)`.
macro_rules! both_ways {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use skiplock_api::StrategyName;

            use crate::system::{System, Way};

            a_test!($test, queue, Way::Queue);
            a_test!($test, skiplock, Way::Skiplock(StrategyName::Coalesced));
        }
    )+};
}

/// Makes a test of each of these functions, about a failure that only one approach can have:
/// `async fn name(space: &TestSpace)`. The function starts the services that it needs; the audit follows.
macro_rules! audited {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread")]
            async fn audited() {
                crate::system::audited(super::$test).await;
            }
        }
    )+};
}

/// A running system: an API and, with the queue, two consumers.
pub struct System {
    pub space: Arc<TestSpace>,
    pub way: Way,
    pub api: Api,
    pub service: Arc<Service>,
    /// The issuer of the tokens that the API requires, if it requires any.
    issuer: Option<Arc<TestIssuer>>,
}

impl System {
    /// Runs a test on a system of its own and audits it at the end.
    pub async fn run(way: Way, test: impl AsyncFnOnce(&Self)) {
        coupon_testkit::run(async |space| {
            let system = Self::start(space, way).await;
            test(&system).await;
            system.space.audit().await;
        })
        .await;
    }

    async fn start(space: Arc<TestSpace>, way: Way) -> Self {
        // The queues exist, as in an installation that has run before: while a quorum queue is being created, the
        // broker refuses claims.
        space.queues.declare().await;
        let service = start_api(&space, way, &[]).await;
        for _ in 0..2 {
            match way {
                Way::Queue => drop(start_consumer(&space, &[]).await),
                Way::QueueOneByOne => drop(start_consumer(&space, &[("batch-max", "1")]).await),
                Way::QueueWithoutBroker | Way::Skiplock(_) => {}
            }
        }
        let api = space.api(service.address()).coming_back(way.may_lose());
        Self { api, space, way, service, issuer: None }
    }

    /// The same system with another API, which requires tokens of this issuer; the client has one for each account.
    pub async fn with_tokens(&self, issuer: &Arc<TestIssuer>) -> Self {
        let mut system = Self {
            api: self.api.clone(),
            space: Arc::clone(&self.space),
            way: self.way,
            service: Arc::clone(&self.service),
            issuer: Some(Arc::clone(issuer)),
        };
        system.service = system.another_service(&[]).await;
        system.api = system.api_of(&system.service);
        system
    }

    /// A client of a service of this system.
    pub fn api_of(&self, service: &Service) -> Api {
        self.space.api(service.address()).with_tokens(self.issuer.clone()).coming_back(self.way.may_lose())
    }

    /// A client of the listener for health and metrics.
    pub fn admin(&self) -> Api {
        self.space.api(self.service.admin())
    }

    /// Another instance of the API.
    pub async fn another_api(&self) -> Api {
        self.another_api_with(&[]).await
    }

    /// Another instance of the API, with settings of its own.
    pub async fn another_api_with(&self, own: &[(&str, &str)]) -> Api {
        self.api_of(self.another_service(own).await.as_ref())
    }

    /// Like [`Self::another_api_with`], but returns the service itself.
    pub async fn another_service(&self, own: &[(&str, &str)]) -> Arc<Service> {
        let auth = self.issuer.as_ref().map(|issuer| issuer.settings()).unwrap_or_default();
        let auth = auth.iter().map(|(flag, value)| (*flag, value.as_str()));
        start_api(&self.space, self.way, &auth.chain(own.iter().copied()).collect::<Vec<_>>()).await
    }

    /// The status with which the first claim of an account is answered.
    pub fn lets_in_with(&self) -> u16 {
        match self.way {
            Way::Queue | Way::QueueOneByOne => 202,
            Way::Skiplock(_) => 201,
            // It cannot tell a coupon that it issued from one that the account already held.
            Way::QueueWithoutBroker => 200,
        }
    }

    /// Whether a claim is accepted first and settled later.
    pub fn is_queue(&self) -> bool {
        matches!(self.way, Way::Queue | Way::QueueOneByOne)
    }
}

/// Runs a test that starts the services that it needs, and audits at the end.
pub async fn audited(test: impl AsyncFnOnce(&TestSpace)) {
    coupon_testkit::run(async |space| {
        space.queues.declare().await;
        test(&space).await;
        space.audit().await;
    })
    .await;
}

async fn start_api(space: &TestSpace, way: Way, own: &[(&str, &str)]) -> Arc<Service> {
    match way {
        Way::Queue | Way::QueueOneByOne => start_producer(space, own).await,
        Way::QueueWithoutBroker => {
            let settings: redis_api::Settings = space.settings(own);
            space.start(|stop| redis_api::start(settings, stop)).await
        }
        Way::Skiplock(strategy) => {
            let name = strategy.to_possible_value().expect("a strategy with a name");
            start_skiplock(space, &[&[("strategy", name.get_name())], own].concat()).await
        }
    }
}

pub async fn start_producer(space: &TestSpace, own: &[(&str, &str)]) -> Arc<Service> {
    let settings: producer_api::Settings = space.settings(own);
    space.start(|stop| producer_api::start(settings, stop)).await
}

/// Starts a producer and returns its client.
pub async fn start_producer_api(space: &TestSpace, own: &[(&str, &str)]) -> Api {
    space.api(start_producer(space, own).await.address())
}

pub async fn start_consumer(space: &TestSpace, own: &[(&str, &str)]) -> Arc<Service> {
    let settings: queue_consumer::Settings = space.settings(own);
    space.start(|stop| queue_consumer::start(settings, stop)).await
}

pub async fn start_skiplock(space: &TestSpace, own: &[(&str, &str)]) -> Arc<Service> {
    let settings: skiplock_api::Settings = space.settings(own);
    space.start(|stop| skiplock_api::start(settings, stop)).await
}

/// A claim as producer-api would put it into the queue.
pub fn claim(campaign_id: CampaignId, account: u64) -> Claim {
    Claim { campaign_id, account_id: coupon_core::AccountId(account), accepted_at_ms: account }
}

/// Claims for each of these accounts, one after the other; each claim must be accepted with 202.
pub async fn claims_are_accepted(api: &Api, campaign: CampaignId, accounts: impl IntoIterator<Item = u64>) {
    for account in accounts {
        let answer = api.post_claim(campaign, account).await;
        assert_eq!(answer.status, 202, "account {account}: {answer:?}");
    }
}

/// Waits for the outcomes of claims that were accepted; each must be a coupon.
pub async fn claims_are_issued(api: &Api, campaign: CampaignId, accounts: impl IntoIterator<Item = u64>) {
    for account in accounts {
        let outcome = api.settled(campaign, account).await;
        assert!(matches!(outcome, Outcome::Issued { .. }), "account {account}: {outcome:?}");
    }
}

/// Claims for each of these accounts until it has a coupon, like a client that tries again after a refusal.
pub async fn each_gets_a_coupon(api: &Api, campaign: CampaignId, accounts: impl IntoIterator<Item = u64>) {
    for account in accounts {
        let outcome = api.claim_patiently(campaign, account).await;
        assert!(matches!(outcome, Outcome::Issued { .. }), "account {account}: {outcome:?}");
    }
}

/// How many of these outcomes are coupons, all of them different.
pub fn count_coupons(outcomes: &[(u64, Outcome)]) -> usize {
    let mut coupons: Vec<_> = outcomes
        .iter()
        .filter_map(|(account, outcome)| match outcome {
            Outcome::Issued { coupon_id } => Some((*account, *coupon_id)),
            Outcome::SoldOut => None,
            Outcome::Pending => panic!("account {account} has no outcome"),
        })
        .collect();
    // A repeated claim counts once.
    coupons.sort_unstable();
    coupons.dedup();
    let accounts: std::collections::HashSet<u64> = coupons.iter().map(|(account, _)| *account).collect();
    let ids: std::collections::HashSet<_> = coupons.iter().map(|(_, id)| *id).collect();
    assert_eq!((accounts.len(), ids.len()), (coupons.len(), coupons.len()), "a coupon or an account occurs twice");
    coupons.len()
}
