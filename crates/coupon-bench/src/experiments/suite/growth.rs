//! How the rate changes with more coupons, more consumers and more campaigns.

use mysql_async::prelude::Queryable;

use super::record::Suite;
use super::turn::TRACE_RATIO;
use crate::crowd::{CLIENTS, Crowd};
use crate::lab::setup::{COALESCED, QUEUE, Setup};

/// Sells out one large campaign, and again beside a snapshot that is held open.
pub async fn large_campaign(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let coupons = if suite.quick { 150_000 } else { 1_000_000 };
    for setup in [&QUEUE, &COALESCED] {
        let turn = suite.turn((setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO))).await?;
        let rate = suite.median_of(&[turn], |turn| turn.claims_per_second);
        let last = suite.median_of(&[turn], |turn| turn.result.last_tenth_to_first);
        suite.at_least(&format!("5: {}, last tenth of {coupons} / first tenth", setup.name), last, 0.8);

        let mut backup = suite.mysql.connection().await?;
        backup.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        backup.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        let turn = suite.turn((setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO))).await?;
        backup.disconnect().await?;
        let with_snapshot = suite.median_of(&[turn], |turn| turn.claims_per_second) / rate;
        suite.at_least(&format!("5: {}, beside a snapshot / without", setup.name), with_snapshot, 0.5);
    }
    Ok(())
}

/// Checks that more consumers are never much slower than one, and that they share the work.
pub async fn replicas(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    static REPLICAS: [Setup; 4] = [
        Setup::queue("1 consumer", 1, &[]),
        Setup::queue("2 consumers", 2, &[]),
        Setup::queue("4 consumers", 4, &[]),
        Setup::queue("8 consumers", 8, &[]),
    ];
    let coupons = if suite.quick { 20_000 } else { 60_000 };
    let loads = REPLICAS.each_ref().map(|setup| (setup, coupons, Crowd::of(coupons, CLIENTS, TRACE_RATIO)));
    let turns = suite.in_turns(loads).await?;
    let rates: Vec<f64> = turns.iter().map(|turns| suite.median_of(turns, |turn| turn.claims_per_second)).collect();
    let one = rates.first().copied().unwrap_or(f64::NAN);
    for (setup, rate) in REPLICAS.iter().zip(&rates).skip(1) {
        suite.at_least(&format!("5: {} / 1", setup.name), rate / one, 0.9);
    }
    for (setup, turns) in REPLICAS.iter().zip(&turns).skip(1) {
        let least = suite.median_of(turns, |turn| {
            let fair = turn.shares.iter().sum::<f64>() / turn.shares.len() as f64;
            turn.shares.iter().copied().fold(f64::INFINITY, f64::min) / fair
        });
        suite.at_least(&format!("5: {}, the least share / a fair one", setup.name), least, 0.5);
    }
    Ok(())
}

/// Sells out a thousand campaigns at the same time, with a few claims each.
pub async fn many_campaigns(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let coupons = if suite.quick { 50_000 } else { 100_000 };
    for setup in [&QUEUE, &COALESCED] {
        let of = |campaigns| (setup, coupons, Crowd { campaigns, ..Crowd::of(coupons, CLIENTS, TRACE_RATIO) });
        let turns = suite.in_turns([of(1), of(1_000)]).await?;
        let [one, thousand] = turns.map(|turns| suite.median_of(&turns, |turn| turn.claims_per_second));
        suite.at_least(&format!("5: {}, 1,000 campaigns / 1", setup.name), thousand / one, 0.7);
    }
    Ok(())
}
