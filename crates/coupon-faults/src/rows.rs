//! Reads what MySQL holds at the end, and audits it with SQL of its own, independent of `couponctl`'s audit, so that
//! the two cannot share a mistake.

use std::collections::BTreeMap;

use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};
use mysql_async::prelude::Queryable;
use serde::Serialize;
use uuid::Uuid;

use crate::stage::Stage;

/// Statements that count violations, each with what it counts.
const NONE_OF: [(&str, &str); 7] = [
    (
        "accounts with two coupons of a campaign",
        "SELECT COUNT(*) FROM (SELECT 1 FROM coupon WHERE account_id IS NOT NULL \
         GROUP BY campaign_id, account_id HAVING COUNT(*) > 1) AS twice",
    ),
    (
        "coupons in two campaigns",
        "SELECT COUNT(*) FROM (SELECT 1 FROM coupon GROUP BY id HAVING COUNT(DISTINCT campaign_id) > 1) AS twice",
    ),
    (
        "campaigns whose number of coupons differs from their record",
        "SELECT COUNT(*) FROM campaign WHERE coupons <> (SELECT COUNT(*) FROM coupon WHERE campaign_id = campaign.id)",
    ),
    ("coupons without a campaign", "SELECT COUNT(*) FROM coupon WHERE campaign_id NOT IN (SELECT id FROM campaign)"),
    ("coupons of account 0", "SELECT COUNT(*) FROM coupon WHERE account_id = 0"),
    ("unfinished additions of coupons", "SELECT COUNT(*) FROM coupon_load WHERE loaded <> coupons"),
    (
        "campaigns with more issued than they have",
        "SELECT COUNT(*) FROM campaign WHERE coupons < \
         (SELECT COUNT(account_id) FROM coupon WHERE campaign_id = campaign.id)",
    ),
];

/// A campaign's rows.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Stock {
    /// The number of coupons in the campaign's own row.
    pub coupons: u64,
    /// Rows of coupons.
    pub rows: u64,
    /// Rows with an account.
    pub issued: u64,
}

/// Everything that MySQL holds.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The coupon that each account holds.
    pub held: Vec<(ClaimKey, CouponId)>,
    /// The stock of each campaign, by its number.
    pub stocks: BTreeMap<u64, Stock>,
    /// The violations counted.
    pub wrong: Vec<(&'static str, u64)>,
}

/// Reads all rows.
///
/// # Errors
/// An error of MySQL.
pub async fn read(stage: &Stage) -> anyhow::Result<Rows> {
    // A run has many rows, so this has no deadline.
    let mysql = &stage.space.servers().mysql;
    let options = coupon_core::mysql::reach(&mysql.mysql_url, &mysql.tls);
    let mut conn = mysql_async::Conn::new(options).await?;
    let held: Vec<(u64, u64, Uuid)> =
        conn.query("SELECT campaign_id, account_id, id FROM coupon WHERE account_id IS NOT NULL").await?;
    let stocks: Vec<(u64, u64, u64, u64)> = conn
        .query(
            "SELECT campaign.id, campaign.coupons, COUNT(coupon.id), COUNT(coupon.account_id) FROM campaign \
             LEFT JOIN coupon ON coupon.campaign_id = campaign.id GROUP BY campaign.id, campaign.coupons",
        )
        .await?;
    let mut wrong = Vec::new();
    for (what, count) in NONE_OF {
        let count: Option<u64> = conn.query_first(count).await?;
        wrong.push((what, count.unwrap_or(0)));
    }
    conn.disconnect().await?;
    let claim = |campaign, account| ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
    Ok(Rows {
        held: held.into_iter().map(|(campaign, account, id)| (claim(campaign, account), CouponId(id))).collect(),
        stocks: stocks.into_iter().map(|(id, coupons, rows, issued)| (id, Stock { coupons, rows, issued })).collect(),
        wrong,
    })
}
