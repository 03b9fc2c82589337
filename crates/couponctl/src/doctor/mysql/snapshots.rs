//! Old snapshots: a forgotten transaction keeps old versions of rows, and claims then read past all of them.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::doctor::sheet::Sheet;

/// A transaction open for longer than this keeps old versions of rows that every claim then reads past.
const SNAPSHOT_MAX_SECONDS: u64 = 600;

/// With more changes waiting to be purged than this, reads may have to go through too many of them.
const HISTORY_MAX: u64 = 1_000_000;

pub async fn check(sheet: &mut Sheet, conn: &mut Conn) {
    match oldest_snapshot(conn).await {
        Ok((seconds, history)) => {
            let found = format!("the oldest transaction is open for {seconds} s; {history} changes wait to be purged");
            if seconds <= SNAPSHOT_MAX_SECONDS && history <= HISTORY_MAX {
                sheet.ok("open snapshots", &found);
            } else {
                let remedy = "end the transaction that is forgotten, or let the backup end, before the sale: see \
                              information_schema.innodb_trx";
                sheet.warning("open snapshots", &found, remedy);
            }
        }
        Err(error) => sheet.warning("open snapshots", &error.to_string(), "ask as a user with the right PROCESS"),
    }
}

async fn oldest_snapshot(conn: &mut Conn) -> Result<(u64, u64), Error> {
    // The table stores its times in the system's time zone.
    conn.query_drop("SET SESSION time_zone = 'SYSTEM'").await?;
    let seconds: Option<Option<i64>> = conn
        .query_first("SELECT MAX(TIMESTAMPDIFF(SECOND, trx_started, NOW())) FROM information_schema.innodb_trx")
        .await?;
    let history: Option<i64> = conn
        .query_first("SELECT `COUNT` FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'")
        .await?;
    let unsigned = |number: Option<i64>| number.unwrap_or(0).max(0).unsigned_abs();
    Ok((unsigned(seconds.flatten()), unsigned(history)))
}
