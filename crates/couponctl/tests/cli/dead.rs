//! `couponctl dead`. Goal: an operator learns why a message could not be handled, and decides what to do with it;
//! nothing is lost on the way. Method: dead letters of each kind in the queue of the test's own installation.

use coupon_core::rabbitmq::message::{self, Message};
use coupon_core::{AccountId, CampaignId, Claim, InstallationId};
use coupon_testkit::{TestSpace, eventually, run};
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::{ctl, ctl_json, fails};

const POISON: &[u8] = b"a letter\x1b[2J";

fn claims() -> Vec<Claim> {
    let claim = |account_id| Claim { campaign_id: CampaignId(7), account_id, accepted_at_ms: 5 };
    vec![claim(AccountId(1)), claim(AccountId::MAX)]
}

/// Publishes claims of ours, claims of another installation, and a message without claims. Returns the ids in this
/// order.
async fn three_letters(space: &TestSpace) -> [String; 3] {
    space.queues.declare().await;
    let (ours, theirs) = (space.installation().id, InstallationId(uuid::Uuid::new_v4()));
    let (body, one) = (message::encode(&claims()).unwrap(), message::encode(&claims()[..1]).unwrap());
    space.queues.publish_dead_letter(message::dead_letter_properties(ours, "no such campaign"), &body).await;
    space.queues.publish_dead_letter(message::dead_letter_properties(theirs, "not ours"), &one).await;
    let poison = message::poison_properties(&BasicProperties::default(), "it has no type");
    space.queues.publish_dead_letter(poison, POISON).await;

    let listed = ctl_json(space, "dead list").await;
    let id = |letter: usize| listed["dead_letters"][letter]["id"].as_str().unwrap().to_owned();
    [id(0), id(1), id(2)]
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown_with_the_reason() {
    run(async |space| {
        let [ours, _, poison] = three_letters(&space).await;

        let table = ctl(&space, "dead list").await;
        let listed = ctl_json(&space, "dead list --limit 1").await;
        assert_eq!(ctl(&space, "dead list").await.stdout, table.stdout, "the letters keep their order");
        let one = ctl_json(&space, &format!("dead show {ours}")).await;
        let shown = ctl(&space, &format!("dead show {poison}")).await;
        let whole = ctl_json(&space, &format!("dead show {poison}")).await;

        assert!(table.stdout.ends_with("\n3 dead letters\n"), "{table:?}");
        for words in [&ours[..], "no such campaign", "not ours", "it has no type"] {
            assert!(table.stdout.contains(words), "{words} is missing: {table:?}");
        }
        let first = json!({ "id": ours, "reason": "no such campaign", "claims": 2, "campaigns": [7] });
        assert_eq!(listed, json!({ "dead_letters": [first], "more": 2 }));
        assert_eq!(
            one["claims"][1],
            json!({ "campaign_id": 7, "account_id": "9223372036854775807", "accepted_at_ms": 5 }),
            "{one}"
        );
        assert_eq!((&one["type"], &one["claims"][0]["account_id"]), (&json!("claims.v2"), &json!(1)), "{one}");
        assert_eq!(
            (&whole["body_base64"], &whole["headers"]["x-reason"]),
            (&json!("YSBsZXR0ZXIbWzJK"), &whole["reason"])
        );
        assert!(shown.stdout.contains("a letter\\u{1b}[2J"), "a terminal must not act on it: {shown:?}");
        let (first, second) = tokio::join!(ctl(&space, "dead list"), ctl(&space, "dead list"));
        assert_eq!(
            (&first.stdout, &second.stdout),
            (&table.stdout, &table.stdout),
            "one at a time: {first:?} {second:?}"
        );
        eventually("all are back where they were", async || space.queues.dead_letters().await == 3).await;
        let same = message::poison_properties(&BasicProperties::default(), "of another type");
        space.queues.publish_dead_letter(same, POISON).await;
        let both = ctl(&space, &format!("dead show {poison}")).await;
        assert!(both.stdout.contains("it has no type") && both.stdout.contains("of another type"), "{both:?}");
        space.queues.take_dead_letters().await;
    })
    .await;
}

#[tokio::test]
async fn our_own_claims_are_replayed_and_the_rest_stays() {
    run(async |space| {
        let [ours, theirs, poison] = three_letters(&space).await;

        let not_theirs = ctl_json(&space, &format!("dead replay {theirs}")).await;
        assert_eq!(space.queues.waiting().await, 0);
        let done = ctl_json(&space, "dead replay").await;

        assert_eq!(not_theirs, json!({ "messages": 0, "claims": 0, "kept": 1 }));
        assert_eq!(done, json!({ "messages": 1, "claims": 2, "kept": 2 }));
        let waiting = space.queues.take_claims().await;
        let [(properties, body)] = &waiting[..] else { panic!("{waiting:?}") };
        let installation = Some(space.installation().id);
        let whole = Message { installation, instance: None, claims: claims() };
        assert_eq!(message::decode(properties, body).unwrap(), whole);
        assert_eq!(left(&space).await, [theirs, poison]);
        fails(&ctl(&space, &format!("dead show {ours}")).await, 1, &[&ours]);
        space.queues.take_dead_letters().await;
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_deleted_only_after_confirmation() {
    run(async |space| {
        let [ours, theirs, poison] = three_letters(&space).await;

        fails(&ctl(&space, "dead purge").await, 2, &["--yes"]);
        fails(&ctl(&space, "dead purge --yes 5d41").await, 2, &["<ID>", "12 hexadecimal digits", "dead list"]);
        fails(&ctl(&space, "dead show 5d41").await, 2, &["<ID> = '5d41'", "an example is: couponctl dead show"]);
        fails(&ctl(&space, "dead show").await, 2, &["<ID>", "an example is: couponctl dead show"]);
        assert_eq!(left(&space).await, [ours.clone(), theirs.clone(), poison.clone()]);
        let gone = ctl_json(&space, &format!("dead purge --yes {poison} {ours}")).await;
        assert_eq!(gone, json!({ "messages": 2, "claims": 2 }));
        assert_eq!(left(&space).await, [theirs]);
        fails(&ctl(&space, &format!("dead purge --yes {poison}")).await, 1, &[&poison]);
        fails(&ctl(&space, &format!("dead replay {poison}")).await, 1, &[&poison]);
        ctl_json(&space, "dead purge --yes").await;

        assert_eq!(left(&space).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn an_installation_without_queues_has_no_dead_letters_to_list() {
    run(async |space| {
        let listed = ctl(&space, "dead list").await;

        fails(&listed, 1, &["has no queue ", ".claims.dead", "--namespace"]);
        space.queues.declare().await;
    })
    .await;
}

async fn left(space: &TestSpace) -> Vec<String> {
    let Value::Array(letters) = ctl_json(space, "dead list").await["dead_letters"].take() else { panic!("no list") };
    letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
}
