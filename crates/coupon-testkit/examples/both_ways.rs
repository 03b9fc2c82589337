//! Both ways, run for programs that try their HTTP from outside, as `scripts/test-http` does.
//!
//! Prints what there is, a name and a value a line: the addresses of both APIs and a campaign with coupons. Ends, and
//! leaves nothing behind, when its standard input is closed.
#![allow(clippy::print_stdout, reason = "the addresses are its result")]

use std::io::Read;

#[tokio::main]
async fn main() {
    coupon_testkit::run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(1_000).await;
        let settings = space.settings(&[]);
        let producer = space.start(|stop| producer_api::start(settings, stop)).await;
        let settings = space.settings(&[]);
        space.start(|stop| queue_consumer::start(settings, stop)).await;
        let settings = space.settings(&[]);
        let skiplock = space.start(|stop| skiplock_api::start(settings, stop)).await;
        println!("queue http://{}", producer.address());
        println!("skiplock http://{}", skiplock.address());
        println!("campaign {campaign}");

        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        closed.await.ok();
        producer.stop().await;
        skiplock.stop().await;
    })
    .await;
}
