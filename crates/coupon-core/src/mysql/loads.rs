//! Loads coupons into campaigns in bulk.
//!
//! Invariant: each chunk is one transaction that inserts its rows, and adds their number to the campaign's stock and to
//! the progress of its load. So wherever a load is cut off, all three agree, and it can be finished, unless a new total
//! has taken its place; and two that run at the same time never add more than was ordered.

use std::fmt::Write as _;

use futures_util::{StreamExt, TryStreamExt, stream};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction, TxOpts};

use super::Mysql;
use crate::domain::{CampaignId, CouponId};
use crate::error::{Error, Result};

/// The most coupons in one INSERT, if the server takes statements of that size.
const CHUNK_MAX: usize = 5_000;

/// The most bytes of one row in the text of an INSERT: an id in hexadecimal digits, and the number of a campaign.
const ROW_BYTES: u64 = 64;

/// Bytes of an INSERT without its rows, with room to spare.
const HEAD_BYTES: u64 = 256;

/// Coupons whose ids are made and sorted together: sorted ids fill the pages of the primary key one after the other.
const BLOCK: u64 = 1_000_000;

/// Chunks in flight at the same time: one is made into rows while another is written to disk.
const IN_FLIGHT: usize = 3;

/// How far a load goes. A chunk that would go beyond is refused, even if others load at the same time.
#[derive(Clone, Debug)]
pub enum Limit {
    /// Up to the number of coupons that the recorded load of this key has ordered.
    Ordered(String),
    /// Up to this many coupons in the campaign, recorded.
    Total(u64),
    /// Up to this many coupons in the campaign, without a record.
    Stock(u64),
}

impl Limit {
    /// The key of the load's record.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Ordered(key) => Some(key),
            Self::Total(_) => Some(TOTAL),
            Self::Stock(_) => None,
        }
    }

    fn stock_max(&self) -> u64 {
        match self {
            Self::Ordered(_) => u64::MAX,
            Self::Total(max) | Self::Stock(max) => *max,
        }
    }
}

/// The key of the load that raises a campaign's stock to a total: the last such load of each campaign.
const TOTAL: &str = "total";

/// A recorded load of a campaign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Load {
    /// Coupons ordered.
    pub coupons: u64,
    /// How many of them have been loaded.
    pub loaded: u64,
}

impl Load {
    /// How many coupons are missing.
    #[must_use]
    pub fn left(self) -> u64 {
        self.coupons.saturating_sub(self.loaded)
    }
}

/// The recorded load of a key.
///
/// # Errors
/// Any error from MySQL.
pub async fn find(conn: &mut impl Queryable, campaign: CampaignId, key: &str) -> Result<Option<Load>> {
    let found: Option<(u64, u64)> = conn
        .exec_first("SELECT coupons, loaded FROM coupon_load WHERE campaign_id = ? AND load_key = ?", (campaign.0, key))
        .await?;
    Ok(found.map(|(coupons, loaded)| Load { coupons, loaded }))
}

/// How many coupons recorded loads have ordered for a campaign and not loaded: a load is under way, or was cut off.
///
/// # Errors
/// Any error from MySQL.
pub async fn not_loaded(conn: &mut impl Queryable, campaign: CampaignId) -> Result<u64> {
    let statement = "SELECT CAST(COALESCE(SUM(coupons - loaded), 0) AS UNSIGNED) FROM coupon_load \
                     WHERE campaign_id = ? AND loaded < coupons";
    Ok(conn.exec_first(statement, (campaign.0,)).await?.unwrap_or(0))
}

/// Records that this many coupons are ordered under a key; none is loaded yet.
///
/// # Errors
/// Any error from MySQL, also if the key was used for this campaign before.
pub async fn order(transaction: &mut Transaction<'_>, campaign: CampaignId, key: &str, coupons: u64) -> Result<()> {
    let insert = "INSERT INTO coupon_load (campaign_id, load_key, coupons) VALUES (?, ?, ?)";
    Ok(transaction.exec_drop(insert, (campaign.0, key, coupons)).await?)
}

/// Records that this many coupons are to raise the stock to a total, in place of the last such load.
///
/// # Errors
/// Any error from MySQL.
pub async fn order_total(transaction: &mut Transaction<'_>, campaign: CampaignId, coupons: u64) -> Result<()> {
    let insert = "INSERT INTO coupon_load (campaign_id, load_key, coupons) VALUES (?, ?, ?) \
                  ON DUPLICATE KEY UPDATE coupons = VALUES(coupons), loaded = 0";
    Ok(transaction.exec_drop(insert, (campaign.0, TOTAL, coupons)).await?)
}

/// Forgets what was loaded into an earlier campaign of this number, whose row somebody has deleted.
///
/// # Errors
/// Any error from MySQL, or [`Error::Broken`] if its coupons are still there.
pub async fn forget(transaction: &mut Transaction<'_>, campaign: CampaignId) -> Result<()> {
    let select = "SELECT 1 FROM coupon WHERE campaign_id = ? LIMIT 1";
    if transaction.exec_first::<u8, _, _>(select, (campaign.0,)).await?.is_some() {
        return Err(Error::Broken(format!(
            "the table coupon has coupons of campaign {campaign}, which is not in the table campaign: choose another --id"
        )));
    }
    Ok(transaction.exec_drop("DELETE FROM coupon_load WHERE campaign_id = ?", (campaign.0,)).await?)
}

