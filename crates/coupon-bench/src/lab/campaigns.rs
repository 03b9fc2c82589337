//! The campaigns of an experiment, each with its coupons.

use anyhow::Context;
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId};

use crate::crowd::Campaigns;

/// Creates a campaign with this many coupons.
pub async fn make_campaign(mysql: &Mysql, name: &str, coupons: u64) -> anyhow::Result<CampaignId> {
    Ok(make_campaigns(mysql, name, 1, coupons).await?.first)
}

/// Creates campaigns with consecutive ids, which together have this many coupons.
pub async fn make_campaigns(mysql: &Mysql, name: &str, count: u64, coupons: u64) -> anyhow::Result<Campaigns> {
    let made = insert(mysql, name, count).await?;
    for (n, id) in (0..).zip(made.ids()) {
        let coupons = coupons / count + u64::from(n < coupons % count);
        loads::add_in_chunks(mysql, id, coupons, &Limit::Stock(coupons), |_| {}).await?;
    }
    Ok(made)
}

/// Takes the ids under the operators' lock, and releases it so that others need not wait for it while coupons are
/// loaded.
async fn insert(mysql: &Mysql, name: &str, count: u64) -> anyhow::Result<Campaigns> {
    let lock = campaigns::lock_for_operator(mysql).await?;
    let mut conn = mysql.connection().await?;
    let first = campaigns::next_id(&mut conn).await?.filter(|first| first.0 <= CampaignId::MAX.0 - (count - 1));
    let first = first.context(
        "a campaign has so high a number that too few are left above it: name another database with --mysql-url \
         (COUPON_MYSQL_URL)",
    )?;
    let made = Campaigns { first, count };
    for id in made.ids() {
        let name = name.to_owned();
        let campaign = Campaign { id, name, opens_at: None, closes_at: None, coupons: 0, paused: false };
        campaigns::insert(&mut conn, &campaign).await?;
    }
    drop(conn);
    lock.release().await;
    Ok(made)
}
