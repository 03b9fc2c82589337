//! Campaigns: made and changed by the operator, read by everyone.
//!
//! Invariant: `campaign.coupons` equals the number of the campaign's committed coupon rows, because [`super::loads`]
//! writes both in one transaction. Anyone who reads it therefore sees a restock without counting.

use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Row};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{Mysql, sql};
use crate::domain::{Campaign, CampaignId};
use crate::error::{Error, Result};

/// A campaign and whether one of its coupons is free, both read at the same moment.
#[derive(Clone, Debug)]
pub struct CampaignWithStock {
    /// The campaign.
    pub campaign: Campaign,
    /// Whether a coupon is free in committed state.
    pub free: bool,
}

/// Reads those of the campaigns that exist.
///
/// # Errors
/// Any error from MySQL.
pub async fn with_stock(conn: &mut impl Queryable, campaigns: &[CampaignId]) -> Result<Vec<CampaignWithStock>> {
    if campaigns.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = conn.query(sql::campaigns_with_stock(campaigns)).await?;
    rows.into_iter()
        .map(|mut row| Ok(CampaignWithStock { free: column(&mut row, "free")?, campaign: campaign(row)? }))
        .collect()
}

fn campaign(mut row: Row) -> Result<Campaign> {
    let row = &mut row;
    Ok(Campaign {
        id: CampaignId(column(row, "id")?),
        name: column(row, "name")?,
        opens_at: column::<Option<PrimitiveDateTime>>(row, "opens_at")?.map(PrimitiveDateTime::assume_utc),
        closes_at: column::<Option<PrimitiveDateTime>>(row, "closes_at")?.map(PrimitiveDateTime::assume_utc),
        coupons: column(row, "coupons")?,
        paused: column(row, "paused")?,
    })
}

fn column<T: FromValue>(row: &mut Row, name: &str) -> Result<T> {
    // An invalid date, such as 0000-00-00, cannot be read.
    match row.take_opt(name) {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(Error::Broken(format!("campaign.{name} cannot be read: {error}"))),
        None => Err(Error::Broken(format!("campaign.{name} was not selected"))),
    }
}

/// One campaign.
///
/// # Errors
/// Any error from MySQL.
pub async fn find(conn: &mut impl Queryable, id: CampaignId) -> Result<Option<Campaign>> {
    conn.exec_first(sql::CAMPAIGN, (id.0,)).await?.map(campaign).transpose()
}

/// All campaigns, by id.
///
/// # Errors
/// Any error from MySQL.
pub async fn all(conn: &mut Conn) -> Result<Vec<Campaign>> {
    conn.query(sql::CAMPAIGNS).await?.into_iter().map(campaign).collect()
}

/// The coupons of a campaign, all read at the same moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// How many there are.
    pub coupons: u64,
    /// How many of them have no account.
    pub free: u64,
}

/// Counts the coupons of a campaign; there are none if it does not exist. It counts rows, so it takes a moment for a large
/// stock.
///
/// # Errors
/// Any error from MySQL.
pub async fn count(conn: &mut Conn, campaign: CampaignId) -> Result<Counts> {
    // One statement reads one snapshot: a restock between two would be counted as coupons issued.
    let counts = "SELECT coupons, \
                  (SELECT COUNT(*) FROM coupon WHERE campaign_id = campaign.id AND account_id IS NULL) \
                  FROM campaign WHERE id = ?";
    let counts: Option<(u64, u64)> = conn.exec_first(counts, (campaign.0,)).await?;
    Ok(counts.map(|(coupons, free)| Counts { coupons, free }).unwrap_or_default())
}

/// Accounts that hold a coupon of a campaign, in order: the first ones above `after`, up to `count`.
///
/// # Errors
/// Any error from MySQL.
pub async fn winners(conn: &mut Conn, campaign: CampaignId, after: u64, count: usize) -> Result<Vec<u64>> {
    Ok(conn.exec(sql::WINNERS, (campaign.0, after, count)).await?)
}

/// The number after that of the highest campaign; `None` if that one is the largest possible.
///
/// # Errors
/// Any error from MySQL.
pub async fn next_id(conn: &mut Conn) -> Result<Option<CampaignId>> {
    let highest: Option<u64> = conn.query_first::<Option<u64>, _>("SELECT MAX(id) FROM campaign").await?.flatten();
    Ok(Some(CampaignId(highest.unwrap_or(0) + 1)).filter(|next| *next <= CampaignId::MAX))
}

/// The right to make and restock campaigns, which only one operator has at a time: two operators who make the same
/// campaign would both load its coupons. It ends with its connection.
#[derive(Debug)]
pub struct OperatorLock(Conn);

/// Waits for the [`OperatorLock`] for as long as a session waits for a row. Its connection does not come from the pool,
/// because work under the lock needs the pool's.
///
/// # Errors
/// Any error from MySQL, or another operator holds the lock for too long.
pub async fn lock_for_operator(mysql: &Mysql) -> Result<OperatorLock> {
    const LOCK_WAIT_TIMEOUT: u16 = 1205;

    let mut conn = mysql.connection_of_its_own().await?;
    conn.query_drop("START TRANSACTION").await?;
    match conn.query_first::<u8, _>("SELECT id FROM operator_lock WHERE id = 1 FOR UPDATE").await {
        Ok(Some(_)) => Ok(OperatorLock(conn)),
        Ok(None) => Err(Error::Broken(String::from("the row of operator_lock is missing: insert it again"))),
        Err(mysql_async::Error::Server(error)) if error.code == LOCK_WAIT_TIMEOUT => Err(Error::Broken(String::from(
            "another couponctl is working on these campaigns; run this again when it is done",
        ))),
        Err(error) => Err(error.into()),
    }
}

impl OperatorLock {
    /// Lets the next operator in.
    pub async fn release(self) {
        // A lost connection holds no lock.
        let _ = self.0.disconnect().await;
    }
}

/// Makes a campaign without coupons.
///
/// # Errors
/// Any error from MySQL, also if there is a campaign with this number.
pub async fn insert(conn: &mut impl Queryable, campaign: &Campaign) -> Result<()> {
    let insert = "INSERT INTO campaign (id, name, opens_at, closes_at) VALUES (?, ?, ?, ?)";
    let (opens_at, closes_at) = (campaign.opens_at.map(utc), campaign.closes_at.map(utc));
    Ok(conn.exec_drop(insert, (campaign.id.0, &campaign.name, opens_at, closes_at)).await?)
}

/// An instant as the database stores it.
#[must_use]
pub fn utc(instant: OffsetDateTime) -> PrimitiveDateTime {
    let instant = instant.to_offset(time::UtcOffset::UTC);
    PrimitiveDateTime::new(instant.date(), instant.time())
}
