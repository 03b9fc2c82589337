//! Two installations on one broker. Goal: neither settles or loses claims of the other, and a consumer that met foreign
//! claims resumes once they are gone. Method: a consumer with the database of one installation and the queue of
//! another.

use coupon_core::Outcome;
use coupon_core::rabbitmq::message;
use coupon_core::redis::keys;
use coupon_testkit::{TestSpace, eventually};
use deadpool_redis::redis::AsyncCommands;

use crate::programs;
use crate::system::{claims_are_accepted, claims_are_issued, start_consumer, start_producer_api};

audited![
    a_consumer_leaves_claims_of_another_installation_to_its_consumers,
    a_consumer_resumes_once_the_claims_of_others_are_gone,
    in_exact_order_consumers_of_two_installations_take_turns,
    keys_of_another_installation_are_left_alone,
];

async fn a_consumer_leaves_claims_of_another_installation_to_its_consumers(space: &TestSpace) {
    coupon_testkit::run(async |other| {
        let campaign = space.campaign(50).await;
        let api = start_producer_api(space, &[]).await;
        let database = other.servers().mysql.mysql_url.reveal();
        let stray = programs::consumer_with(space, &[("mysql-url", database)]).await;
        let stray_ready = async || space.api(stray.address()).get("/readyz").await.status == 200;
        eventually("it is ready while the queue is empty", stray_ready).await;

        claims_are_accepted(&api, campaign, 1..=20).await;

        eventually("it is not ready", async || !stray_ready().await).await;
        eventually("all claims are back", async || space.queues.waiting().await == 20).await;
        assert!(!stray_ready().await);
        let error = stray.says_once(&["ERROR"]).await;
        for id in [space.installation().id, other.installation().id] {
            assert!(error.contains(&id.to_string()), "{id} is missing: {error}");
        }
        assert!(error.contains("COUPON_NAMESPACE"), "{error}");

        start_consumer(space, &[]).await;
        claims_are_issued(&api, campaign, 1..=20).await;
        eventually("it is ready again once the queue is empty", stray_ready).await;
    })
    .await;
}

async fn a_consumer_resumes_once_the_claims_of_others_are_gone(space: &TestSpace) {
    coupon_testkit::run(async |other| {
        let (theirs, ours) = (space.campaign(5).await, other.campaign(5).await);
        let api = start_producer_api(space, &[]).await;
        let of_other = [("mysql-url", other.servers().mysql.mysql_url.reveal())];
        let consumer = programs::consumer_with(space, &of_other).await;
        claims_are_accepted(&api, theirs, 1..=3).await;
        let is_ready = async || space.api(consumer.address()).get("/readyz").await.status == 200;
        eventually("it pauses", async || !is_ready().await).await;

        let api = start_producer_api(&other, &[("namespace", space.name())]).await;
        claims_are_accepted(&api, ours, 1..=3).await;
        for (properties, body) in space.queues.take_claims().await {
            let message = message::decode(&properties, &body).unwrap();
            if message.installation == Some(other.installation().id) {
                space.queues.publish(properties, &body).await;
            }
        }

        // The queue does not have to run empty first: the consumer resumes because the claims left in it are its own.
        claims_are_issued(&api, ours, 1..=3).await;
        other.audit().await;
    })
    .await;
}

async fn in_exact_order_consumers_of_two_installations_take_turns(space: &TestSpace) {
    coupon_testkit::run(async |other| {
        let (theirs, ours) = (space.campaign(5).await, other.campaign(5).await);
        space.queues.delete_claims().await;
        let namespace = ("namespace", space.name());
        let consumer = start_consumer(&other, &[("order", "exact"), namespace]).await;
        let their_api = start_producer_api(space, &[("order", "exact")]).await;
        claims_are_accepted(&their_api, theirs, 1..=3).await;
        let is_ready = async || space.api(consumer.address()).get("/readyz").await.status == 200;
        eventually("it pauses", async || !is_ready().await).await;
        let our_api = start_producer_api(&other, &[("order", "exact"), namespace]).await;
        claims_are_accepted(&our_api, ours, 1..=3).await;

        // This consumer settles the claims of its own installation one by one, then pauses in turn.
        start_consumer(space, &[("order", "exact"), ("batch-max", "1")]).await;

        claims_are_issued(&their_api, theirs, 1..=3).await;
        claims_are_issued(&our_api, ours, 1..=3).await;
        other.audit().await;
    })
    .await;
}

async fn keys_of_another_installation_are_left_alone(space: &TestSpace) {
    coupon_testkit::run(async |other| {
        let campaign = space.campaign(5).await;
        let mut foreign = space.installation().clone();
        foreign.id = other.installation().id;
        let list = keys::free_coupons(&foreign, campaign);
        space.redis().rpush::<_, _, ()>(&list, uuid::Uuid::new_v4().as_bytes().as_slice()).await.unwrap();
        let api = start_producer_api(space, &[]).await;
        start_consumer(space, &[]).await;

        assert!(matches!(api.claim(campaign, 1).await, Outcome::Issued { .. }));

        assert_eq!(space.redis().llen::<_, usize>(&list).await.unwrap(), 1, "the other's id was left alone");
    })
    .await;
}
