//! How the server runs the statements of the hot paths. Goal: each uses its index, sorts nothing and locks only what it
//! returns, because a statement that locks more makes others answer "sold out" while coupons are free. Method: EXPLAIN
//! of every statement of `coupon_core::mysql::sql` on a table in the middle of a sale, and concurrent transactions.

use std::collections::{HashMap, HashSet};

use coupon_core::mysql::coupons;
use coupon_core::mysql::sql::{self, Wanted};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};
use coupon_testkit::TestSpace;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use uuid::Uuid;

const INDEX: &str = "coupon_campaign_account";

/// The batch sizes to try.
const SIZES: [usize; 3] = [1, 10, 500];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_uses_its_index() {
    coupon_testkit::run(async |space| {
        let campaign = a_sale(&space).await;
        let mut conn = space.mysql().connection().await.unwrap();
        let coupons: Vec<Uuid> = conn.query(sql::free_coupons(wanted(campaign, 500))).await.unwrap();
        // The server shows no plan for a campaign that does not exist, so a real one takes its place.
        let of_sale = |statement: &str| statement.replace("id = 0", &format!("id = {campaign}"));
        for (statement, keys) in [(sql::READ_NOTHING, &["PRIMARY", "PRIMARY"][..]), (sql::ISSUE_NOTHING, &["PRIMARY"])]
        {
            assert_eq!(plan(&mut conn, &of_sale(statement)).await, keys, "{statement}");
            assert!(plan(&mut conn, statement).await.iter().all(|key| key == "PRIMARY"), "{statement}");
        }
        let all: Vec<CampaignId> = (1_000..1_500).map(CampaignId).collect();
        for size in SIZES {
            let claims: Vec<ClaimKey> =
                (1..=size as u64).map(|n| ClaimKey { campaign_id: campaign, account_id: AccountId(n * 7) }).collect();
            let issued: Vec<(ClaimKey, CouponId)> =
                coupons.iter().take(size).zip(&claims).map(|(id, claim)| (*claim, CouponId(*id))).collect();
            let wanted = wanted(campaign, size);
            let after = Wanted { after: Some(CouponId(Uuid::from_u128(1 << 127))), ..wanted };
            for (statement, keys) in [
                (sql::campaigns_with_stock(&all[..size]), &["PRIMARY", INDEX][..]),
                (sql::CAMPAIGN.replace('?', &campaign.to_string()), &["PRIMARY"]),
                (sql::coupons_of(&claims), &[INDEX]),
                (sql::WINNERS.replace('?', "100"), &[INDEX]),
                (sql::FORGET.replace('?', "1"), &["PRIMARY"]),
                (sql::issue(&issued), &["PRIMARY"]),
                (sql::issue_all(&issued), &["PRIMARY"]),
                (sql::issue_skip_locked(&issued), &["PRIMARY", "PRIMARY"]),
                (sql::free_coupons(wanted), &[INDEX]),
                (sql::free_coupons(after), &["PRIMARY"]),
                (sql::free_coupon_at(campaign, size), &[INDEX]),
                (sql::lock_free_coupons(wanted), &[INDEX]),
                (sql::lock_free_coupons(after), &["PRIMARY"]),
                (sql::lock_first_coupon(campaign), &[INDEX]),
                (sql::ISSUE_ONE.replace('?', "1"), &["PRIMARY"]),
                (sql::CLAIM_ONE.replace('?', "1"), &["PRIMARY", INDEX]),
            ] {
                assert_eq!(plan(&mut conn, &statement).await, keys, "{size}: {statement:.200}");
            }
        }
    })
    .await;
}

