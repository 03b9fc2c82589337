//! Connections to MySQL that are thrown away together when one of them turns out to be bad.
//!
//! The server behind a name can be replaced at any time while connections to the old one stay up: it may have been
//! demoted to a replica, be frozen, or no longer be the server of that name. Invariants: no connection is used beyond
//! its maximum age; after an error that is not the statement's fault, or a deadline that passed, no connection made
//! before is handed out again.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts};
use tokio_util::sync::CancellationToken;

/// An idle connection is probed after this, so that one whose peer has silently disappeared does not stay.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often idle connections that are too old are closed.
const CLOSE_OLD_EVERY: Duration = Duration::from_secs(5);

/// A pool of up to a given number of connections, which are made when they are first needed.
pub struct Connections {
    options: Opts,
    current: RwLock<Generation>,
}

/// Connections that are replaced together.
#[derive(Clone)]
pub struct Generation {
    /// The pool that hands them out.
    pub pool: Pool,
    /// Cancelled when work on them can only hang.
    pub hung: CancellationToken,
    number: u64,
}

impl Connections {
    /// Creates a pool with these options: up to `count` connections at the same time, none older than `max_age` plus up
    /// to a fifth of it, which spreads their ends.
    pub fn new(options: &Opts, count: usize, max_age: Duration) -> Self {
        let pool = PoolOpts::default()
            .with_constraints(PoolConstraints::new(count, count).unwrap_or_default())
            .with_abs_conn_ttl(Some(max_age))
            .with_abs_conn_ttl_jitter(Some(max_age / 5))
            .with_ttl_check_interval(CLOSE_OLD_EVERY)
            // A reset costs a round trip at each return and forgets the prepared statements. Nothing here changes a
            // session after `setup`.
            .with_reset_connection(false);
        let options: Opts =
            OptsBuilder::from_opts(options.clone()).pool_opts(pool).tcp_keepalive(Some(KEEP_ALIVE)).into();
        let current = RwLock::new(Generation::first(&options));
        Self { options, current }
    }

    /// The connections to use now.
    pub fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces a generation for all callers from now on. Its connections end when the work on them does. If many
    /// callers find the same generation bad, the first of them replaces it.
    pub fn replace(&self, bad: &Generation) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == bad.number {
            *current = Generation { number: bad.number + 1, ..Generation::first(&self.options) };
        }
    }
}

impl Generation {
    fn first(options: &Opts) -> Self {
        Self { pool: Pool::new(options.clone()), hung: CancellationToken::new(), number: 0 }
    }
}
