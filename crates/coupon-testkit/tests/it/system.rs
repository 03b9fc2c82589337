//! The system in each of its ways, so that a test is written once and holds for all.

use std::sync::Arc;

use coupon_core::{CampaignId, Claim, Outcome};
use coupon_testkit::{Api, Service, TestSpace};

/// What is tested: both ways, the queue way with batches and one claim at a time, the skiplock way with each strategy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    Queue,
    QueueOneByOne,
    Coalesced,
    SelectUpdate,
    SingleStatement,
    Scattered,
    ForUpdate,
    BlindUpdate,
}

/// Makes a test of each of these functions for each way: `async fn name(system: &System)`.
macro_rules! each_way {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::system::{System, Way};

            #[tokio::test(flavor = "multi_thread")]
            async fn queue() {
                System::run(Way::Queue, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn queue_one_by_one() {
                System::run(Way::QueueOneByOne, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_coalesced() {
                System::run(Way::Coalesced, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_select_update() {
                System::run(Way::SelectUpdate, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_single_statement() {
                System::run(Way::SingleStatement, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_scattered() {
                System::run(Way::Scattered, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_for_update() {
                System::run(Way::ForUpdate, super::$test).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn skiplock_blind_update() {
                System::run(Way::BlindUpdate, super::$test).await;
            }
        }
    )+};
}

/// A running system: an API and, on the queue way, two consumers.
pub struct System {
    pub space: Arc<TestSpace>,
    pub way: Way,
    pub api: Api,
    pub service: Arc<Service>,
}

impl System {
    /// Runs a test on a system of its own and audits it in the end.
    pub async fn run(way: Way, test: impl AsyncFnOnce(&Self)) {
        coupon_testkit::run(async |space| {
            let system = Self::start(space, way).await;
            test(&system).await;
            system.space.audit().await;
        })
        .await;
    }

    async fn start(space: Arc<TestSpace>, way: Way) -> Self {
        // As in an installation that has run before: while a quorum queue is being made, the broker refuses claims.
        space.queues.declare().await;
        let service = start_api(&space, way, &[]).await;
        for _ in 0..2 {
            match way {
                Way::Queue => drop(start_consumer(&space, &[]).await),
                Way::QueueOneByOne => drop(start_consumer(&space, &[("batch-max", "1")]).await),
                _ => {}
            }
        }
        Self { api: space.api(service.address()), space, way, service }
    }

    /// Another instance of the API.
    pub async fn another_api(&self) -> Api {
        self.another_api_with(&[]).await
    }

    /// Another instance of the API, with settings of its own.
    pub async fn another_api_with(&self, own: &[(&str, &str)]) -> Api {
        self.space.api(start_api(&self.space, self.way, own).await.address())
    }

    pub fn is_queue(&self) -> bool {
        matches!(self.way, Way::Queue | Way::QueueOneByOne)
    }
}

/// Runs a test of what one way alone can suffer and audits in the end.
pub async fn audited(test: impl AsyncFnOnce(&TestSpace)) {
    coupon_testkit::run(async |space| {
        space.queues.declare().await;
        test(&space).await;
        space.audit().await;
    })
    .await;
}

async fn start_api(space: &TestSpace, way: Way, own: &[(&str, &str)]) -> Arc<Service> {
    let with = |strategy| [&[("strategy", strategy)], own].concat();
    match way {
        Way::Queue | Way::QueueOneByOne => start_producer(space, own).await,
        Way::Coalesced => start_skiplock(space, &with("coalesced")).await,
        Way::SelectUpdate => start_skiplock(space, &with("select-update")).await,
        Way::SingleStatement => start_skiplock(space, &with("single-statement")).await,
        Way::Scattered => start_skiplock(space, &with("scattered")).await,
        Way::ForUpdate => start_skiplock(space, &with("for-update")).await,
        Way::BlindUpdate => start_skiplock(space, &with("blind-update")).await,
    }
}

pub async fn start_producer(space: &TestSpace, own: &[(&str, &str)]) -> Arc<Service> {
    let settings: producer_api::Settings = space.settings(own);
    space.start(|stop| producer_api::start(settings, stop)).await
}

/// A producer and its client.
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
    assert_eq!((accounts.len(), ids.len()), (coupons.len(), coupons.len()), "a coupon or an account came twice");
    coupons.len()
}
