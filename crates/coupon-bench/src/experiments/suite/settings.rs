//! Measures how other values of the settings change the rate, one setting at a time, and compares the strategies.

use anyhow::Context;

use super::record::Suite;
use super::turn::TRACE_RATIO;
use crate::crowd::{CLIENTS, Crowd};
use crate::lab::setup::{BLIND_UPDATE, FOR_UPDATE, SCATTERED, SELECT_UPDATE, SINGLE_STATEMENT, Setup};

static QUEUE: [Setup; 9] = [
    Setup::queue("queue", 1, &[]),
    Setup::queue("queue, CLAIMS_PER_MESSAGE=1", 1, &[("CLAIMS_PER_MESSAGE", "1")]),
    Setup::queue("queue, CLAIMS_PER_MESSAGE=10", 1, &[("CLAIMS_PER_MESSAGE", "10")]),
    Setup::queue("queue, BATCH_MAX=100", 1, &[("BATCH_MAX", "100")]),
    Setup::queue("queue, BATCH_MAX=2000", 1, &[("BATCH_MAX", "2000")]),
    Setup::queue("queue, PREFETCH=10", 1, &[("PREFETCH", "10")]),
    Setup::queue("queue, PREFETCH=200", 1, &[("PREFETCH", "200")]),
    Setup::queue("queue, REFILL_MAX=1000", 1, &[("REFILL_MAX", "1000")]),
    Setup::queue("queue, HTTP_WORKERS=1", 1, &[("HTTP_WORKERS", "1")]),
];
static SKIPLOCK: [Setup; 6] = [
    Setup::skiplock("coalesced", &[]),
    Setup::skiplock("coalesced, CLAIM_GROUPS=1", &[("CLAIM_GROUPS", "1")]),
    Setup::skiplock("coalesced, CLAIM_GROUPS=4", &[("CLAIM_GROUPS", "4")]),
    Setup::skiplock("coalesced, GROUP_MAX=20", &[("GROUP_MAX", "20")]),
    Setup::skiplock("coalesced, GROUP_MAX=100", &[("GROUP_MAX", "100")]),
    Setup::skiplock("coalesced, HTTP_WORKERS=1", &[("HTTP_WORKERS", "1")]),
];
pub async fn measure(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    against_the_first(suite, QUEUE.each_ref(), 30_000).await?;
    against_the_first(suite, SKIPLOCK.each_ref(), 30_000).await?;
    against_the_first(suite, [&SELECT_UPDATE, &SINGLE_STATEMENT, &SCATTERED, &FOR_UPDATE, &BLIND_UPDATE], 5_000).await
}

async fn against_the_first<const N: usize>(
    suite: &mut Suite<'_>,
    setups: [&Setup; N],
    claims: u64,
) -> anyhow::Result<()> {
    let loads = setups.map(|setup| (setup, claims, Crowd::of(claims, CLIENTS, TRACE_RATIO)));
    let rates = suite.in_turns(loads).await?.map(|turns| suite.median_of(&turns, |turn| turn.claims_per_second));
    let mut measured = setups.iter().zip(rates);
    let (first, rate_of_first) = measured.next().context("setups to compare")?;
    for (setup, rate) in measured {
        suite.report(&format!("settings: {} / {}", setup.name, first.name), rate / rate_of_first);
    }
    Ok(())
}
