//! Limits the age of connections, so that a service follows its servers when their addresses change.
//!
//! Invariant: instances that started together do not all reconnect together. A connection that a whole process shares
//! lives up to a fifth longer than its maximum age; pooled connections are replaced one by one, when they are next
//! taken from the pool.

use std::time::{Duration, Instant};

use deadpool::managed::{Hook, HookError, Manager};
use rand::RngExt as _;

/// Returns when a connection made now should be replaced: after `max_age`, or up to a fifth later.
#[must_use]
pub fn end_of_life(max_age: Duration) -> Instant {
    Instant::now() + max_age.mul_f64(1.0 + rand::rng().random_range(0.0..0.2))
}

/// Makes a pool replace a connection that has reached `max_age` when it is next taken. Install it as a pre-recycle
/// hook.
#[must_use]
pub fn younger_than<M: Manager>(max_age: Duration) -> Hook<M> {
    Hook::sync_fn(move |_, metrics| {
        if metrics.age() < max_age { Ok(()) } else { Err(HookError::message("it has reached its maximum age")) }
    })
}
