//! Messages that arrive twice, late, or that are not claims at all. Goal: processing is idempotent, and a message that
//! cannot be processed is kept for an operator and holds nothing up. Method: messages that the test itself publishes.

use coupon_core::rabbitmq::message::{self, Message};
use coupon_core::redis::keys;
use coupon_core::{AccountId, CampaignId, ClaimKey, Outcome};
use coupon_testkit::{TestSpace, eventually};
use deadpool_redis::redis::AsyncCommands;

use crate::programs::couponctl;
use crate::system::{claim, claims_are_issued, start_consumer, start_producer_api};

audited![
    a_duplicate_message_issues_nothing_more,
    a_duplicate_message_issues_nothing_more_one_by_one,
    poison_is_dead_lettered_and_holds_nothing_up,
    poison_holds_nothing_up_while_dead_letters_cannot_be_kept,
    claims_of_an_unknown_campaign_are_kept_with_the_reason,
    dead_letters_that_are_replayed_are_settled,
    claims_of_a_producer_of_the_previous_version_are_settled,
];

async fn a_duplicate_message_issues_nothing_more(space: &TestSpace) {
    duplicates_issue_nothing_more(space, "500").await;
}

async fn a_duplicate_message_issues_nothing_more_one_by_one(space: &TestSpace) {
    duplicates_issue_nothing_more(space, "1").await;
}

async fn duplicates_issue_nothing_more(space: &TestSpace, batch_max: &str) {
    let campaign = space.campaign(10).await;
    let api = start_producer_api(space, &[]).await;
    for account in [1, 1, 2, 1] {
        space.queues.publish_claim(&claim(campaign, account)).await;
    }

    start_consumer(space, &[("batch-max", batch_max)]).await;

    let first = api.settled(campaign, 1).await;
    // Claims again for accounts that hold a coupon. The claim of account 3 comes last, so once the only consumer has
    // settled it, it has settled all of them.
    for account in [1, 2, 2, 1, 3] {
        space.queues.publish_claim(&claim(campaign, account)).await;
    }
    claims_are_issued(&api, campaign, [2, 3]).await;
    assert_eq!(api.settled(campaign, 1).await, first, "a coupon never changes");
    assert_eq!(space.issued(campaign).await, 3);
}

async fn poison_is_dead_lettered_and_holds_nothing_up(space: &TestSpace) {
    let campaign = space.campaign(10).await;
    let api = start_producer_api(space, &[]).await;
    let good = message::encode(&[claim(campaign, 100)]).unwrap();
    let properties = || message::properties(space.installation().id, std::iter::empty());
    let poison = [
        (properties(), &b"garbage"[..]),
        (properties(), b""),
        (properties(), b"[{\"campaign_id\":1}]"),
        (properties(), b"[{\"campaign_id\":1,\"account_id\":-1,\"accepted_at_ms\":0}]"),
        (properties().with_type("claims.v9".into()), &good),
        (properties().with_app_id("nobody".into()), &good),
        (lapin::BasicProperties::default(), &good),
    ];
    for (account, (properties, body)) in (1..).zip(&poison) {
        space.queues.publish(properties.clone(), body).await;
        space.queues.publish_claim(&claim(campaign, account)).await;
    }

    start_consumer(space, &[]).await;

    claims_are_issued(&api, campaign, 1..=7).await;
    eventually("all poison is dead-lettered", async || space.queues.dead_letters().await == 7).await;
    assert!(!space.report().await.clean, "the audit reports dead letters");
    let dead = space.queues.take_dead_letters().await;
    for (properties, body) in &dead {
        let why = message::decode(properties, body).unwrap_err();
        assert_eq!(message::reason(properties), Some(why), "the message carries the reason");
    }
    let mut dead: Vec<Vec<u8>> = dead.into_iter().map(|(_, body)| body).collect();
    let mut sent: Vec<Vec<u8>> = poison.iter().map(|(_, body)| body.to_vec()).collect();
    dead.sort();
    sent.sort();
    assert_eq!(dead, sent, "the messages are kept as they were");
    assert_eq!(space.issued(campaign).await, 7, "a claim in a message of the wrong type is not settled");
}

async fn claims_of_an_unknown_campaign_are_kept_with_the_reason(space: &TestSpace) {
    let (campaign, unknown) = (space.campaign(2).await, CampaignId(404));
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    let lost = [claim(unknown, 1), claim(unknown, 2)];
    let mixed = [lost[0], claim(campaign, 1), lost[1]];

    let properties = message::properties(space.installation().id, std::iter::empty());
    space.queues.publish(properties, &message::encode(&mixed).unwrap()).await;

    assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
    eventually("they are dead-lettered", async || space.queues.dead_letters().await == 1).await;
    assert!(matches!(api.claim(campaign, 2).await, Outcome::Issued { .. }), "the message holds nothing up");
    assert!(!space.report().await.clean, "the audit reports dead letters");
    let key = ClaimKey { campaign_id: unknown, account_id: AccountId(1) };
    let recorded: Option<Vec<u8>> = space.redis().get(keys::outcome(space.installation(), key)).await.unwrap();
    assert_eq!(recorded, None, "nobody is answered \"sold out\"");

    let dead = space.queues.take_dead_letters().await;
    let [(properties, body)] = &dead[..] else { panic!("{dead:?}") };
    let installation = Some(space.installation().id);
    assert_eq!(
        message::decode(properties, body).unwrap(),
        Message { installation, instance: None, claims: lost.to_vec() }
    );
    assert_eq!(message::reason(properties).as_deref(), Some("its campaign is not in the table campaign"));
}

async fn dead_letters_that_are_replayed_are_settled(space: &TestSpace) {
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    let claims = [claim(CampaignId(9), 1), claim(CampaignId(9), 2)];
    let properties = message::properties(space.installation().id, std::iter::empty());
    space.queues.publish(properties, &message::encode(&claims).unwrap()).await;
    eventually("they are dead-lettered", async || space.queues.dead_letters().await == 1).await;

    couponctl(space, "campaign create --id 9 --coupons 1").await;
    couponctl(space, "dead replay").await;

    let outcomes = [api.settled(CampaignId(9), 1).await, api.settled(CampaignId(9), 2).await];
    assert!(matches!(outcomes[0], Outcome::Issued { .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::SoldOut, "first come, first served, in the order of their arrival");
    assert_eq!(space.queues.dead_letters().await, 0);
}

async fn poison_holds_nothing_up_while_dead_letters_cannot_be_kept(space: &TestSpace) {
    let campaign = space.campaign(2).await;
    let api = start_producer_api(space, &[]).await;
    start_consumer(space, &[]).await;
    space.queues.delete_dead().await;
    for _ in 0..3 {
        space.queues.publish(lapin::BasicProperties::default(), b"poison").await;
    }
    space.queues.publish_claim(&claim(campaign, 1)).await;

    claims_are_issued(&api, campaign, [1]).await;
    space.queues.declare().await;
}

async fn claims_of_a_producer_of_the_previous_version_are_settled(space: &TestSpace) {
    let campaign = space.campaign(1).await;
    start_consumer(space, &[]).await;

    let properties = lapin::BasicProperties::default().with_type("claims.v1".into());
    space.queues.publish(properties, &message::encode(&[claim(campaign, 1)]).unwrap()).await;

    let api = start_producer_api(space, &[]).await;
    assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
}
