//! The schema and its version. Its migrations are embedded; [`super::migrate`] runs them.
//!
//! Invariant: a service never changes the schema; it refuses to start on one that it was not built for.

use std::cmp::Ordering;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use refinery::{Migration, Runner};

use super::{Mysql, not_reached};
use crate::error::{Error, Result};
use crate::settings::MysqlSettings;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// How the schema of a database compares with that of this build.
#[derive(Debug)]
pub enum Standing {
    /// It is the one that this build was made for.
    Fits,
    /// It has this earlier version; 0 if it has no tables.
    Older(u32),
    /// It has this later version.
    Newer(u32),
    /// It was made without this migration, or with another text of it.
    OfAnotherBuild(String),
}

impl Standing {
    /// Compares the schema of the connection's database.
    ///
    /// # Errors
    /// Any error from MySQL; a database without our tables is not an error.
    pub async fn of(conn: &mut Conn) -> Result<Self, mysql_async::Error> {
        let applied = applied(conn).await?;
        let found = applied.last().map_or(0, |(version, _)| *version);
        Ok(match (found.cmp(&wanted()), unlike(&applied)) {
            (Ordering::Greater, _) => Self::Newer(found),
            (_, Some(migration)) => Self::OfAnotherBuild(migration),
            (Ordering::Less, None) => Self::Older(found),
            (Ordering::Equal, None) => Self::Fits,
        })
    }

    /// What is wrong with the schema, if anything is.
    #[must_use]
    pub fn flaw(&self) -> Option<Flaw> {
        match self {
            Self::Fits => None,
            Self::Older(found) => Some(Flaw {
                what: format!("the schema is at version {found}, this build needs {}", wanted()),
                remedy: "run `couponctl migrate`",
            }),
            Self::Newer(found) => Some(newer(*found)),
            Self::OfAnotherBuild(migration) => Some(of_another_build(migration)),
        }
    }
}

/// What keeps this build from using a schema.
#[derive(Debug)]
pub struct Flaw {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl From<Flaw> for Error {
    fn from(Flaw { what, remedy }: Flaw) -> Self {
        Self::Broken(format!("{what}: {remedy}"))
    }
}

fn newer(found: u32) -> Flaw {
    let what = format!("the schema is at version {found}, newer than this build's {}", wanted());
    Flaw { what, remedy: "run newer builds of all programs" }
}

fn of_another_build(migration: &str) -> Flaw {
    let what = format!("the schema was made by a build that lacks {migration}, or has another text of it");
    Flaw { what, remedy: "run that build" }
}

/// The migrations that have been applied to the connection's database, each with the checksum of its text.
pub(super) async fn applied(conn: &mut Conn) -> Result<Vec<(u32, String)>, mysql_async::Error> {
    const NO_SUCH_TABLE: u16 = 1146;
    const APPLIED: &str = "SELECT version, checksum FROM refinery_schema_history ORDER BY version";

    match conn.query(APPLIED).await {
        Err(mysql_async::Error::Server(error)) if error.code == NO_SUCH_TABLE => Ok(Vec::new()),
        applied => applied,
    }
}

/// The version that this build was made for.
#[must_use]
pub fn wanted() -> u32 {
    runner().get_migrations().iter().map(version).max().unwrap_or(0)
}

pub(super) fn version(migration: &Migration) -> u32 {
    u32::try_from(migration.version()).unwrap_or(u32::MAX)
}

/// The first of this build's migrations, up to the last one applied, that was not applied with the same text. Each
/// applied one comes with the checksum of its text.
fn unlike(applied: &[(u32, String)]) -> Option<String> {
    let (last, _) = applied.last()?;
    let runner = runner();
    let mut due = runner.get_migrations().iter().filter(|ours| version(ours) <= *last);
    due.find(|ours| !applied.contains(&(version(ours), ours.checksum().to_string()))).map(ToString::to_string)
}

pub(super) fn runner() -> Runner {
    embedded::migrations::runner()
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

/// Checks that the schema is the one this build was made for, over a connection of its own, which fails soon if there
/// is no MySQL.
///
/// # Errors
/// [`Error::Broken`] with what to do about the server or the schema.
pub async fn check(mysql: &Mysql) -> Result<()> {
    let standing = async {
        let mut conn = mysql.connection_of_its_own().await?;
        let standing = mysql.within(async { Ok(Standing::of(&mut conn).await?) }).await?;
        conn.disconnect().await?;
        Ok(standing)
    };
    let standing = standing.await.map_err(|error| not_reached(mysql.address(), &error))?;
    standing.flaw().map_or(Ok(()), |flaw| Err(flaw.into()))
}
