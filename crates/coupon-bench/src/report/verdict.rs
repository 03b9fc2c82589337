//! Summarizes the figures in sentences, for the largest size at which both ways were measured.

use crate::experiments::matrix::{Cell, Matrix};
use crate::lab::setup::{COALESCED, QUEUE};

/// Both ways at one size, with default settings.
pub struct Both<'a> {
    pub claims: u64,
    pub coupons: u64,
    pub queue: &'a Cell,
    pub skiplock: &'a Cell,
}

impl<'a> Both<'a> {
    /// Picks the largest size, with as many coupons as claims if that was measured.
    pub fn of(matrix: &'a Matrix) -> Option<Self> {
        let sizes = matrix.by_size();
        let mut both = sizes.into_iter().filter_map(|((claims, coupons), cells)| {
            let named = |name: &str| cells.iter().copied().find(|cell| cell.contender == name);
            Some(Self { claims, coupons, queue: named(QUEUE.name)?, skiplock: named(COALESCED.name)? })
        });
        both.next_back()
    }
}

/// The sentences; none if only one way was measured.
pub fn sentences(matrix: &Matrix) -> anyhow::Result<Vec<String>> {
    let Some(both) = Both::of(matrix) else { return Ok(Vec::new()) };
    let Both { claims, coupons, queue, skiplock } = both;
    let rate = format!(
        "Of {claims} claims for {coupons} coupons, skiplock settles {:.0} a second and the queue {:.0}: {}. The queue has \
         answered \"accepted\" to {:.0} a second.",
        skiplock.rate(),
        queue.rate(),
        times("skiplock", skiplock.rate(), "the queue", queue.rate()),
        queue.accepted_rate(),
    );
    let [queue_answer, queue_outcome] = queue.latencies()?;
    let [_, skiplock_outcome] = skiplock.latencies()?;
    let ms = |latencies: &crate::statistics::Latencies| {
        format!(
            "{:.0} ms at half of the claims, {:.0} ms at 99 %",
            latencies.quantile_ms(0.5),
            latencies.quantile_ms(0.99)
        )
    };
    let wait = format!(
        "To the coupon it takes {} with skiplock and {} with the queue, whose first answer takes {}.",
        ms(&skiplock_outcome),
        ms(&queue_outcome),
        ms(&queue_answer),
    );
    let cost = format!(
        "A claim costs {:.0} µs of CPU time with skiplock and {:.0} µs with the queue, all services and servers together: {}.",
        skiplock.cost_us(),
        queue.cost_us(),
        times("the queue", queue.cost_us(), "skiplock", skiplock.cost_us()),
    );
    Ok([Some(rate), Some(wait), Some(cost), order(matrix)].into_iter().flatten().collect())
}

/// How close both came to first come, first served, at the largest size that sells out.
fn order(matrix: &Matrix) -> Option<String> {
    let largest = |name: &str| {
        let cells = matrix.cells.iter().filter(|cell| cell.contender == name && cell.coupons < cell.claims);
        cells.max_by_key(|cell| (cell.claims, cell.coupons))
    };
    let (queue, skiplock) = (largest(QUEUE.name)?, largest(COALESCED.name)?);
    let share = |cell: &Cell| cell.median(|turn| turn.order.displaced) * 100.0;
    let most = |cell: &Cell| cell.median(|turn| turn.order.overtaken_max_ms);
    Some(format!(
        "Of {} coupons that {} claims wanted, {:.1} % went to somebody later with skiplock, by {:.0} ms at most, and {:.1} % \
         with the queue, by {:.0} ms.",
        queue.coupons,
        queue.claims,
        share(skiplock),
        most(skiplock),
        share(queue),
        most(queue),
    ))
}

fn times(one: &str, ours: f64, other: &str, theirs: f64) -> String {
    if ours >= theirs {
        format!("{one} {:.1} times {other}", ours / theirs)
    } else {
        format!("{other} {:.1} times {one}", theirs / ours)
    }
}
