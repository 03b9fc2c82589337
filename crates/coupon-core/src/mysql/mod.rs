//! MySQL, the source of truth: a pool with a deadline on everything, and the statements that two or more programs run.
//!
//! Invariant: work in MySQL runs in a task of its own on the service's runtime, so that a client that hangs up never
//! leaves a transaction half done with its locks held.

mod attend;
pub mod campaigns;
pub mod conflicts;
mod connections;
pub mod coupons;
pub mod loads;
mod lock;
mod migrate;
mod reach;
pub mod schema;
pub mod sql;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, TxOpts};
use tokio::runtime::Handle;

use self::connections::{Connections, Generation};
pub use self::lock::lock;
pub use self::migrate::migrate;
pub use self::reach::{connect, not_reached, reach, remedy_of_not_reached};
use crate::domain::CampaignId;
use crate::error::{Error, Result, WORK_IN_MYSQL};
use crate::settings::{MysqlSettings, ServerUrl};
use crate::telemetry::metrics;

/// A server whose check takes longer than this is as good as away.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// A number that no account has.
const NOBODY: u64 = 0;

/// Connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Mysql {
    work: Arc<Connections>,
    /// One connection that is kept for checks, because work may have taken all others.
    checks: Arc<Connections>,
    options: Opts,
    runtime: Handle,
    deadline: Duration,
    address: ServerUrl,
}

