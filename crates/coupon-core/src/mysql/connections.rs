//! Connections to MySQL that are thrown away together when one of them turns out to be bad.
//!
//! A server can be replaced behind its name at any time, while connections to the one before stay up: demoted to a
//! replica, frozen, or simply another machine. Invariants: no connection is used for longer than its age allows; after
//! an error that is not the statement's fault, or a deadline that passed, none that was made before is handed out again.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts};
use tokio_util::sync::CancellationToken;

/// An idle connection is probed after this, so that one whose peer is gone without a word does not stay.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often idle connections that are too old are closed.
const CLOSE_OLD_EVERY: Duration = Duration::from_secs(5);

/// A pool of as many connections as asked for, made when they are first used.
pub struct Connections {
    options: Opts,
    current: RwLock<Generation>,
}

/// Connections that live and go together.
#[derive(Clone)]
pub struct Generation {
    /// Hands them out.
    pub pool: Pool,
    /// Cancelled when work on them can only hang.
    pub hung: CancellationToken,
    number: u64,
}

impl Connections {
    /// Creates a pool with these options: up to `count` connections at once, none older than `max_age` and a fifth, which
    /// spreads their ends.
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

    /// Those to use now.
    pub fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes new ones for all callers from now on. Those of this generation end when the work on them does. Of many callers
    /// that find the same generation bad, the first does it.
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
