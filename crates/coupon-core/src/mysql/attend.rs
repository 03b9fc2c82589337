//! Watches over work that may take as long as the server needs, such as an audit of millions of coupons or a change of
//! a table, for which no deadline would be right.
//!
//! Invariant: whoever waits for MySQL learns within a few deadlines that it no longer does the work; one bad look proves
//! nothing.

use std::future::Future;
use std::time::Duration;

use mysql_async::Row;
use mysql_async::prelude::Queryable as _;

use super::Mysql;
use crate::error::{Error, Result};

/// Lists the connections of this user, or of all if the user may see them.
const CONNECTIONS: &str = "SHOW PROCESSLIST";

/// Looks at the work are at least this far apart.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a connection does that waits for its client.
const IDLE: &str = "Sleep";

/// What the connections do that the work uses.
enum Seen {
    /// One of them works.
    AtWork,
    /// They wait for their client, and none has begun a statement for a whole deadline.
    Idle,
    /// There are none.
    Gone,
}

impl Mysql {
    /// Does work that uses the connections with these ids, and gives it up if, twice in a row, the server does not
    /// answer, or they are gone, or none of them has anything to do.
    ///
    /// # Errors
    /// Those of the work, of asking the server, or [`Error::Away`].
    pub async fn attended<T>(&self, ids: &[u32], work: impl Future<Output = Result<T>>) -> Result<T> {
        // Before the work, because they may be gone before the first look at it.
        let can_be_seen = matches!(self.within(self.look(ids)).await, Ok(Seen::AtWork | Seen::Idle));
        tokio::select! {
            done = work => done,
            error = self.lost(ids, can_be_seen) => Err(error),
        }
    }

    /// Waits until the work is lost.
    async fn lost(&self, ids: &[u32], mut was_seen: bool) -> Error {
        let mut was_bad = false;
        loop {
            tokio::time::sleep(self.deadline.max(LOOK_EVERY)).await;
            let seen = self.within(self.look(ids)).await;
            was_seen |= matches!(seen, Ok(Seen::AtWork | Seen::Idle));
            let trouble = match seen {
                Ok(Seen::Idle) => Some(Error::Away { what: "MySQL" }),
                Ok(Seen::Gone) if was_seen => Some(Error::Away { what: "the connection to MySQL" }),
                // If they were never seen, a proxy hides them, or leads this look to another server. A server that
                // has no connection left for a look works.
                Ok(Seen::AtWork | Seen::Gone) | Err(Error::Mysql(mysql_async::Error::Server(_))) => None,
                Err(error) => Some(error),
            };
            match trouble {
                Some(error) if was_bad => return error,
                trouble => was_bad = trouble.is_some(),
            }
        }
    }

    async fn look(&self, ids: &[u32]) -> Result<Seen> {
        let mut conn = self.connection_of_its_own().await?;
        let all: Vec<Row> = conn.query(CONNECTIONS).await?;
        conn.disconnect().await?;
        let is_of_work = |row: &&Row| ids.iter().any(|id| row.get("Id") == Some(u64::from(*id)));
        let ours: Vec<&Row> = all.iter().filter(is_of_work).collect();
        // A connection that is between two statements has begun one since the look before. The time of an idle one counts
        // from the beginning of its last statement.
        let long = i64::try_from(self.deadline.max(LOOK_EVERY).as_secs()).unwrap_or(i64::MAX);
        let is_idle = |row: &&Row| {
            row.get("Command") == Some(String::from(IDLE))
                && row.get::<Option<i64>, _>("Time").flatten().is_some_and(|seconds| seconds >= long)
        };
        Ok(match ours.iter().all(is_idle) {
            _ if ours.is_empty() => Seen::Gone,
            true => Seen::Idle,
            false => Seen::AtWork,
        })
    }
}
