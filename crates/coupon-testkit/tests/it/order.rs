//! First come, first served, with several consumers. Goal: while one consumer is stalled, the others overtake no more
//! claims than it has prefetched; in exact order, an account that claims after another was answered never overtakes it.
//! Method: one consumer is stopped by a signal, or killed while it holds claims, and twice as many claims as coupons
//! arrive in a known order.

use coupon_core::mysql::coupons;
use coupon_core::mysql::sql::Wanted;
use coupon_core::redis::keys;
use coupon_core::{CampaignId, Claim, Outcome};
use coupon_testkit::{Api, TestSpace, eventually};
use deadpool_redis::redis::AsyncCommands;

use crate::programs;
use crate::system::{claim, claims_are_accepted, start_consumer, start_producer_api};

audited![
    no_more_claims_are_overtaken_than_a_stalled_consumer_has_prefetched,
    in_exact_order_nobody_is_overtaken_when_the_only_consumer_is_killed,
    in_exact_order_nobody_is_overtaken_when_one_of_four_consumers_is_killed,
    in_exact_order_nobody_is_overtaken_when_a_killed_consumer_still_issues,
    in_exact_order_an_id_that_is_listed_twice_serves_one_claim,
    in_exact_order_another_consumer_takes_over_from_a_stalled_one,
    in_exact_order_consumers_come_and_go_under_load,
];

/// Not a multiple of the prefetch, so that the coupons run out in the middle of a batch.
const COUPONS: u64 = 90;

/// Messages that a consumer prefetches by default. Here, each holds a single claim.
const PREFETCHED: usize = 20;

async fn no_more_claims_are_overtaken_than_a_stalled_consumer_has_prefetched(space: &TestSpace) {
    let campaign = space.campaign(usize::try_from(COUPONS).unwrap()).await;
    let stopped = programs::consumer(space, &[]).await;
    eventually("it prefetches claims", async || stopped.log().contains("consuming")).await;
    stopped.send("STOP").await;
    start_consumer(space, &[]).await;

    for account in 1..=2 * COUPONS {
        space.queues.publish_claim(&claim(campaign, account)).await;
    }
    eventually("the other consumer has sold out", async || space.issued(campaign).await == COUPONS).await;
    stopped.send("CONT").await;

    let api = start_producer_api(space, &[]).await;
    let mut overtaken = 0;
    for account in 1..=2 * COUPONS {
        let outcome = api.settled(campaign, account).await;
        overtaken += usize::from(account <= COUPONS && outcome == Outcome::SoldOut);
    }
    assert!(overtaken <= PREFETCHED, "{overtaken} of the first {COUPONS} claims got no coupon");
}

const EXACT: [(&str, &str); 1] = [("order", "exact")];

/// The first words of the statement that issues coupons.
const ISSUE: &str = "UPDATE (SELECT";

async fn in_exact_order_nobody_is_overtaken_when_the_only_consumer_is_killed(space: &TestSpace) {
    kill_the_active_consumer(space, 1).await;
}

async fn in_exact_order_nobody_is_overtaken_when_one_of_four_consumers_is_killed(space: &TestSpace) {
    kill_the_active_consumer(space, 4).await;
}

async fn kill_the_active_consumer(space: &TestSpace, consumers: usize) {
    let campaign = space.campaign(usize::try_from(COUPONS).unwrap()).await;
    space.queues.delete_claims().await;
    // The first consumer is active; the others stand by.
    let active = start_consumer(space, &EXACT).await;
    for _ in 1..consumers {
        start_consumer(space, &EXACT).await;
    }
    let locks = space.lock_rows(campaign).await;
    let api = claim_in_turn(space, campaign, 1..=2 * COUPONS).await;
    eventually("the issue waits for the locks", async || !space.running(ISSUE).await.is_empty()).await;

    active.kill();
    // The statement ends unfinished, as it does when the server notices that its client is gone.
    for connection in space.running(ISSUE).await {
        space.sql(format!("KILL {connection}")).await;
    }
    locks.disconnect().await.unwrap();
    if consumers == 1 {
        start_consumer(space, &EXACT).await;
    }

    first_come_is_first_served(&api, campaign, COUPONS).await;
}

/// Claims at two instances in turn. Each claim follows the answer to the previous one.
async fn claim_in_turn(space: &TestSpace, campaign: CampaignId, accounts: impl IntoIterator<Item = u64>) -> Api {
    let mut apis = [start_producer_api(space, &EXACT).await, start_producer_api(space, &EXACT).await];
    for account in accounts {
        claims_are_accepted(&apis[0], campaign, [account]).await;
        apis.reverse();
    }
    let [api, _] = apis;
    api
}

