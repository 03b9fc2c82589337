//! How long a connection may live: many instances that started together must not all connect anew together.

use std::time::{Duration, Instant};

use rand::RngExt as _;

/// When a connection made now has lived long enough: after `max_age`, or up to a fifth later.
#[must_use]
pub fn end_of_life(max_age: Duration) -> Instant {
    Instant::now() + max_age.mul_f64(1.0 + rand::rng().random_range(0.0..0.2))
}
