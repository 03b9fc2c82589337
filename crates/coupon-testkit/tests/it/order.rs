//! First come, first served, with several consumers. Goal: while one of them stands still, the others overtake no more
//! claims than it holds ahead. Method: one consumer is stopped by a signal while twice as many claims as coupons arrive, in
//! a known order.

use coupon_core::Outcome;
use coupon_testkit::{TestSpace, eventually};

use crate::programs;
use crate::system::{claim, start_consumer, start_producer_api};

audited![a_consumer_that_stands_still_is_overtaken_by_no_more_claims_than_it_holds_ahead,];

const COUPONS: u64 = 100;

/// Messages that a consumer holds ahead by default, each with a single claim here.
const HELD_AHEAD: usize = 20;

async fn a_consumer_that_stands_still_is_overtaken_by_no_more_claims_than_it_holds_ahead(space: &TestSpace) {
    let campaign = space.campaign(usize::try_from(COUPONS).unwrap()).await;
    let stopped = programs::consumer(space, &[]).await;
    eventually("claims are sent ahead to it", async || stopped.log().contains("consuming")).await;
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
    assert!(overtaken <= HELD_AHEAD, "{overtaken} of the first {COUPONS} claims got no coupon");
}
