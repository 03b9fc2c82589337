//! The schema and its version: embedded migrations, run by `couponctl migrate` only.
//!
//! Invariant: a service never changes the schema; it refuses to start on one that it was not built for.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use refinery::error::Kind;
use refinery::{Migration, Runner};

use super::{Mysql, connect, not_reached};
use crate::error::{Error, Result};
use crate::settings::MysqlSettings;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The version that this build was made for.
#[must_use]
pub fn wanted() -> u32 {
    runner().get_migrations().iter().map(|migration| u32::try_from(migration.version()).unwrap_or(0)).max().unwrap_or(0)
}

/// The migrations that a database has, by version, each with the checksum of its text.
pub const APPLIED: &str = "SELECT version, checksum FROM refinery_schema_history ORDER BY version";

/// The first of these migrations whose text is another in this build.
#[must_use]
pub fn unlike(applied: &[(u32, String)]) -> Option<String> {
    let runner = runner();
    let is_unlike = |(version, checksum): &(u32, String)| {
        let is_it = |migration: &&Migration| u32::try_from(migration.version()).is_ok_and(|ours| ours == *version);
        let ours = runner.get_migrations().iter().find(is_it)?;
        (ours.checksum().to_string() != *checksum).then(|| ours.to_string())
    };
    applied.iter().find_map(is_unlike)
}

fn runner() -> Runner {
    embedded::migrations::runner()
}

/// How long to wait for another one that migrates the same database.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// Makes the database if it isn't there and brings its schema up to date. Returns the names of what was applied.
///
/// # Errors
/// MySQL's, or a migration that was changed after it had been applied.
pub async fn migrate(settings: &MysqlSettings) -> Result<Vec<String>> {
    let lock = lock(settings).await?;
    // The migration library wants a pool of the driver's own.
    let mut pool = mysql_async::Pool::new(super::options(settings));
    let report = runner().run_async(&mut pool).await.map_err(|error| not_migrated(&error));
    pool.disconnect().await?;
    lock.disconnect().await?;
    Ok(report?.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Why a database was not migrated, and what to do about it.
fn not_migrated(error: &refinery::Error) -> Error {
    const TABLE_EXISTS: u16 = 1050;

    Error::Broken(match error.kind() {
        Kind::MissingVersion(migration) => newer(u32::try_from(migration.version()).unwrap_or(u32::MAX)),
        Kind::DivergentVersion(applied, _) => of_another_build(&applied.to_string()),
        Kind::Connection(doing, error) => match error.downcast_ref::<mysql_async::Error>() {
            Some(mysql_async::Error::Server(error)) if error.code == TABLE_EXISTS => {
                format!("{}, and is not of this system: name a database of its own in --mysql-url", error.message)
            }
            _ => format!("{doing}: {error}"),
        },
        kind => format!("migration: {kind}"),
    })
}

fn of_another_build(migration: &str) -> String {
    format!("the schema was made by a build whose {migration} is another than this one's: run that build")
}

fn newer(found: u32) -> String {
    format!("the schema is at version {found}, newer than this build's {}: run a newer build", wanted())
}

/// Makes the database, and waits until nobody else migrates it; the lock goes with the connection.
async fn lock(settings: &MysqlSettings) -> Result<Conn> {
    let options = super::options(settings);
    let name = options.db_name().unwrap_or_default().replace('`', "``");
    let options = mysql_async::OptsBuilder::from_opts(options).db_name(None::<String>);
    let connected = connect(options, settings.mysql_deadline).await;
    let mut conn = connected.map_err(|error| not_reached(&settings.mysql_url, &error))?;
    let created = conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}`")).await;
    // An account that may not create databases can still migrate one that is there; the migration's own error says whether.
    if let Err(error) = created {
        tracing::debug!(%error, "cannot create the database");
    }
    if super::lock(&mut conn, "migrate", &name, LOCK_WAIT).await? {
        Ok(conn)
    } else {
        Err(Error::Broken(String::from("another couponctl migrates this database; run this again when it is done")))
    }
}

/// Does a command's work on a database whose schema is the one this build was made for.
///
/// # Errors
/// Those of [`check`], and of the work.
pub async fn work_on<T>(
    settings: &MysqlSettings,
    work: impl AsyncFnOnce(&Mysql) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mysql = Mysql::new(settings);
    check(&mysql).await?;
    let done = work(&mysql).await?;
    mysql.close().await;
    Ok(done)
}

/// Checks that the schema is the one this build was made for.
///
/// # Errors
/// MySQL's, or [`Error::Broken`] with the command that brings the schema up.
pub async fn check(mysql: &Mysql) -> Result<()> {
    const NO_SUCH_TABLE: u16 = 1146;

    let applied = match applied(mysql).await {
        Ok(applied) => applied,
        Err(Error::Mysql(mysql_async::Error::Server(error))) if error.code == NO_SUCH_TABLE => Vec::new(),
        Err(error) => return Err(not_reached(mysql.address(), &error)),
    };
    if let Some(migration) = unlike(&applied) {
        return Err(Error::Broken(of_another_build(&migration)));
    }
    let (found, wanted) = (applied.last().map_or(0, |(version, _)| *version), wanted());
    match found {
        _ if found == wanted => Ok(()),
        _ if found < wanted => Err(Error::Broken(format!(
            "the schema is at version {found}, this build needs {wanted}: run `couponctl migrate`"
        ))),
        _ => Err(Error::Broken(newer(found))),
    }
}

/// Over a connection of its own, which fails soon where there is no MySQL.
async fn applied(mysql: &Mysql) -> Result<Vec<(u32, String)>> {
    let mut conn = mysql.connection_of_its_own().await?;
    let applied = mysql.within(async { Ok(conn.query(APPLIED).await?) }).await?;
    conn.disconnect().await?;
    Ok(applied)
}
