//! Both ways, run for programs that try their HTTP from outside, as `scripts/test-http` does.
//!
//! Prints what there is, a name and a value a line: the addresses of both APIs, a campaign with coupons, and the
//! addresses of both APIs that want tokens, with a token for account 42. Ends, and leaves nothing behind, when its
//! standard input is closed.
#![allow(clippy::print_stdout, reason = "the addresses are its result")]

use std::io::Read;

use coupon_testkit::TestIssuer;

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

        let issuer = TestIssuer::start().await;
        let with_tokens = issuer.settings();
        let with_tokens: Vec<_> = with_tokens.iter().map(|(flag, value)| (*flag, value.as_str())).collect();
        let settings = space.settings(&with_tokens);
        let queue = space.start(|stop| producer_api::start(settings, stop)).await;
        let settings = space.settings(&with_tokens);
        let locks = space.start(|stop| skiplock_api::start(settings, stop)).await;
        println!("queue_with_tokens http://{}", queue.address());
        println!("skiplock_with_tokens http://{}", locks.address());
        println!("token {}", issuer.token(42));

        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        closed.await.ok();
        for service in [producer, skiplock, queue, locks] {
            service.stop().await;
        }
    })
    .await;
}