/// The keys that the server uses for our tables, none of which it may scan or sort. (MariaDB turns a long list of
/// values into a table of its own and scans that.)
async fn plan(conn: &mut Conn, statement: &str) -> Vec<String> {
    let rows: Vec<Row> = conn.query(format!("EXPLAIN FORMAT=TRADITIONAL {statement}")).await.unwrap();
    let text = |row: &Row, column: &str| row.get::<Option<String>, _>(column).flatten().unwrap_or_default();
    let ours = |row: &&Row| ["campaign", "coupon"].contains(&text(row, "table").as_str());
    for row in rows.iter().filter(ours) {
        let (access, extra) = (text(row, "type"), text(row, "Extra"));
        assert!(!["ALL", "index"].contains(&access.as_str()), "a full scan: {row:?} of {statement:.200}");
        for bad in ["filesort", "temporary", "join buffer"] {
            assert!(!extra.contains(bad), "{row:?} of {statement:.200}");
        }
    }
    rows.iter().filter(ours).map(|row| text(row, "key")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_fit_in_one_statement_are_written_for_any_accounts() {
    coupon_testkit::run(async |space| {
        let mut conn = space.mysql().connection().await.unwrap();
        let count = sql::ROWS_MAX + 10;
        for how in ["row by row", "skip locked", "in order"] {
            let campaign = space.campaign(count).await;
            let ids = coupons::free_coupons(&mut conn, wanted(campaign, count)).await.unwrap();
            // A server gives a column of literals a single type, which must fit the largest and the smallest number.
            let account_id = |n| AccountId(if n % 2 == 0 { n } else { u64::MAX - n });
            let claims = (1..).map(|n| ClaimKey { campaign_id: campaign, account_id: account_id(n) });
            let rows: Vec<(ClaimKey, CouponId)> = claims.zip(ids).collect();

            let all = match how {
                "row by row" => coupons::issue(&mut conn, &rows).await,
                "skip locked" => coupons::issue_skip_locked(&mut conn, &rows).await,
                _ => coupons::issue_in_order(&mut conn, &rows).await,
            };
            let all = all.unwrap();

            assert!(all || conn.server_version() >= (10, 0, 0), "only MariaDB may be unable to confirm all rows");
            let claims: Vec<ClaimKey> = rows.iter().map(|(claim, _)| *claim).collect();
            let held = coupons::coupons_of(&mut conn, &claims).await.unwrap();
            assert_eq!(held, rows.into_iter().collect::<HashMap<_, _>>());
            assert_eq!(held.len(), count);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_nothing_is_written_if_one_coupon_or_account_is_taken() {
    coupon_testkit::run(async |space| {
        let mut conn = space.mysql().connection().await.unwrap();
        let campaign = space.campaign(3).await;
        let [taken, second, third] = coupons::free_coupons(&mut conn, wanted(campaign, 3)).await.unwrap()[..] else {
            panic!("three free coupons")
        };
        let claim = |account| ClaimKey { campaign_id: campaign, account_id: AccountId(account) };
        assert!(coupons::issue_in_order(&mut conn, &[(claim(1), taken)]).await.unwrap());

        for rows in [
            &[(claim(3), taken)][..],
            &[(claim(2), second), (claim(3), taken)],
            &[(claim(AccountId::MAX.0), second), (claim(3), taken)],
            &[(claim(2), second), (claim(1), third)],
        ] {
            assert!(!coupons::issue_in_order(&mut conn, rows).await.unwrap(), "{rows:?}");
            assert_eq!(space.issued(campaign).await, 1, "{rows:?}");
        }

        assert!(coupons::issue_in_order(&mut conn, &[(claim(2), second), (claim(3), third)]).await.unwrap());
        let held = coupons::coupons_of(&mut conn, &[claim(1), claim(2), claim(3)]).await.unwrap();
        assert_eq!(held, HashMap::from([(claim(1), taken), (claim(2), second), (claim(3), third)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_free_coupons_needs_nothing_but_the_index() {
    coupon_testkit::run(async |space| {
        let campaign = a_sale(&space).await;
        let mut conn = space.mysql().connection().await.unwrap();
        let wanted = wanted(campaign, 10);
        for statement in [sql::free_coupons(wanted), sql::lock_free_coupons(wanted)] {
            let rows: Vec<Row> = conn.query(format!("EXPLAIN FORMAT=TRADITIONAL {statement}")).await.unwrap();
            let extra: String = rows[0].get("Extra").unwrap();
            assert!(extra.contains("Using index"), "{extra} of {statement}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_locked_locks_what_it_returns_and_no_more() {
    coupon_testkit::run(async |space| {
        let campaign = a_sale(&space).await;
        let mut free: Vec<HashSet<Uuid>> = Vec::new();
        let mut held = Vec::new();

        // Each transaction holds the rows that it was given; the last one takes all that are left.
        for limit in [10, 1, 500, 10, 5_000] {
            let mut conn = space.mysql().connection().await.unwrap();
            conn.query_drop("START TRANSACTION").await.unwrap();
            free.push(lock(&mut conn, wanted(campaign, limit)).await);
            held.push(conn);
        }

        let sizes: Vec<usize> = free.iter().map(HashSet::len).collect();
        assert_eq!(sizes, [10, 1, 500, 10, 2_000 - 521], "no transaction found nothing free");
        let different: HashSet<Uuid> = free.into_iter().flatten().collect();
        assert_eq!(different.len(), 2_000, "no row was given twice");
        for conn in held {
            conn.disconnect().await.unwrap();
        }
    })
    .await;
}

/// Gap locks would make adding coupons wait for transactions that hold the rows next to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_restock_waits_for_no_claim() {
    coupon_testkit::run(async |space| {
        let campaign = a_sale(&space).await;
        let mut conn = space.mysql().connection().await.unwrap();
        conn.query_drop("START TRANSACTION").await.unwrap();
        let held = lock(&mut conn, wanted(campaign, 5_000)).await;
        assert_eq!(held.len(), 2_000);

        space.add_coupons(campaign, 500).await;

        let mut other = space.mysql().connection().await.unwrap();
        let fresh = lock(&mut other, wanted(campaign, 5_000)).await;
        assert_eq!(fresh.len(), 500);
        conn.disconnect().await.unwrap();
    })
    .await;
}

fn wanted(campaign_id: CampaignId, count: usize) -> Wanted {
    Wanted { campaign_id, count, after: None }
}

async fn lock(conn: &mut Conn, wanted: Wanted) -> HashSet<Uuid> {
    let ids: Vec<Uuid> = conn.query(sql::lock_free_coupons(wanted)).await.unwrap();
    ids.into_iter().collect()
}

/// A campaign with 2,000 coupons issued and 2,000 free, and other campaigns around it.
async fn a_sale(space: &TestSpace) -> CampaignId {
    for _ in 0..2 {
        space.campaign(1_000).await;
    }
    let campaign = space.campaign(4_000).await;
    let ids: Vec<String> = (1_000..6_000).map(|id| format!("({id}, 'another')")).collect();
    space.sql(format!("INSERT INTO campaign (id, name) VALUES {}", ids.join(","))).await;
    let mut conn = space.mysql().connection().await.unwrap();
    conn.query_drop("SET @account = 0").await.unwrap();
    let issue = format!(
        "UPDATE coupon SET account_id = (@account := @account + 1) \
         WHERE campaign_id = {campaign} AND account_id IS NULL LIMIT 2000"
    );
    conn.query_drop(issue).await.unwrap();
    conn.query_drop("ANALYZE TABLE campaign, coupon").await.unwrap();
    campaign
}
