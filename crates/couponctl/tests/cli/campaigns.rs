//! Campaigns, as an operator creates and changes them. Goal: each command has the effect it promises, never overwrites
//! a campaign that differs, and records in the history who made the change. Method: the campaigns that the program
//! shows.

use coupon_testkit::run;
use serde_json::json;

use crate::{ctl, ctl_json, fails};

#[tokio::test]
async fn a_campaign_is_created_shown_and_restocked() {
    run(async |space| {
        let create = "campaign create --id 7 --name Noon --coupons 120 --opens-at 2030-01-01T12:00:00+09:00";
        let noon = |coupons: u64| {
            json!([{
                "id": 7, "name": "Noon", "opens_at": "2030-01-01T03:00:00Z", "closes_at": null,
                "coupons": coupons, "paused": false, "issued": 0, "free": coupons, "not_loaded": 0,
            }])
        };

        assert_eq!(ctl_json(&space, create).await, noon(120));
        assert_eq!(ctl_json(&space, "campaign show --id 7").await, noon(120));
        assert_eq!(ctl_json(&space, "campaign add-coupons --id 7 --key second --coupons 30").await, noon(150));
        assert_eq!(ctl_json(&space, "campaign list").await, noon(150));
        let table = ctl(&space, "campaign list").await;
        assert!(table.stdout.contains("Noon") && table.stdout.contains("150"), "{table:?}");
        assert_eq!(ctl_json(&space, "campaign create --coupons 1").await[0]["id"], 8, "the next free number");
        ctl_json(&space, "campaign create --id 9007199254740991 --coupons 1").await;
        fails(&ctl(&space, "campaign create --coupons 1").await, 1, &["9007199254740991", "--id"]);
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_never_seen_without_the_first_of_its_coupons() {
    run(async |space| {
        space.sql("ALTER TABLE coupon ADD CONSTRAINT CHECK (campaign_id <> 7)").await;

        fails(&ctl(&space, "campaign create --id 7 --coupons 10").await, 1, &["MySQL"]);

        assert_eq!(ctl_json(&space, "campaign list").await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_campaign_can_be_paused_while_its_coupons_cannot_be_issued() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 7 --coupons 10").await;
        space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;

        assert_eq!(ctl_json(&space, "campaign pause --id 7").await[0]["paused"], true);
        assert_eq!(ctl_json(&space, "campaign list").await[0]["free"], 10);
    })
    .await;
}

#[tokio::test]
async fn a_campaign_that_differs_is_left_as_it_is() {
    run(async |space| {
        let before = ctl_json(&space, "campaign create --id 7 --name Noon --coupons 10").await;

        for (line, word) in [
            ("campaign create --id 7 --name Night --coupons 10", "--name"),
            ("campaign create --id 7 --name Noon --coupons 10 --opens-at 2030-01-01T12:00:00Z", "--opens-at"),
            (
                "campaign create --id 7 --name Noon --coupons 9",
                "--coupons (10 coupons); nothing was changed; `couponctl",
            ),
            ("campaign create --id 7 --name Night --coupons 9", "--coupons (10 coupons), --name; nothing was changed"),
            ("campaign add-coupons --id 8 --key more --coupons 1", "no campaign 8"),
            ("campaign add-coupons --id 8 --total 1", "no campaign 8"),
            ("campaign update --id 8 --name Night", "no campaign 8"),
            ("campaign pause --id 8", "no campaign 8"),
            ("campaign close --id 8", "no campaign 8"),
            ("campaign show --id 8", "no campaign 8"),
            ("campaign history --id 8", "no campaign 8"),
            ("audit --campaign 8", "no campaign 8"),
        ] {
            fails(&ctl(&space, line).await, 1, &[word]);
        }

        assert_eq!(ctl_json(&space, "campaign list").await, before);
    })
    .await;
}

#[tokio::test]
async fn a_campaign_is_changed_and_its_history_says_by_whom() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 7 --name Noon --coupons 120").await;
        for (line, field, value) in [
            ("campaign update --id 7 --name Night --opens-at 2030-01-01T12:00:00Z", "name", json!("Night")),
            ("campaign update --id 7 --closes-at 2030-01-02T12:00:00Z", "closes_at", json!("2030-01-02T12:00:00Z")),
            ("campaign update --id 7 --no-opens-at", "opens_at", json!(null)),
            ("campaign pause --id 7", "paused", json!(true)),
            ("campaign pause --id 7", "paused", json!(true)),
            ("campaign resume --id 7", "paused", json!(false)),
            ("campaign add-coupons --id 7 --key more --coupons 30", "coupons", json!(150)),
            ("campaign add-coupons --id 7 --key more --coupons 30", "coupons", json!(150)),
        ] {
            assert_eq!(ctl_json(&space, line).await[0][field], value, "{line}");
        }
        let closed = ctl_json(&space, "campaign close --id 7").await;
        assert!(closed[0]["closes_at"].as_str().unwrap() < "2030-01-01", "{closed}");
        assert_eq!(ctl_json(&space, "campaign close --id 7").await, closed, "it is closed already");
        assert!(ctl(&space, "campaign show --id 7").await.stdout.contains("closed"));
        let window = ctl(&space, "campaign update --id 7 --opens-at 2040-01-01T12:00:00Z").await;
        fails(&window, 1, &["--closes-at must be after --opens-at"]);
        assert_eq!(ctl_json(&space, "campaign update --id 7 --no-closes-at").await[0]["closes_at"], json!(null));

        let history = ctl_json(&space, "campaign history --id 7").await;
        let lines: Vec<(&str, &str, &str)> = history
            .as_array()
            .unwrap()
            .iter()
            .map(|line| {
                assert!(line["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
                assert!(line["who"].as_str().is_some_and(|who| who.contains('@')), "{line}");
                assert_eq!(line["campaign_id"], 7);
                (line["what"].as_str().unwrap(), line["old"].as_str().unwrap_or("-"), line["new"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            lines[..7],
            [
                ("create", "-", "name 'Noon', opens at -, closes at -, 120 coupons"),
                ("update", "name 'Noon', opens at -", "name 'Night', opens at 2030-01-01T12:00:00Z"),
                ("update", "closes at -", "closes at 2030-01-02T12:00:00Z"),
                ("update", "opens at 2030-01-01T12:00:00Z", "opens at -"),
                ("pause", "not paused", "paused"),
                ("resume", "paused", "not paused"),
                ("add-coupons", "120 coupons", "150 coupons, key more"),
            ]
        );
        let rest: Vec<&str> = lines[7..].iter().map(|(what, ..)| *what).collect();
        assert_eq!(rest, ["close", "update"], "a command that changes nothing has no line");
        let table = ctl(&space, "campaign history --id 7").await;
        assert_eq!(table.stdout.lines().count(), 1 + lines.len(), "{table:?}");
    })
    .await;
}

#[tokio::test]
async fn a_change_and_its_history_line_are_committed_together() {
    run(async |space| {
        ctl_json(&space, "campaign create --id 7 --coupons 10").await;
        space.sql("ALTER TABLE campaign_change ADD CONSTRAINT CHECK (what = 'create' AND campaign_id = 7)").await;

        for line in [
            "campaign pause --id 7",
            "campaign close --id 7",
            "campaign update --id 7 --name Night",
            "campaign add-coupons --id 7 --key more --coupons 5",
            "campaign add-coupons --id 7 --total 20",
            "campaign create --id 8 --coupons 5",
        ] {
            fails(&ctl(&space, line).await, 1, &["MySQL"]);
        }

        let left = ctl_json(&space, "campaign list").await;
        let noon = json!([{
            "id": 7, "name": "campaign", "opens_at": null, "closes_at": null,
            "coupons": 10, "paused": false, "issued": 0, "free": 10, "not_loaded": 0,
        }]);
        assert_eq!(left, noon);
    })
    .await;
}