/// The accounts that claimed first got the coupons, all of them and nobody else, and keep them when they claim again.
async fn first_come_is_first_served(api: &Api, campaign: CampaignId, coupons: u64) {
    let mut outcomes = Vec::new();
    for account in 1..=2 * coupons {
        outcomes.push(api.settled(campaign, account).await);
    }
    let overtaken = (1..=coupons).zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::SoldOut);
    assert_eq!(
        overtaken.map(|(account, _)| account).collect::<Vec<_>>(),
        [0; 0],
        "these accounts claimed first and got no coupon"
    );
    for (account, outcome) in (1..).zip(outcomes).step_by(19) {
        assert_eq!(api.claim(campaign, account).await, outcome, "account {account} claims again");
    }
}

async fn in_exact_order_nobody_is_overtaken_when_a_killed_consumer_still_issues(space: &TestSpace) {
    const MESSAGE: usize = 20;
    const COUPONS: usize = 30;
    let settings = [("order", "exact"), ("prefetch", "1")];
    let campaign = space.campaign(COUPONS).await;
    space.queues.delete_claims().await;
    let active = start_consumer(space, &settings).await;
    let locks = space.lock_rows(campaign).await;
    let claims: Vec<Claim> = (1..=2 * COUPONS as u64).map(|account| claim(campaign, account)).collect();
    for message in claims.chunks(MESSAGE) {
        assert!(space.queues.try_publish_claims(message).await.unwrap());
    }
    eventually("the issue waits for the locks", async || space.running(ISSUE).await.len() == 1).await;

    active.kill();
    start_consumer(space, &settings).await;
    // It was offered the ids that the statement of the first one is about to take.
    eventually("the issues of both wait", async || space.running(ISSUE).await.len() == 2).await;
    locks.disconnect().await.unwrap();

    let api = start_producer_api(space, &EXACT).await;
    first_come_is_first_served(&api, campaign, COUPONS as u64).await;
}

/// Ids that were given back meet those of a refill in the list.
async fn in_exact_order_an_id_that_is_listed_twice_serves_one_claim(space: &TestSpace) {
    const COUPONS: usize = 10;
    let campaign = space.campaign(COUPONS).await;
    let mut conn = space.mysql().connection().await.unwrap();
    let wanted = Wanted { campaign_id: campaign, count: COUPONS, after: None };
    let ids = coupons::free_coupons(&mut conn, wanted).await.unwrap();
    drop(conn);
    let (some, others) = ids.split_at(COUPONS / 2);
    // The first claims take ids from the end, the next ones the same ids again, and the last ones those of the beginning.
    let list: Vec<&[u8]> = [others, some, some].into_iter().flatten().map(|id| id.0.as_bytes().as_slice()).collect();
    let key = keys::free_coupons(space.installation(), campaign);
    space.redis().rpush::<_, _, ()>(key, list).await.unwrap();
    space.queues.delete_claims().await;
    start_consumer(space, &EXACT).await;

    let claims: Vec<Claim> = (1..=2 * COUPONS as u64).map(|account| claim(campaign, account)).collect();
    assert!(space.queues.try_publish_claims(&claims).await.unwrap());

    let api = start_producer_api(space, &EXACT).await;
    first_come_is_first_served(&api, campaign, COUPONS as u64).await;
}

async fn in_exact_order_another_consumer_takes_over_from_a_stalled_one(space: &TestSpace) {
    let campaign = space.campaign(usize::try_from(COUPONS).unwrap()).await;
    space.queues.delete_claims().await;
    let active = programs::consumer_with(space, &EXACT).await;
    eventually("it consumes", async || active.log().contains("consuming")).await;
    active.send("STOP").await;
    start_consumer(space, &EXACT).await;
    let api = claim_in_turn(space, campaign, 1..=2 * COUPONS).await;

    // The broker considers the stopped consumer dead once it has missed its heartbeats.
    eventually("the other consumer has sold out", async || space.issued(campaign).await == COUPONS).await;
    active.send("CONT").await;

    first_come_is_first_served(&api, campaign, COUPONS).await;
}

async fn in_exact_order_consumers_come_and_go_under_load(space: &TestSpace) {
    let campaign = space.campaign(usize::try_from(COUPONS).unwrap()).await;
    space.queues.delete_claims().await;
    let mut active = start_consumer(space, &EXACT).await;
    let api = start_producer_api(space, &EXACT).await;
    for first in (1..=2 * COUPONS).step_by(20) {
        let next = start_consumer(space, &EXACT).await;
        for account in first..first + 20 {
            let status = api.post_claim(campaign, account).await.status;
            assert!(status == 202 || account > COUPONS && status == 409, "account {account}: {status}");
        }
        active.kill();
        active = next;
    }

    first_come_is_first_served(&api, campaign, COUPONS).await;
}
