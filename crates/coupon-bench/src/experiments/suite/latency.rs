//! Measures latency when the load is half of what a way can handle.

use super::record::Suite;
use super::turn::{Turn, steady};
use crate::lab::setup::{COALESCED, QUEUE};

type Figure = fn(&Turn) -> f64;

const FIGURES: [(&str, Figure); 6] = [
    ("p50 to the answer", |turn| turn.result.p50_ms),
    ("p99 to the answer", |turn| turn.result.p99_ms),
    ("p99.9 to the answer", |turn| turn.result.p999_ms),
    ("p50 to the outcome", |turn| turn.result.outcome_p50_ms),
    ("p99 to the outcome", |turn| turn.result.outcome_p99_ms),
    ("p99.9 to the outcome", |turn| turn.result.outcome_p999_ms),
];

pub async fn half_rate(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    for setup in [&QUEUE, &COALESCED] {
        let (rate, seconds) = (suite.rate_of(setup).await? / 2.0, if suite.quick { 10.0 } else { 60.0 });
        let turn = steady(suite.mysql, setup, rate, seconds).await?;
        let figures = FIGURES.map(|(name, figure)| (name, figure(&turn)));
        suite.keep(turn);
        for (name, measured) in figures {
            suite.report(&format!("7: {}, {name} at half rate, ms", setup.name), measured);
        }
    }
    Ok(())
}
