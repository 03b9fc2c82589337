//! `couponctl forget`. Goal: the account's number is stored nowhere any more, and everything else is as it was. Method:
//! an account with coupons, outcomes and dead letters next to another one; then a search through everything stored.

use coupon_core::audit::{self, Answers};
use coupon_core::mysql::coupons;
use coupon_core::rabbitmq::message;
use coupon_core::redis::keys;
use coupon_core::{AccountId, CampaignId, Claim, ClaimKey, CouponId, Outcome};
use coupon_testkit::{TestSpace, run};
use deadpool_redis::redis::AsyncCommands;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::{ctl, ctl_json, fails};

const GONE: AccountId = AccountId(4_242_424_242);
const OTHER: AccountId = AccountId(7);

#[tokio::test]
async fn a_forgotten_account_is_stored_nowhere_any_more() {
    run(async |space| {
        space.queues.declare().await;
        let campaigns = [space.campaign(3).await, space.campaign(1).await, space.campaign(1).await];
        for (campaign, account) in [(campaigns[0], GONE), (campaigns[0], OTHER), (campaigns[1], GONE)] {
            issue(&space, campaign, account).await;
        }
        let forget = format!("forget --account {GONE}");
        let claims = campaigns.map(|campaign_id| ClaimKey { campaign_id, account_id: GONE });
        let mut conn = space.mysql().connection().await.unwrap();
        let given = coupons::coupons_of(&mut conn, &claims).await.unwrap();
        drop(conn);

        let done = ctl_json(&space, &forget).await;
        let again = ctl(&space, &forget).await;

        let nothing = serde_json::json!(0);
        assert_eq!((&done["coupons"], &done["outcomes"]), (&2.into(), &2.into()), "{done}");
        assert_eq!(done["messages_not_looked_into"], nothing);
        assert!(again.stdout.contains("0 coupons, 0 outcomes"), "it can be run again: {again:?}");
        let accounts = accounts(&space).await;
        assert_eq!(accounts.len(), 3, "the coupons stay issued");
        let of_nobody = accounts.iter().filter(|account| **account > AccountId::MAX.0).count();
        assert_eq!((of_nobody, accounts.contains(&OTHER.0)), (2, true), "{accounts:?}");
        let kept: Vec<String> = space.redis().keys(keys::all(space.installation())).await.unwrap();
        assert!(kept.iter().all(|key| !key.contains(&GONE.to_string())), "{kept:?}");
        assert!(kept.contains(&outcome(&space, campaigns[0], OTHER)), "{kept:?}");
        let history = ctl(&space, &format!("campaign history --id {}", campaigns[1])).await;
        assert!(history.stdout.contains("forget") && !history.stdout.contains(&GONE.to_string()), "{history:?}");
        let mut answers = Answers::default();
        answers.outcomes.extend(given.into_iter().map(|(claim, coupon_id)| (claim, Outcome::Issued { coupon_id })));
        let report = audit::audit(space.mysql(), None, answers, None).await.unwrap();
        assert!(report.clean, "what was answered to an account that is forgotten was right: {report:?}");
        space.audit().await;
    })
    .await;
}

#[tokio::test]
async fn an_account_is_not_forgotten_while_dead_letters_could_bring_it_back() {
    run(async |space| {
        space.queues.declare().await;
        let campaign = space.campaign(1).await;
        issue(&space, campaign, GONE).await;
        let claim = Claim { campaign_id: CampaignId(404), account_id: GONE, accepted_at_ms: 0 };
        let properties = message::dead_letter_properties(space.installation().id, "no such campaign");
        space.queues.publish_dead_letter(properties, &message::encode(&[claim]).unwrap()).await;

        let away = ctl(&space, &format!("--redis-url redis://127.0.0.1:1/0 forget --account {GONE}")).await;
        let refused = ctl(&space, &format!("forget --account {GONE}")).await;

        fails(&away, 1, &["nothing was changed", "Redis"]);
        fails(&refused, 1, &["nothing was changed", "couponctl dead purge --yes "]);
        assert_eq!(accounts(&space).await, [GONE.0]);
        ctl_json(&space, "dead purge --yes").await;
        assert_eq!(ctl_json(&space, &format!("forget --account {GONE}")).await["coupons"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_read_is_searched_for_the_number() {
    run(async |space| {
        space.queues.declare().await;
        let publish = async |body: String| {
            let properties = message::dead_letter_properties(space.installation().id, "of a later version");
            space.queues.publish_dead_letter(properties.with_type("claims.v9".into()), body.as_bytes()).await;
        };
        publish(format!("[{{\"account\":{OTHER}{GONE}}}]")).await;
        let others = ctl(&space, &format!("forget --account {GONE}")).await;
        publish(format!("[{{\"account\":{GONE}}}]")).await;
        let refused = ctl(&space, &format!("forget --account {GONE}")).await;

        assert_eq!(others.code, Some(0), "the number is part of another: {others:?}");
        fails(&refused, 1, &["nothing was changed", "couponctl dead purge --yes "]);
        ctl_json(&space, "dead purge --yes").await;
    })
    .await;
}

/// Issues a coupon, and records the outcome the way a consumer does.
async fn issue(space: &TestSpace, campaign: CampaignId, account: AccountId) {
    let claim = ClaimKey { campaign_id: campaign, account_id: account };
    let find = "SELECT id FROM coupon WHERE campaign_id = ? AND account_id IS NULL LIMIT 1";
    let find = find.replace('?', &campaign.to_string());
    let issued = space.mysql().run(async move |mut conn: Conn| {
        let id: Option<uuid::Uuid> = conn.query_first(find).await?;
        let coupon = CouponId(id.unwrap());
        coupons::issue(&mut conn, &[(claim, coupon)]).await?;
        Ok(coupon)
    });
    let coupon = issued.await.unwrap();
    space.redis().set::<_, _, ()>(outcome(space, campaign, account), coupon.0.as_bytes()).await.unwrap();
}

/// The accounts that hold coupons.
async fn accounts(space: &TestSpace) -> Vec<u64> {
    let mut conn = space.mysql().connection().await.unwrap();
    conn.query("SELECT account_id FROM coupon WHERE account_id IS NOT NULL").await.unwrap()
}

fn outcome(space: &TestSpace, campaign: CampaignId, account: AccountId) -> String {
    keys::outcome(space.installation(), ClaimKey { campaign_id: campaign, account_id: account })
}
