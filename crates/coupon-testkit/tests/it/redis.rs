//! Redis loses everything, holds wrong ids, or is away. Goal: what is in Redis never decides who gets a coupon, and no
//! coupon is lost with it.

use coupon_core::mysql::sql::Wanted;
use coupon_core::redis::keys;
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId, Outcome};
use coupon_testkit::{Proxy, TestSpace, eventually};
use deadpool_redis::redis::{self, AsyncCommands};
use futures_util::future::join_all;
use queue_consumer::settle::{Publishers, Settler};

use crate::system::{claim, claims_are_accepted, claims_are_issued, count_coupons, start_consumer, start_producer_api};

audited![
    redis_emptied_under_load_loses_no_coupon,
    outcomes_are_evicted_before_ids,
    stale_ids_are_skipped,
    stale_ids_are_skipped_one_by_one,
    many_batches_refill_at_once,
    a_refill_lock_left_by_a_dead_consumer_expires,
    a_consumer_that_waits_for_anothers_refill_takes_its_ids_and_leaves_its_lock,
    while_redis_is_away_claims_wait_and_outcomes_are_read_from_mysql,
    an_id_that_a_repeated_claim_does_not_need_goes_back,
    a_list_full_of_stale_ids_is_refilled,
];

async fn redis_emptied_under_load_loses_no_coupon(space: &TestSpace) {
    let campaign = space.campaign(300).await;
    let api = start_producer_api(space, &[]).await;
    for _ in 0..2 {
        start_consumer(space, &[("batch-max", "20"), ("refill-max", "70")]).await;
    }
    let emptying = async {
        for issued in [20, 100, 180, 260, 300] {
            eventually("more coupons are issued", async || space.issued(campaign).await >= issued).await;
            space.empty_redis().await;
        }
    };

    let (outcomes, ()) = tokio::join!(api.claim_all(campaign, 1..=450), emptying);

    assert_eq!(count_coupons(&outcomes), 300);
}

async fn outcomes_are_evicted_before_ids(space: &TestSpace) {
    let campaign = space.campaign(30).await;
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    api.claim_all(campaign, 1..=20).await;

    let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut space.redis()).await.unwrap();
    assert!(memory.contains("maxmemory_policy:volatile-ttl"), "see deploy/redis/redis.conf: {memory}");
    let installation = space.installation();
    let ttl = async |key: String| space.redis().ttl::<_, i64>(key).await.unwrap();
    let ids = ttl(keys::free_coupons(installation, campaign)).await;
    assert!((1..=ttl(keys::refilled_to(installation, campaign)).await).contains(&ids));
    for account_id in (1..=20).map(AccountId) {
        let claim = ClaimKey { campaign_id: campaign, account_id };
        // The client may get its answer from MySQL before the outcome is recorded.
        eventually("an outcome would be evicted before the ids", async || {
            (1..ids).contains(&ttl(keys::outcome(installation, claim)).await)
        })
        .await;
    }
}

async fn stale_ids_are_skipped(space: &TestSpace) {
    stale_ids(space, "500").await;
}

async fn stale_ids_are_skipped_one_by_one(space: &TestSpace) {
    stale_ids(space, "1").await;
}

async fn stale_ids(space: &TestSpace, batch_max: &str) {
    let campaign = space.campaign(30).await;
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[("batch-max", batch_max)]).await;
    let issued = api.claim_all(campaign, 1..=10).await;
    let taken = issued.iter().map(|(_, outcome)| match outcome {
        Outcome::Issued { coupon_id } => *coupon_id,
        _ => panic!("{outcome:?}"),
    });
    let random = (0..10).map(|_| CouponId::random());
    let mut ids: Vec<Vec<u8>> = taken.chain(random).map(|id| id.0.as_bytes().to_vec()).collect();
    ids.extend([b"garbage".to_vec(), Vec::new(), vec![0; 17]]);
    // They go in front of the ids that are in the list already.
    space.redis().lpush::<_, _, ()>(keys::free_coupons(space.installation(), campaign), ids).await.unwrap();

    let outcomes = api.claim_all(campaign, 11..=50).await;

    assert_eq!(count_coupons(&outcomes), 20);
}

async fn many_batches_refill_at_once(space: &TestSpace) {
    let campaign = space.campaign(150).await;
    let settlers = [settler(space), settler(space)];
    let batches = (0_u64..40).zip(settlers.iter().cycle()).map(|(n, settler)| {
        // Each account is in two batches, at different consumers.
        let accounts = (n * 5 + 1)..=(n * 5 + 10);
        let claims: Vec<_> = accounts.map(|account| claim(campaign, account)).collect();
        async move { settler.settle(&claims, &Publishers::new(), &Timeline::default()).await.unwrap() }
    });

    let settled = join_all(batches).await;

    let outcomes: Vec<(u64, Outcome)> = settled
        .iter()
        .flat_map(|settled| &settled.outcomes)
        .map(|(claim, outcome)| (claim.account_id.0, *outcome))
        .collect();
    assert_eq!(outcomes.len(), 400);
    assert_eq!(count_coupons(&outcomes), 150);
    report(space, campaign, &outcomes).await;
}

/// Asks for outcomes that a settler returned, as a client would, so that the audit checks them too.
async fn report(space: &TestSpace, campaign: CampaignId, outcomes: &[(u64, Outcome)]) {
    let api = start_producer_api(space, &[]).await;
    for (account, outcome) in outcomes {
        assert_eq!(api.settled(campaign, *account).await, *outcome, "account {account}");
    }
}

