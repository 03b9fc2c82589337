//! How long a connection may live, so that a service follows its servers to where their addresses lead by now.
//!
//! Invariant: instances that started together do not all connect anew together. Each connection that a whole process shares
//! lives up to a fifth longer than it must; those of a pool are replaced one by one, when they are asked for.

use std::time::{Duration, Instant};

use deadpool::managed::{Hook, HookError, Manager};
use rand::RngExt as _;

/// When a connection made now has lived long enough: after `max_age`, or up to a fifth later.
#[must_use]
pub fn end_of_life(max_age: Duration) -> Instant {
    Instant::now() + max_age.mul_f64(1.0 + rand::rng().random_range(0.0..0.2))
}

/// Has a pool replace a connection that is this old when it is next asked for; it belongs before recycling.
#[must_use]
pub fn younger_than<M: Manager>(max_age: Duration) -> Hook<M> {
    Hook::sync_fn(
        move |_, metrics| {
            if metrics.age() < max_age { Ok(()) } else { Err(HookError::message("it is as old as it may be")) }
        },
    )
}
