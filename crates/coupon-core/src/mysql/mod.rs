//! MySQL, the truth: a pool with a deadline on everything, and the statements that two or more programs run.
//!
//! Invariant: work in MySQL runs in a task of its own on the service's runtime, so that a client who hangs up never
//! leaves a transaction half done with its locks held.

pub mod bulk;
pub mod campaigns;
pub mod coupons;
pub mod schema;
pub mod sql;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Pool, PoolConstraints, PoolOpts};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::settings::{MysqlSettings, ServerUrl};
use crate::telemetry::metrics;

/// Connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Mysql {
    pool: Pool,
    runtime: Handle,
    deadline: Duration,
    address: ServerUrl,
}

impl Mysql {
    /// A pool on the current tokio runtime; it connects when it is first used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(settings: &MysqlSettings) -> Self {
        let connections = usize::from(settings.mysql_connections);
        let constraints = PoolConstraints::new(connections, connections).unwrap_or_default();
        let pool_options = PoolOpts::default()
            .with_constraints(constraints)
            // A reset costs a round trip at each return and forgets the prepared statements. Nothing here changes a
            // session after `init`.
            .with_reset_connection(false);
        // The settings parser has tried this address already.
        let options = mysql_async::Opts::from_url(settings.mysql_url.reveal()).unwrap_or_default();
        let options = OptsBuilder::from_opts(options)
            .pool_opts(pool_options)
            // Else a connection to localhost may move to a unix socket unasked.
            .prefer_socket(false)
            // Rows that an UPDATE has changed are counted here, not those that it has found.
            .client_found_rows(false)
            .init(sql::SESSION.iter().map(|statement| String::from(*statement)).collect::<Vec<_>>());
        Self {
            pool: Pool::new(options),
            runtime: Handle::current(),
            deadline: settings.mysql_deadline,
            address: settings.mysql_url.clone(),
        }
    }

    /// A connection for as long as the caller wants it.
    ///
    /// # Errors
    /// None is to be had within the deadline.
    pub async fn connection(&self) -> Result<Conn> {
        self.within(async { Ok(self.pool.get_conn().await?) }).await
    }

    /// Ends `work` at the deadline of this pool.
    ///
    /// # Errors
    /// Those of the work, or [`Error::Deadline`].
    pub async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or(Err(Error::Deadline { what: "work in MySQL", limit: self.deadline }))
    }

    /// Does a piece of work on a connection, to its end or the deadline, even when the caller is dropped meanwhile.
    ///
    /// # Errors
    /// Those of the work, or [`Error::Deadline`].
    pub async fn run<T, F>(&self, work: impl FnOnce(Conn) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let this = self.clone();
        let task =
            self.runtime.spawn(async move { this.within(async { work(this.pool.get_conn().await?).await }).await });
        task.await.unwrap_or_else(|error| Err(Error::Broken(format!("a task in MySQL ended early: {error}"))))
    }

    /// Tells metrics how its connections are used.
    pub fn measure(&self) {
        let pool = self.pool.metrics();
        let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        metrics::mysql_connections(
            now(&pool.connections_in_use),
            now(&pool.connections_in_pool),
            now(&pool.active_wait_requests),
        );
    }

    /// Where the server is, without name and password.
    #[must_use]
    pub fn address(&self) -> &ServerUrl {
        &self.address
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        self.run(async |mut conn: Conn| Ok(conn.ping().await?)).await
    }

    /// Says good-bye to the server; what is still in hand fails.
    pub async fn close(self) {
        // A server that is gone needs no good-bye.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.pool.disconnect()).await;
    }
}