async fn a_refill_lock_left_by_a_dead_consumer_expires(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let lock = keys::refill_lock(space.installation(), campaign);
    let set = redis::cmd("SET").arg(&lock).arg("of the dead").arg("PX").arg(700).to_owned();
    set.exec_async(&mut space.redis()).await.unwrap();

    let settled = settler(space).settle(&[claim(campaign, 1)], &Publishers::new(), &Timeline::default()).await.unwrap();

    assert!(settled.outcomes.values().all(|outcome| matches!(outcome, Outcome::Issued { .. })), "{settled:?}");
    let left: Option<String> = space.redis().get(&lock).await.unwrap();
    assert_eq!(left, None);
}

async fn a_consumer_that_waits_for_anothers_refill_takes_its_ids_and_leaves_its_lock(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let lock = keys::refill_lock(space.installation(), campaign);
    space.redis().set::<_, _, ()>(&lock, "of another").await.unwrap();
    let settler = settler(space);
    let claims = [claim(campaign, 1)];

    let timeline = Timeline::default();
    let publishers = Publishers::new();
    let (settled, ()) = tokio::join!(settler.settle(&claims, &publishers, &timeline), async {
        let free: Vec<CouponId> = {
            let mut conn = space.mysql().connection().await.unwrap();
            let wanted = Wanted { campaign_id: campaign, count: 5, after: None };
            coupon_core::mysql::coupons::free_coupons(&mut conn, wanted).await.unwrap()
        };
        let ids: Vec<&[u8]> = free.iter().map(|id| id.0.as_bytes().as_slice()).collect();
        let list = keys::free_coupons(space.installation(), campaign);
        space.redis().rpush::<_, _, ()>(list, ids).await.unwrap();
    });

    let settled = settled.unwrap();
    assert!(settled.outcomes.values().all(|outcome| matches!(outcome, Outcome::Issued { .. })), "{settled:?}");
    let left: Option<String> = space.redis().get(&lock).await.unwrap();
    assert_eq!(left.as_deref(), Some("of another"));
}

async fn while_redis_is_away_claims_wait_and_outcomes_are_read_from_mysql(space: &TestSpace) {
    let campaign = space.campaign(50).await;
    let proxy = Proxy::start(&space.servers().redis.redis_url).await;
    let through = [("redis-url", proxy.url()), ("redis-deadline", "500ms")];
    let api = start_producer_api(space, &through).await;
    start_consumer(space, &through).await;
    let first = api.claim(campaign, 1).await;

    proxy.cut();
    let down = async || api.get("/readyz").await.json["servers"]["redis"] == "down";
    eventually("the producer notices", down).await;
    assert_eq!(api.settled(campaign, 1).await, first, "MySQL knows it too");
    claims_are_accepted(&api, campaign, 2..=20).await;
    eventually("the consumer holds them", async || space.queues.waiting().await == 0).await;
    proxy.heal();

    claims_are_issued(&api, campaign, 2..=20).await;
}

fn settler(space: &TestSpace) -> Settler {
    let settings: queue_consumer::Settings = space.settings(&[("refill-max", "13")]);
    let mysql = coupon_core::mysql::Mysql::new(&settings.mysql);
    let redis = coupon_core::redis::Redis::new(&settings.redis).unwrap();
    queue_consumer::settler(&settings, space.installation(), mysql, redis).unwrap()
}

async fn an_id_that_a_repeated_claim_does_not_need_goes_back(space: &TestSpace) {
    let campaign = space.campaign(5).await;
    let (settler, timeline) = (settler(space), Timeline::default());
    let first = settler.settle(&[claim(campaign, 1)], &Publishers::new(), &timeline).await.unwrap();
    assert_eq!(space.ids_in_redis(campaign).await, 4);

    let both = settler.settle(&[claim(campaign, 1), claim(campaign, 2)], &Publishers::new(), &timeline).await.unwrap();

    let key = claim(campaign, 1).key();
    assert_eq!(both.outcomes[&key], first.outcomes[&key], "the repeated claim has the coupon of the first");
    assert_eq!(space.ids_in_redis(campaign).await, 3, "one of the two ids was not used");
}

async fn a_list_full_of_stale_ids_is_refilled(space: &TestSpace) {
    let campaign = space.campaign(10).await;
    let (settler, timeline) = (settler(space), Timeline::default());
    let first: Vec<_> = (1..=5).map(|account| claim(campaign, account)).collect();
    settler.settle(&first, &Publishers::new(), &timeline).await.unwrap();
    // Far more ids of no coupon than one settlement gets through in its rounds, in front of the free ones.
    let stale: Vec<Vec<u8>> = (0..5_000).map(|_| uuid::Uuid::new_v4().as_bytes().to_vec()).collect();
    let list = keys::free_coupons(space.installation(), campaign);
    space.redis().lpush::<_, _, ()>(list, stale).await.unwrap();

    // As after a redelivery, all claims of the batch but one are settled already.
    let batch = [first, vec![claim(campaign, 6)]].concat();
    let settled = settler.settle(&batch, &Publishers::new(), &timeline).await.unwrap();

    assert!(settled.outcomes.values().all(|outcome| matches!(outcome, Outcome::Issued { .. })), "{settled:?}");
}
