//! Clients that claim on a fixed schedule, however long answers take, from all instances of both APIs; some of them
//! claim twice.
//!
//! Invariant: a claim is sent when its time has come, whether or not earlier ones have been answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coupon_core::{AccountId, CampaignId, ClaimKey};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clients::{APIS, Clients};
use crate::follow_up;
use crate::journal::Instance;

/// How many claims in a hundred are sent twice at nearly the same time, and how many are repeated some seconds later.
const DOUBLE_PERCENT: u32 = 8;
const LATER_PERCENT: u32 = 4;

/// Sends claims at a fixed rate until told to stop, and returns when every client is done.
pub async fn run(clients: Arc<Clients>, seed: u64, rate: u32, stop: watch::Receiver<bool>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut visits = JoinSet::new();
    let began = clients.journal.began();
    for n in 0u64.. {
        tokio::time::sleep_until(began + Duration::from_secs_f64(n as f64 / f64::from(rate))).await;
        if *stop.borrow() {
            break;
        }
        while visits.try_join_next().is_some() {}
        let campaign: CampaignId = clients.campaigns.choose(&mut rng, clients.journal.now());
        let claim = ClaimKey { campaign_id: campaign, account_id: AccountId(n + 1) };
        let again_ms = match rng.random_range(0..100) {
            0..DOUBLE_PERCENT => Some(rng.random_range(0..40)),
            n if n < DOUBLE_PERCENT + LATER_PERCENT => Some(rng.random_range(500..8_000)),
            _ => None,
        };
        for after_ms in [Some(0), again_ms].into_iter().flatten() {
            let instance = APIS.get(rng.random_range(0..APIS.len())).copied().unwrap_or(0);
            visits.spawn(visit(Arc::clone(&clients), instance, claim, Duration::from_millis(after_ms)));
        }
    }
    while visits.join_next().await.is_some() {}
}

/// Plays one client: a claim, and whatever follows.
async fn visit(clients: Arc<Clients>, instance: Instance, claim: ClaimKey, after: Duration) {
    tokio::time::sleep(after).await;
    let Some(unsettled) = clients.unsettled.get(instance) else { return };
    unsettled.fetch_add(1, Ordering::Relaxed);
    let first = clients.claim(instance, claim).await;
    follow_up::until_final(&clients, instance, claim, first).await;
    unsettled.fetch_sub(1, Ordering::Relaxed);
}