impl Mysql {
    /// Creates a pool on the current tokio runtime; it connects when it is first used.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn new(settings: &MysqlSettings) -> Self {
        let options = options(settings);
        let connections = |count| Arc::new(Connections::new(&options, count, settings.mysql_connection_age));
        Self {
            work: connections(usize::from(settings.mysql_connections)),
            checks: connections(1),
            options,
            runtime: Handle::current(),
            deadline: settings.mysql_deadline,
            address: settings.mysql_url.clone(),
        }
    }

    /// A connection for as long as the caller wants it.
    ///
    /// # Errors
    /// No connection is available within the deadline.
    pub async fn connection(&self) -> Result<Conn> {
        let connections = self.work.current();
        self.within(async { Ok(connections.pool.get_conn().await?) }).await
    }

    /// A connection outside the pool, for callers that hold it while they work on others: taken from a small pool, it
    /// would make them wait for themselves.
    ///
    /// # Errors
    /// The server gives no connection within the deadline.
    pub async fn connection_of_its_own(&self) -> Result<Conn> {
        connect(self.options.clone(), self.deadline).await
    }

    /// Ends `work` at the deadline of this pool.
    ///
    /// # Errors
    /// Those of the work, or [`Error::Deadline`].
    pub async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or(Err(Error::Deadline { what: WORK_IN_MYSQL, limit: self.deadline }))
    }

    /// Runs work on a connection, to its end or the deadline, even if the caller is dropped meanwhile. The connections
    /// are thrown away if they turn out to be unfit for it.
    ///
    /// # Errors
    /// Those of the work, [`Error::Deadline`], or [`Error::Away`] when the server was found to hang meanwhile.
    pub async fn run<T, F>(&self, work: impl FnOnce(Conn) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let this = self.clone();
        let task = self.runtime.spawn(async move {
            let connections = this.work.current();
            tokio::select! {
                done = this.within(on(&this.work, &connections, work)) => done,
                () = connections.hung.cancelled() => Err(Error::Away { what: "MySQL" }),
            }
        });
        task.await.unwrap_or_else(|error| Err(Error::Broken(format!("a task in MySQL ended early: {error}"))))
    }

    /// Whether campaigns and coupons can be read.
    ///
    /// # Errors
    /// Why they cannot.
    pub async fn can_read(&self) -> Result<()> {
        self.check(async |mut conn: Conn| Ok(conn.query_drop(sql::READ_NOTHING).await?)).await?;
        self.can_connect().await
    }

    /// Whether coupons can be issued: the server accepts an UPDATE of no row, campaigns can be read as each claim reads
    /// them, and plain reads are not sent elsewhere.
    ///
    /// # Errors
    /// Why they cannot.
    pub async fn can_issue(&self) -> Result<()> {
        self.check(async |mut conn: Conn| {
            conn.query_drop(sql::ISSUE_NOTHING).await?;
            conn.query_drop(sql::READ_NOTHING).await?;
            let is_read_only: Option<bool> = conn.query_first(sql::READS_ARE_OF_A_REPLICA).await?;
            if is_read_only == Some(true) { Err(Error::ReadsElsewhere) } else { Ok(()) }
        })
        .await?;
        self.can_connect().await
    }

    /// Whether work has a connection or can get one: the user may be allowed no more than the one for checks.
    async fn can_connect(&self) -> Result<()> {
        let pool = self.work.current().pool;
        let counts = pool.metrics();
        if now(&counts.connections_in_use) + now(&counts.connections_in_pool) == 0 {
            let connected = tokio::time::timeout(CHECK_DEADLINE, pool.get_conn()).await;
            connected.map_err(|_| Error::Deadline { what: "connecting to MySQL", limit: CHECK_DEADLINE })??;
        }
        Ok(())
    }

    /// Whether a free coupon of this campaign can be issued. Nobody gets it: it is tried in a transaction that is
    /// rolled back. This shows what refuses only if there is a row, such as a trigger.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn would_issue(&self, campaign: CampaignId) -> Result<()> {
        self.check(async move |mut conn: Conn| {
            let mut undone = conn.start_transaction(TxOpts::default()).await?;
            undone.exec_drop(sql::CLAIM_ONE, (campaign.0, NOBODY)).await?;
            Ok(undone.rollback().await?)
        })
        .await
    }

    /// Checks the server over the connection kept for checks. If the connection is to blame for a failure, those for
    /// work, which lead to the same server, are thrown away too; work that would only hang there ends now.
    async fn check<F>(&self, check: impl FnOnce(Conn) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let connections = self.checks.current();
        let checked = tokio::time::timeout(CHECK_DEADLINE, on(&self.checks, &connections, check))
            .await
            .unwrap_or(Err(Error::Deadline { what: "a check of MySQL", limit: CHECK_DEADLINE }));
        if let Err(error) = &checked
            && error.blames_the_connection()
        {
            let work = self.work.current();
            self.work.replace(&work);
            self.checks.replace(&connections);
            if matches!(error, Error::Deadline { .. }) {
                work.hung.cancel();
            }
        }
        checked
    }

    /// Records in metrics how its connections are used.
    pub fn measure(&self) {
        let pool = self.work.current().pool.metrics();
        metrics::mysql_connections(
            now(&pool.connections_in_use),
            now(&pool.connections_in_pool),
            now(&pool.active_wait_requests),
        );
    }

    /// The address of the server, without user and password.
    #[must_use]
    pub fn address(&self) -> &ServerUrl {
        &self.address
    }

    /// Disconnects from the server; work that is still in flight fails.
    pub async fn close(self) {
        for connections in [self.work, self.checks] {
            // A server that is gone need not be told.
            let _ = tokio::time::timeout(Duration::from_secs(2), connections.current().pool.disconnect()).await;
        }
    }
}

/// The options of all our connections, whatever the server's own defaults are.
fn options(settings: &MysqlSettings) -> Opts {
    reach(&settings.mysql_url, &settings.tls)
        // An UPDATE must count the rows that it has changed, not those that it has found.
        .client_found_rows(false)
        .setup(sql::SESSION.iter().map(|statement| String::from(*statement)).collect::<Vec<_>>())
        .into()
}

/// Runs work on one of these connections. After an error that is not the work's own fault they are not used again.
async fn on<T, F>(all: &Connections, connections: &Generation, work: impl FnOnce(Conn) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let conn = connections.pool.get_conn().await?;
    let mut unfit = Unfit { all, connections, is_so: true };
    let done = work(conn).await;
    unfit.is_so = done.as_ref().is_err_and(Error::blames_the_connection);
    done
}

fn now(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

/// Throws connections away when it is dropped, which also happens when a deadline ends the work on one of them.
struct Unfit<'a> {
    all: &'a Connections,
    connections: &'a Generation,
    is_so: bool,
}

impl Drop for Unfit<'_> {
    fn drop(&mut self) {
        if self.is_so {
            self.all.replace(self.connections);
        }
    }
}
