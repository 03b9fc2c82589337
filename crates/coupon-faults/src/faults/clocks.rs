//! Claims stamped as if they had been made long before, or later, as a producer-api with a wrong clock would stamp
//! them. The clock of a single program cannot be changed here, so the run publishes these claims itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coupon_core::{AccountId, Claim, ClaimKey};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Scene;
use crate::clients::{APIS, Clients};
use crate::follow_up;
use crate::journal::{Answer, Operation, Request};

/// The furthest a clock may be off, in milliseconds.
const WRONG_BY_MS: u64 = 60 * 60 * 1_000;

/// How often a message is published, and with how many claims.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
const CLAIMS: u64 = 5;

/// Account numbers that no other client has start here; the time is added.
const FIRST_ACCOUNT: u64 = 1 << 48;

pub(super) async fn play(scene: &Scene) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(scene.fault.chance);
    scene.begins().await;
    while scene.is_on() {
        let begun = scene.clients.journal.now();
        let claim = |n: u64| {
            let campaign_id = scene.clients.campaigns.choose(&mut rng, begun);
            ClaimKey { campaign_id, account_id: AccountId(FIRST_ACCOUNT + begun + n) }
        };
        publish(scene, begun, &(0..CLAIMS).map(claim).collect::<Vec<_>>()).await?;
        tokio::time::sleep(PUBLISH_EVERY).await;
    }
    Ok(())
}

/// Publishes claims, records them in the journal like a client's, and follows them up.
async fn publish(scene: &Scene, begun: u64, keys: &[ClaimKey]) -> anyhow::Result<()> {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    // Between an hour behind and an hour ahead.
    let accepted_at_ms = now - WRONG_BY_MS + (scene.fault.chance ^ begun) % (2 * WRONG_BY_MS);
    let claim = |key: &ClaimKey| Claim { campaign_id: key.campaign_id, account_id: key.account_id, accepted_at_ms };
    let claims: Vec<Claim> = keys.iter().map(claim).collect();
    let answer = match scene.stage.space.queues.try_publish_claims(&claims).await {
        Ok(true) => Answer::Accepted,
        _ => Answer::Silence,
    };
    let (request, instance, ended) = (Request::Claim, APIS[0], scene.clients.journal.now());
    for &claim in keys {
        scene.clients.journal.add(Operation { claim, request, instance, begun, ended, answer });
        let clients: Arc<Clients> = Arc::clone(&scene.clients);
        tokio::spawn(async move { follow_up::until_final(&clients, instance, claim, answer).await });
    }
    Ok(())
}
