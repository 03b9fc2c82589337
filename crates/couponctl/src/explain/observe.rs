//! Observes a statement on this server: its plan, the rows it reads, its locks, and a second claimer beside it.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use serde::Serialize;

use super::statements::Statement;

/// A second claimer stops waiting for the first after this many seconds, the shortest wait that the server allows.
const WAIT: u32 = 1;

/// How often a statement is tried: a claim that is issued meanwhile may lock the same row in another order, and the server
/// then refuses one of the two.
const TRIES: usize = 5;

/// The error code for a transaction that was rolled back because two waited for each other.
const DEADLOCK: u16 = 1213;

/// The error code for a lock wait that timed out.
const LOCK_WAIT_TIMEOUT: u16 = 1205;

const LOCKS: &str = "SELECT OBJECT_NAME, COALESCE(INDEX_NAME, ''), LOCK_MODE, COUNT(*) FROM performance_schema.data_locks \
                     WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND LOCK_TYPE = 'RECORD' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

/// The observations of a statement.
#[derive(Clone, Debug, Serialize)]
pub struct Observed {
    #[serde(flatten)]
    pub statement: Statement,
    pub plan: Vec<Access>,
    /// The server's plan step by step; not every server has one.
    pub tree: Option<String>,
    /// Index entries that the statement read.
    pub reads: u64,
    pub locks: Vec<Locks>,
    /// Why the locks are not known, if they are not.
    pub locks_unknown: Option<String>,
    /// What happened to a second claimer, for a statement that locks rows.
    pub beside: Option<Beside>,
}

/// How a table is read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Access {
    pub table: String,
    pub kind: String,
    pub key: Option<String>,
    pub extra: String,
}

/// Locks of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Locks {
    pub table: String,
    pub index: String,
    pub mode: String,
    pub rows: u64,
}

/// What happens to a second claimer while the first has not committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beside {
    /// It goes on immediately, past the rows that the first holds.
    GoesOn,
    /// It waits until the first has committed.
    Waits,
}

/// Runs a statement, and runs it again as a second claimer beside it. Rolls both back.
pub async fn observe(first: &mut Conn, second: &mut Conn, statement: Statement) -> coupon_core::Result<Observed> {
    let mut further_tries = 1..TRIES;
    loop {
        match attempt(first, second, &statement).await {
            Err(Error::Server(error)) if error.code == DEADLOCK && further_tries.next().is_some() => {
                first.query_drop("ROLLBACK").await?;
                second.query_drop("ROLLBACK").await?;
            }
            observed => return Ok(observed?),
        }
    }
}

async fn attempt(first: &mut Conn, second: &mut Conn, statement: &Statement) -> Result<Observed, Error> {
    let [of_first, of_second] = &statement.of;
    let plan = plan(first, of_first).await?;
    let tree = tree(first, of_first).await;
    first.query_drop("START TRANSACTION").await?;
    let before = reads(first).await?;
    first.query_drop(of_first).await?;
    let reads = reads(first).await?.saturating_sub(before);
    let locks = first.query_map(LOCKS, |(table, index, mode, rows)| Locks { table, index, mode, rows }).await;
    let beside = if statement.locks_rows { Some(beside(second, of_second).await?) } else { None };
    first.query_drop("ROLLBACK").await?;
    let (locks, locks_unknown) = match locks {
        Ok(locks) => (locks, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Ok(Observed { statement: statement.clone(), plan, tree, reads, locks, locks_unknown, beside })
}

async fn plan(conn: &mut Conn, statement: &str) -> Result<Vec<Access>, Error> {
    let rows: Vec<Row> = conn.query(format!("EXPLAIN FORMAT=TRADITIONAL {statement}")).await?;
    let text = |row: &Row, column: &str| row.get_opt::<Option<String>, _>(column).and_then(Result::ok).flatten();
    let ours = rows
        .iter()
        .filter(|row| text(row, "table").is_some_and(|table| ["campaign", "coupon"].contains(&table.as_str())));
    let access = |row: &Row| Access {
        table: text(row, "table").unwrap_or_default(),
        kind: text(row, "type").unwrap_or_default(),
        key: text(row, "key"),
        extra: text(row, "Extra").unwrap_or_default(),
    };
    Ok(ours.map(access).collect())
}

/// MariaDB has no such plan, and MySQL has none for an UPDATE of a single table.
async fn tree(conn: &mut Conn, statement: &str) -> Option<String> {
    let tree: Option<String> = conn.query_first(format!("EXPLAIN FORMAT=TREE {statement}")).await.ok()?;
    tree.filter(|tree| !tree.contains("not executable"))
}

async fn reads(conn: &mut Conn) -> Result<u64, Error> {
    let counted: Vec<(String, String)> = conn.query("SHOW SESSION STATUS LIKE 'Handler\\_read\\_%'").await?;
    let counted: BTreeMap<String, String> = counted.into_iter().collect();
    // Reads of temporary tables count as these.
    let others = ["Handler_read_rnd", "Handler_read_rnd_next", "Handler_read_rnd_deleted"];
    let ours = counted.iter().filter(|(name, _)| !others.contains(&name.as_str()));
    Ok(ours.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
}

async fn beside(conn: &mut Conn, statement: &str) -> Result<Beside, Error> {
    conn.query_drop(format!("SET SESSION innodb_lock_wait_timeout = {WAIT}")).await?;
    conn.query_drop("START TRANSACTION").await?;
    let beside = match conn.query_drop(statement).await {
        Ok(()) => Beside::GoesOn,
        Err(Error::Server(error)) if error.code == LOCK_WAIT_TIMEOUT => Beside::Waits,
        Err(error) => return Err(error),
    };
    conn.query_drop("ROLLBACK").await?;
    Ok(beside)
}
