//! Campaigns: made and restocked by the operator, read by everyone.
//!
//! Invariant: `campaign.coupons` equals the number of the campaign's committed coupon rows, because [`add_coupons`]
//! writes both in one transaction. Whoever reads it therefore sees a restock without counting.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::sql;
use crate::domain::{Campaign, CampaignId, CouponId};
use crate::error::{Error, Result};

/// A campaign and whether one of its coupons is free, both of one moment.
#[derive(Clone, Debug)]
pub struct CampaignWithStock {
    /// The campaign.
    pub campaign: Campaign,
    /// Whether a coupon is free in committed state.
    pub free: bool,
}

type Row = (u64, String, Option<PrimitiveDateTime>, Option<PrimitiveDateTime>, u64, bool);

/// Those of the campaigns that exist.
///
/// # Errors
/// MySQL's.
pub async fn with_stock(conn: &mut Conn, campaigns: &[CampaignId]) -> Result<Vec<CampaignWithStock>> {
    if campaigns.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = conn.query(sql::campaigns_with_stock(campaigns)).await?;
    Ok(rows
        .into_iter()
        .map(|(id, name, opens_at, closes_at, coupons, free)| CampaignWithStock {
            campaign: Campaign {
                id: CampaignId(id),
                name,
                opens_at: opens_at.map(PrimitiveDateTime::assume_utc),
                closes_at: closes_at.map(PrimitiveDateTime::assume_utc),
                coupons,
            },
            free,
        })
        .collect())
}

/// One campaign.
///
/// # Errors
/// MySQL's.
pub async fn find(conn: &mut Conn, campaign: CampaignId) -> Result<Option<Campaign>> {
    Ok(with_stock(conn, &[campaign]).await?.pop().map(|found| found.campaign))
}

/// All campaigns, by id.
///
/// # Errors
/// MySQL's.
pub async fn all(conn: &mut Conn) -> Result<Vec<Campaign>> {
    let ids: Vec<u64> = conn.query("SELECT id FROM campaign ORDER BY id").await?;
    let mut campaigns = Vec::with_capacity(ids.len());
    for ids in ids.chunks(500) {
        let ids: Vec<CampaignId> = ids.iter().copied().map(CampaignId).collect();
        campaigns.extend(with_stock(conn, &ids).await?.into_iter().map(|found| found.campaign));
    }
    campaigns.sort_by_key(|campaign| campaign.id);
    Ok(campaigns)
}

/// How many coupons of a campaign are free. It counts, so it takes a moment for a large stock.
///
/// # Errors
/// MySQL's.
pub async fn count_free(conn: &mut Conn, campaign: CampaignId) -> Result<u64> {
    let count: Option<u64> = conn
        .exec_first("SELECT COUNT(*) FROM coupon WHERE campaign_id = ? AND account_id IS NULL", (campaign.0,))
        .await?;
    Ok(count.unwrap_or(0))
}

/// Accounts that hold a coupon of a campaign, in order: the first ones above `behind`, up to `count`.
///
/// # Errors
/// MySQL's.
pub async fn winners(conn: &mut Conn, campaign: CampaignId, behind: u64, count: usize) -> Result<Vec<u64>> {
    Ok(conn.exec(sql::WINNERS, (campaign.0, behind, count)).await?)
}

/// A number that no campaign has yet: one above the highest.
///
/// # Errors
/// MySQL's.
pub async fn next_id(conn: &mut Conn) -> Result<CampaignId> {
    let highest: Option<u64> = conn.query_first::<Option<u64>, _>("SELECT MAX(id) FROM campaign").await?.flatten();
    Ok(CampaignId(highest.unwrap_or(0) + 1))
}

/// Lets one operator at a time make or restock campaigns, for as long as this connection lives: two who make the same one
/// would both load its coupons.
///
/// # Errors
/// MySQL's, or another holds it for too long.
pub async fn lock_for_operator(conn: &mut Conn) -> Result<()> {
    let locked: Option<Option<u8>> =
        conn.query_first("SELECT GET_LOCK(CONCAT(LEFT(DATABASE(), 40), '.campaigns'), 5)").await?;
    if locked.flatten() == Some(1) {
        return Ok(());
    }
    Err(Error::Broken(String::from("another couponctl is at work on these campaigns; run this again when it is done")))
}

/// Makes a campaign without coupons. Nothing happens to one that exists.
///
/// # Errors
/// MySQL's.
pub async fn create(conn: &mut Conn, campaign: &Campaign) -> Result<()> {
    let utc = |instant: OffsetDateTime| {
        let instant = instant.to_offset(time::UtcOffset::UTC);
        PrimitiveDateTime::new(instant.date(), instant.time())
    };
    conn.exec_drop(
        "INSERT INTO campaign (id, name, opens_at, closes_at) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE id = id",
        (campaign.id.0, &campaign.name, campaign.opens_at.map(utc), campaign.closes_at.map(utc)),
    )
    .await?;
    Ok(())
}

/// Adds these coupons to a campaign's stock: all of them or, on an error, none.
///
/// # Errors
/// MySQL's.
pub async fn add_coupons(conn: &mut Conn, campaign: CampaignId, coupons: &[CouponId]) -> Result<()> {
    if coupons.is_empty() {
        return Ok(());
    }
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    let mut insert = String::with_capacity(64 + coupons.len() * 48);
    insert.push_str("INSERT INTO coupon (id, campaign_id) VALUES ");
    for (n, coupon) in coupons.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(insert, "{comma}(x'{}',{campaign})", coupon.0.simple());
    }
    transaction.query_drop(insert).await?;
    transaction
        .exec_drop("UPDATE campaign SET coupons = coupons + ? WHERE id = ?", (coupons.len(), campaign.0))
        .await?;
    Ok(transaction.commit().await?)
}
