//! How fast MySQL issues coupons, with the statements of each way.

use std::time::{Duration, Instant};

use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId};

use super::{BATCH, together};
use crate::lab::campaigns::make_campaign;

/// Claims in a statement of skiplock-api.
const GROUP: usize = 128;

/// Ids read ahead for these statements.
const READ_AHEAD: usize = 500;

/// Coupons per second, issued in batches with known ids, like those of consumers, each of which has other ids.
pub async fn update(mysql: &Mysql, connections: usize, time: Duration) -> anyhow::Result<f64> {
    let coupons = 200_000;
    let campaign = make_campaign(mysql, "ceiling of the UPDATE", coupons).await?;
    let all = Wanted { campaign_id: campaign, count: usize::try_from(coupons)?, after: None };
    let ids = coupons::free_coupons(&mut mysql.connection().await?, all).await?;
    let claim = |n| ClaimKey { campaign_id: campaign, account_id: AccountId(n) };
    let rows: Vec<(ClaimKey, CouponId)> = (1..).zip(ids).map(|(n, id)| (claim(n), id)).collect();
    let began = Instant::now();
    let shares = rows.chunks(rows.len().div_ceil(connections)).map(|share| {
        let (mysql, share) = (mysql.clone(), share.to_vec());
        async move {
            let mut conn = mysql.connection().await?;
            let mut issued = 0;
            for batch in share.chunks(BATCH).take_while(|_| began.elapsed() < time) {
                coupons::issue(&mut conn, batch).await?;
                issued += conn.affected_rows();
            }
            Ok(issued)
        }
    });
    together(shares).await
}

/// Coupons per second, issued in groups with ids read ahead that skip locked rows, like those of skiplock-api. Each
/// connection has a campaign of its own, because concurrent groups take different ids.
pub async fn skip_locked(mysql: &Mysql, connections: usize, time: Duration) -> anyhow::Result<f64> {
    let mut campaigns = Vec::new();
    for _ in 0..connections {
        campaigns.push(make_campaign(mysql, "ceiling of SKIP LOCKED", 100_000).await?);
    }
    let began = Instant::now();
    together(campaigns.into_iter().map(|campaign| issue_ahead(mysql.clone(), campaign, began, time))).await
}

async fn issue_ahead(mysql: Mysql, campaign_id: CampaignId, began: Instant, time: Duration) -> anyhow::Result<u64> {
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
