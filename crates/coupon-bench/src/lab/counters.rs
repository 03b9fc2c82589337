//! MySQL's work, by its own counters: round trips, rows, bytes and flushes.

use std::collections::BTreeMap;

use coupon_core::mysql::Mysql;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The counters, with the names under which they are shown.
const COUNTERS: [(&str, &str); 5] = [
    ("Questions", "statements"),
    ("Innodb_rows_read", "rows read"),
    ("Innodb_rows_updated", "rows updated"),
    ("Bytes_sent", "bytes sent"),
    ("Innodb_os_log_fsyncs", "flushes of the log"),
];

/// The server's counts since it started, over all of its clients.
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    pub async fn read(mysql: &Mysql) -> anyhow::Result<Self> {
        let read = mysql
            .run(async |mut conn: Conn| Ok(conn.query::<(String, String), _>("SHOW GLOBAL STATUS").await?))
            .await?;
        let shown = |name: &str| COUNTERS.iter().find(|(counter, _)| *counter == name).map(|(_, shown)| *shown);
        Ok(Self(read.iter().filter_map(|(name, value)| Some((shown(name)?, value.parse().ok()?))).collect()))
    }

    /// The counts since an earlier reading.
    pub fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let counted = |(name, count): (&&'static str, &u64)| {
            (String::from(*name), count.saturating_sub(before.0.get(name).copied().unwrap_or_default()))
        };
        self.0.iter().map(counted).collect()
    }
}
