//! How fast MySQL issues coupons, with the statements of each way.

use std::time::{Duration, Instant};

use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};
use tokio::task::JoinSet;

use super::BATCH;
use crate::lab::campaigns::make_campaign;

/// Claims in a statement of skiplock-api.
const GROUP: usize = 128;

/// Statements at the same time.
const GROUPS: usize = 2;

/// Ids read ahead for these statements.
const READ_AHEAD: usize = 500;

/// Coupons per second, issued in batches with known ids, like those of a consumer.
pub async fn update(mysql: &Mysql, time: Duration) -> anyhow::Result<f64> {
    let coupons = 200_000;
    let campaign = make_campaign(mysql, "ceiling of the UPDATE", coupons).await?;
    let mut conn = mysql.connection().await?;
    let all = Wanted { campaign_id: campaign, count: usize::try_from(coupons)?, after: None };
    let ids = coupons::free_coupons(&mut conn, all).await?;
    let began = Instant::now();
    let mut issued = 0;
    for (batch, ids) in ids.chunks(BATCH).enumerate() {
        if began.elapsed() > time {
            break;
        }
        let claim = |n| ClaimKey { campaign_id: campaign, account_id: AccountId(1 + (batch * BATCH) as u64 + n) };
        let rows: Vec<(ClaimKey, CouponId)> = (0..).zip(ids).map(|(n, id)| (claim(n), *id)).collect();
        coupons::issue(&mut conn, &rows).await?;
        issued += conn.affected_rows();
    }
    Ok(issued as f64 / began.elapsed().as_secs_f64())
}

/// Coupons per second, issued in groups with ids read ahead that skip locked rows, like those of skiplock-api. Each
/// connection has a campaign of its own, because concurrent groups take different ids.
pub async fn skip_locked(mysql: &Mysql, time: Duration) -> anyhow::Result<f64> {
    let mut running = JoinSet::new();
    let mut campaigns = Vec::new();
    for _ in 0..GROUPS {
        campaigns.push(make_campaign(mysql, "ceiling of SKIP LOCKED", 100_000).await?);
    }
    let began = Instant::now();
    for campaign in campaigns {
        let mysql = mysql.clone();
        running.spawn(async move { issue_ahead(&mysql, campaign, began, time).await });
    }
    let mut issued = 0;
    while let Some(ended) = running.join_next().await {
        issued += ended??;
    }
    Ok(issued as f64 / began.elapsed().as_secs_f64())
}

async fn issue_ahead(mysql: &Mysql, campaign_id: CampaignId, began: Instant, time: Duration) -> anyhow::Result<u64> {
    let mut conn = mysql.connection().await?;
    let mut wanted = Wanted { campaign_id, count: READ_AHEAD, after: None };
    let mut account = 0;
    let mut issued = 0;
    while began.elapsed() < time {
        let ids = coupons::free_coupons_of_nobody(&mut conn, wanted).await?;
        wanted.after = ids.last().copied();
        if ids.is_empty() {
            break;
        }
        for ids in ids.chunks(GROUP) {
            let mut next = || {
                account += 1;
                ClaimKey { campaign_id, account_id: AccountId(account) }
            };
            let rows: Vec<(ClaimKey, CouponId)> = ids.iter().map(|id| (next(), *id)).collect();
            coupons::issue_skip_locked(&mut conn, &rows).await?;
            issued += conn.affected_rows();
        }
    }
    Ok(issued)
}