/// Notes that nothing is missing from the recorded loads of a campaign any more: what they had not loaded is part of a new
/// total. If one of them is still under way, its next chunk is refused.
///
/// # Errors
/// Any error from MySQL.
pub async fn supersede(conn: &mut impl Queryable, campaign: CampaignId) -> Result<()> {
    let update = "UPDATE coupon_load SET loaded = coupons WHERE campaign_id = ? AND loaded < coupons";
    Ok(conn.exec_drop(update, (campaign.0,)).await?)
}

/// How many coupons this server takes in one statement.
///
/// # Errors
/// Any error from MySQL.
pub async fn chunk_size(conn: &mut impl Queryable) -> Result<usize> {
    let bytes: Option<u64> = conn.query_first("SELECT @@max_allowed_packet").await?;
    Ok(chunk_for(bytes.unwrap_or(0)))
}

fn chunk_for(max_allowed_packet: u64) -> usize {
    let rows = max_allowed_packet.saturating_sub(HEAD_BYTES) / ROW_BYTES;
    usize::try_from(rows).unwrap_or(CHUNK_MAX).clamp(1, CHUNK_MAX)
}

/// New coupons, in order of their ids.
#[must_use]
pub fn new_coupons(count: usize) -> Vec<CouponId> {
    let mut ids: Vec<CouponId> = (0..count).map(|_| CouponId::random()).collect();
    ids.sort_unstable();
    ids
}

/// Adds these coupons to a campaign's stock, when the transaction commits.
///
/// # Errors
/// Any error from MySQL, or [`Error::Broken`] if they go beyond the limit.
pub async fn add(
    transaction: &mut Transaction<'_>,
    campaign: CampaignId,
    coupons: &[CouponId],
    limit: &Limit,
) -> Result<()> {
    if coupons.is_empty() {
        return Ok(());
    }
    let count = coupons.len() as u64;
    transaction.query_drop(insert(campaign, coupons)).await?;
    if let Some(key) = limit.key() {
        let update = "UPDATE coupon_load SET loaded = loaded + ? \
                      WHERE campaign_id = ? AND load_key = ? AND loaded + ? <= coupons";
        transaction.exec_drop(update, (count, campaign.0, key, count)).await?;
        within_limit(transaction)?;
    }
    let update = "UPDATE campaign SET coupons = coupons + ? WHERE id = ? AND coupons + ? <= ?";
    transaction.exec_drop(update, (count, campaign.0, count, limit.stock_max())).await?;
    within_limit(transaction)
}

fn insert(campaign: CampaignId, coupons: &[CouponId]) -> String {
    let mut insert = String::with_capacity(64 + coupons.len() * 56);
    insert.push_str("INSERT INTO coupon (id, campaign_id) VALUES ");
    for (n, coupon) in coupons.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(insert, "{comma}(x'{}',{campaign})", coupon.0.simple());
    }
    insert
}

/// Checks that the last statement has found room for its coupons.
fn within_limit(transaction: &Transaction<'_>) -> Result<()> {
    if transaction.affected_rows() == 1 {
        return Ok(());
    }
    Err(Error::Broken(String::from("somebody else is loading the same coupons; run this again when they are done")))
}

/// Adds `count` new coupons to a campaign, reporting after each chunk how many it had.
///
/// # Errors
/// Any error from MySQL, or the limit is reached; the chunks that were reported are loaded.
pub async fn add_in_chunks(
    mysql: &Mysql,
    campaign: CampaignId,
    count: u64,
    limit: &Limit,
    loaded: impl Fn(u64),
) -> Result<()> {
    let chunk = mysql.run(async |mut conn: Conn| chunk_size(&mut conn).await).await?;
    let mut left = count;
    while left > 0 {
        let block = left.min(BLOCK);
        let ids = new_coupons(usize::try_from(block).unwrap_or(usize::MAX));
        let chunks: Vec<Vec<CouponId>> = ids.chunks(chunk).map(<[CouponId]>::to_vec).collect();
        stream::iter(chunks)
            .map(async |chunk| {
                let count = chunk.len() as u64;
                let limit = limit.clone();
                mysql.run(async move |conn: Conn| add_chunk(conn, campaign, &chunk, &limit).await).await?;
                loaded(count);
                Ok::<_, Error>(())
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        left -= block;
    }
    Ok(())
}

async fn add_chunk(mut conn: Conn, campaign: CampaignId, chunk: &[CouponId], limit: &Limit) -> Result<()> {
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    add(&mut transaction, campaign, chunk, limit).await?;
    Ok(transaction.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CampaignId;

    #[test]
    fn a_code_is_random() {
        let codes = new_coupons(1_000);

        assert!(codes.iter().all(|code| code.0.get_version_num() == 4), "122 bits of each are random");
        assert!(codes.windows(2).all(|pair| pair.first() < pair.last()), "each is another");
    }

    #[test]
    fn a_chunk_fits_into_what_the_server_takes() {
        for max_allowed_packet in [1_024, 2_048, 16_384, 1 << 20, 1 << 30] {
            let chunk = chunk_for(max_allowed_packet);
            let statement = insert(CampaignId(u64::MAX), &new_coupons(chunk));

            assert!(statement.len() as u64 + 16 <= max_allowed_packet, "{chunk} coupons of {max_allowed_packet} bytes");
        }
        assert_eq!(chunk_for(1 << 30), CHUNK_MAX);
        assert_eq!(chunk_for(0), 1);
    }
}
