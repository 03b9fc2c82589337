//! Which installation this is: several may share a broker and a Redis, and a program must never take the claims or the
//! keys of another one for its own.
//!
//! Invariant: the id comes from the database, which decides who owns a coupon, and from nowhere else. Two programs have
//! the same id exactly when they share that database.

use std::fmt;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::domain::InstallationId;
use crate::error::{Error, Result};
use crate::mysql::Mysql;
use crate::settings::Namespace;

/// An installation. Everything that it keeps on servers shared with others is named after it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installation {
    /// The prefix of its keys and queues.
    pub namespace: Namespace,
    /// Its id.
    pub id: InstallationId,
}

impl Installation {
    /// The installation that a database belongs to.
    ///
    /// # Errors
    /// Any error from MySQL, or [`Error::Broken`] if the database holds no id.
    pub async fn of(mysql: &Mysql, namespace: &Namespace) -> Result<Self> {
        let id = mysql
            .run(async |mut conn: Conn| Ok(conn.query_first::<uuid::Uuid, _>("SELECT id FROM installation").await?))
            .await?;
        let no_id = || Error::Broken(String::from("the table installation has no row: restore it from a backup"));
        Ok(Self { namespace: namespace.clone(), id: InstallationId(id.ok_or_else(no_id)?) })
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.id)
    }
}
