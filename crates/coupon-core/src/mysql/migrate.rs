//! Brings the schema of a database up to date, for `couponctl migrate` and `couponctl setup`.
//!
//! MySQL commits each statement that changes a table by itself, so a migration that is cut off stays half done.
//! Invariant: each statement can be run again, and a migration is recorded after its last one, so the next run finishes
//! what an earlier one began.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Pool};
use refinery::error::Kind;
use refinery::{Migration, Target};

use super::schema::{Standing, applied, runner, version};
use super::{Mysql, connect, not_reached};
use crate::error::{Error, Result};
use crate::settings::MysqlSettings;

/// How long to wait for another process that is migrating the same database.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// A change of a table waits this long for transactions that have read it, such as a backup's. Everything else that
/// needs the table waits behind the change.
const PATIENCE: &str = "SET SESSION lock_wait_timeout = 20";

/// The database does not exist.
const NO_DATABASE: u16 = 1049;

/// The table that records the migrations. It is created before any other.
const HISTORY: &str = "refinery_schema_history";
const TABLES: &str = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";

/// Creates the database if it does not exist, and brings its schema up to date. Returns the names of the migrations
/// that were applied.
///
/// # Errors
/// Any error from MySQL, or a migration that was changed after it had been applied.
pub async fn migrate(settings: &MysqlSettings) -> Result<Vec<String>> {
    let limit = LOCK_WAIT + settings.mysql_deadline;
    let late = |_| Err(Error::Deadline { what: "waiting to migrate", limit });
    let (lock, not_created) = tokio::time::timeout(limit, lock(settings)).await.unwrap_or_else(late)?;
    let mysql = Mysql::new(settings);
    let mut conn = mysql.connection_of_its_own().await.map_err(|error| match not_created {
        Some(why) if is_missing(&error) => why.into(),
        _ => error,
    })?;
    // The migration library wants a pool of the driver's own.
    let mut pool = Pool::new(super::options(settings));
    let migrated = run_all(&mysql, &mut conn, &mut pool).await?;
    pool.disconnect().await?;
    conn.disconnect().await?;
    lock.disconnect().await?;
    Ok(migrated)
}

async fn run_all(mysql: &Mysql, conn: &mut Conn, pool: &mut Pool) -> Result<Vec<String>> {
    let runner = runner();
    let (left, has_history) = mysql.within(what_is_left(conn, runner.get_migrations())).await?;
    if !has_history {
        mysql.within(record(pool, Target::Version(0))).await?;
    }
    let id = conn.id();
    for migration in &left {
        mysql.attended(&[id], run(conn, migration)).await.map_err(not_run)?;
        mysql.within(record(pool, Target::FakeVersion(migration.version()))).await?;
    }
    Ok(left.iter().map(ToString::to_string).collect())
}

/// The migrations that have not been applied, and whether any could have been recorded.
async fn what_is_left<'a>(conn: &mut Conn, migrations: &'a [Migration]) -> Result<(Vec<&'a Migration>, bool)> {
    let standing = Standing::of(conn).await?;
    if let (Standing::Newer(_) | Standing::OfAnotherBuild(_), Some(flaw)) = (&standing, standing.flaw()) {
        return Err(flaw.into());
    }
    let applied = applied(conn).await?;
    let is_left = |migration: &&Migration| applied.iter().all(|(applied, _)| *applied != version(migration));
    let left: Vec<&Migration> = migrations.iter().filter(is_left).collect();
    let tables: Vec<String> = conn.query(TABLES).await?;
    let has_history = tables.iter().any(|table| table == HISTORY);
    if !has_history {
        refuse_foreign(&tables, &left)?;
    }
    conn.query_drop(PATIENCE).await?;
    Ok((left, has_history))
}

/// Records that the migrations up to this one have been run. Up to none, this only creates the table for that.
async fn record(pool: &mut Pool, target: Target) -> Result<()> {
    runner().set_target(target).run_async(pool).await.map(drop).map_err(|error| not_migrated(&error))
}

/// Runs a migration, or what is left of it: what an earlier run has done is refused as existing.
async fn run(conn: &mut Conn, migration: &Migration) -> Result<()> {
    /// A table, a column or a key exists.
    const EXISTS: [u16; 3] = [1050, 1060, 1061];

    for statement in statements(migration) {
        match conn.query_drop(statement.replace("INSERT INTO", "INSERT IGNORE INTO")).await {
            Err(mysql_async::Error::Server(error)) if EXISTS.contains(&error.code) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Why a migration was not run; a wait for a lock that was too long is put into the words of whoever has to end it.
fn not_run(error: Error) -> Error {
    if !error.is_conflict() {
        return error;
    }
    Error::Broken(String::from(
        "a transaction that has read the tables is open, such as a backup's, or a lock on them: run this again when it has \
         ended",
    ))
}

/// Whether a connection was refused because the database does not exist.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Mysql(mysql_async::Error::Server(refusal)) if refusal.code == NO_DATABASE)
}

/// Fails if a table that is to be created exists: the database holds something else.
fn refuse_foreign(tables: &[String], migrations: &[&Migration]) -> Result<()> {
    let mut created = migrations.iter().flat_map(|migration| statements(migration)).filter_map(|statement| {
        let name = statement.strip_prefix("CREATE TABLE ")?.trim_start_matches("IF NOT EXISTS ");
        name.split_whitespace().next().map(String::from)
    });
    match created.find(|table| tables.contains(table)) {
        Some(table) => Err(Error::Broken(format!(
            "Table '{table}' already exists, and is not of this system: name a database of its own in --mysql-url"
        ))),
        None => Ok(()),
    }
}

/// The statements of a migration, without comments, which take whole lines.
fn statements(migration: &Migration) -> Vec<String> {
    let lines = migration.sql().unwrap_or_default().lines();
    let text = lines.filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(String::from).collect()
}

/// Why a database was not migrated, and what to do about it.
fn not_migrated(error: &refinery::Error) -> Error {
    match error.kind() {
        Kind::Connection(doing, error) => match error.downcast_ref::<mysql_async::Error>() {
            Some(mysql_async::Error::Server(refusal)) => mysql_async::Error::from(refusal.clone()).into(),
            _ => Error::Broken(format!("{doing}: {error}")),
        },
        kind => Error::Broken(format!("migration: {kind}")),
    }
}

/// Creates the database, and waits until nobody else is migrating it; the lock ends with the connection. Also returns why
/// the database was not created: a user who may not do that can still migrate an existing one.
async fn lock(settings: &MysqlSettings) -> Result<(Conn, Option<mysql_async::Error>)> {
    let options = super::options(settings);
    let name = options.db_name().unwrap_or_default().replace('`', "``");
    let options = OptsBuilder::from_opts(options).db_name(None::<String>);
    let connected = connect(options, settings.mysql_deadline).await;
    let mut conn = connected.map_err(|error| not_reached(&settings.mysql_url, &error))?;
    let created = conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}`")).await;
    if super::lock(&mut conn, "migrate", &name, LOCK_WAIT).await? {
        Ok((conn, created.err()))
    } else {
        Err(Error::Broken(String::from("another couponctl is migrating this database; run this again when it is done")))
    }
}
