//! Messages as they come in bad days: twice, late, or not claims at all. Goal: processing is idempotent, and what cannot
//! be processed is kept for an operator and holds nothing up.

use coupon_core::{Outcome, broker};
use coupon_testkit::{TestSpace, eventually};

use crate::system::{audited, claim, start_consumer, start_producer_api};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_delivered_again_issues_nothing_more() {
    audited(async |space| delivered_again(space, "500").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_delivered_again_issues_nothing_more_one_by_one() {
    audited(async |space| delivered_again(space, "1").await).await;
}

async fn delivered_again(space: &TestSpace, batch_max: &str) {
    let campaign = space.campaign(10).await;
    let api = start_producer_api(space, &[]).await;
    for account in [1, 1, 2, 1] {
        space.queues.publish_claim(&claim(campaign, account)).await;
    }

    start_consumer(space, &[("batch-max", batch_max)]).await;

    let first = api.settled(campaign, 1).await;
    // Again for accounts that hold a coupon; the one consumer takes what was published last after all of these.
    for account in [1, 2, 2, 1, 3] {
        space.queues.publish_claim(&claim(campaign, account)).await;
    }
    for account in [2, 3] {
        assert!(matches!(api.settled(campaign, account).await, Outcome::Issued { .. }));
    }
    assert_eq!(api.settled(campaign, 1).await, first, "a coupon never changes");
    assert_eq!(space.issued(campaign).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_holds_nothing_up() {
    audited(async |space| {
        let campaign = space.campaign(10).await;
        let api = start_producer_api(space, &[]).await;
        let good = broker::encode(&[claim(campaign, 100)]).unwrap();
        let properties = || broker::properties(std::iter::empty());
        let poison = [
            (properties(), &b"garbage"[..]),
            (properties(), b""),
            (properties(), b"[{\"campaign_id\":1}]"),
            (properties(), b"[{\"campaign_id\":1,\"account_id\":-1,\"accepted_at_ms\":0}]"),
            (properties().with_type("claims.v9".into()), &good),
            (lapin::BasicProperties::default(), &good),
        ];
        for (account, (properties, body)) in (1..).zip(&poison) {
            space.queues.publish(properties.clone(), body).await;
            space.queues.publish_claim(&claim(campaign, account)).await;
        }

        start_consumer(space, &[]).await;

        for account in 1..=6 {
            assert!(matches!(api.settled(campaign, account).await, Outcome::Issued { .. }));
        }
        eventually("the poison is among the dead letters", async || space.queues.dead_letters().await == 6).await;
        assert!(!space.report().await.clean, "the audit tells of dead letters");
        let mut dead = space.queues.take_dead_letters().await;
        let mut sent: Vec<Vec<u8>> = poison.iter().map(|(_, body)| body.to_vec()).collect();
        dead.sort();
        sent.sort();
        assert_eq!(dead, sent, "kept as they were");
        assert_eq!(space.issued(campaign).await, 6, "a claim of the wrong type was not taken for one");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_campaigns_that_are_gone_are_sold_out() {
    audited(async |space| {
        let campaign = space.campaign(1).await;
        start_consumer(space, &[]).await;

        space.queues.publish_claim(&claim(coupon_core::CampaignId(404), 1)).await;
        space.queues.publish_claim(&claim(campaign, 1)).await;

        let api = start_producer_api(space, &[]).await;
        assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
    })
    .await;
}
