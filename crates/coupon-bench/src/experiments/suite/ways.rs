//! Compares the two ways with their simpler variants and with their limits.

use super::record::{Load, Suite};
use super::turn::{TRACE_RATIO, Turn};
use crate::crowd::{CLIENTS, Crowd};
use crate::experiments::ceilings::{self, Ceilings};
use crate::lab::setup::{COALESCED, ONE_BY_ONE, QUEUE, SELECT_UPDATE, SINGLE_STATEMENT};

/// The turns of each load.
struct Turns {
    coalesced: Vec<usize>,
    select_update: Vec<usize>,
    queue: Vec<usize>,
    one_by_one: Vec<usize>,
}

pub async fn measure(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let turns = loads_and_stages(suite).await?;
    let ceilings = Ceilings::of_rounds(&suite.record.ceilings);
    for stage in &ceilings.stages {
        suite.report(&format!("1: {}, claims a second", stage.name), stage.per_second);
    }
    suite.report("1: limit of the queue way, claims a second", ceilings.queue_limit);
    suite.report("1: limit of the skiplock way, claims a second", ceilings.skiplock_limit);
    check(suite, &turns, &ceilings);
    one_client(suite).await
}

async fn loads_and_stages(suite: &mut Suite<'_>) -> anyhow::Result<Turns> {
    let coupons = if suite.quick { 20_000 } else { 100_000 };
    // A way that handles one claim at a time shows its rate with fewer claims.
    let (all, few) = (coupons, coupons / if suite.quick { 4 } else { 10 });
    let load = |setup, accounts| -> Load { (setup, coupons, Crowd::of(accounts, CLIENTS, TRACE_RATIO)) };
    let loads = [load(&COALESCED, all), load(&SELECT_UPDATE, few), load(&QUEUE, all), load(&ONE_BY_ONE, few)];
    let mut turns = [const { Vec::new() }; 4];
    for _ in 0..suite.rounds() {
        // Taken between the loads, so that the limits come from the same period as the rates compared with them.
        stages(suite).await?;
        suite.round(&loads, &mut turns).await?;
    }
    let [coalesced, select_update, queue, one_by_one] = turns;
    Ok(Turns { coalesced, select_update, queue, one_by_one })
}

/// Measures each stage alone, in one round.
async fn stages(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let arguments = ceilings::Arguments { seconds: if suite.quick { 1 } else { 3 }, clients: CLIENTS };
    let round = ceilings::run(suite.mysql, suite.redis, suite.amqp, &arguments).await?;
    suite.record.ceilings.push(round);
    Ok(())
}

fn check(suite: &mut Suite<'_>, turns: &Turns, ceilings: &Ceilings) {
    let rate = |turn: &Turn| turn.claims_per_second;
    let accepted = |turn: &Turn| turn.accepted_per_second;
    let p99 = |turn: &Turn| turn.result.outcome_p99_ms;
    let naive = suite.median_of(&turns.select_update, rate);
    let ratio = suite.median_of(&turns.coalesced, rate) / naive;
    let p99s = suite.median_of(&turns.coalesced, p99) / suite.median_of(&turns.select_update, p99);
    let batches = suite.median_of(&turns.queue, rate) / suite.median_of(&turns.one_by_one, rate);
    let accepted = suite.median_of(&turns.queue, accepted) / naive;
    let of_queue = suite.median_of(&turns.queue, rate) / ceilings.queue_limit;
    let of_skiplock = suite.median_of(&turns.coalesced, rate) / ceilings.skiplock_limit;
    suite.at_least("2: coalesced / select-update, claims a second, 256 clients", ratio, 6.0);
    suite.at_most("2: coalesced / select-update, p99", p99s, 1.0);
    suite.at_least("3: queue, default batches / batches of one, to the last outcome", batches, 4.0);
    suite.at_least("3: queue accepted / select-update, claims a second", accepted, 2.0);
    // Less than of skiplock, because its limit leaves out more: outcomes are recorded and pushed.
    suite.at_least("4: queue, of its limit", of_queue, 0.5);
    suite.at_least("4: skiplock, of its limit", of_skiplock, 0.6);
}

/// Checks what grouping costs a client on its own.
async fn one_client(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let load = |setup| -> Load { (setup, 3_000, Crowd::of(1_500, 1, TRACE_RATIO)) };
    let [coalesced, single] = &suite.in_turns([load(&COALESCED), load(&SINGLE_STATEMENT)]).await?;
    let p50 = |turn: &Turn| turn.result.outcome_p50_ms;
    let latency = suite.median_of(coalesced, p50) / suite.median_of(single, p50);
    suite.at_most("2: coalesced / single-statement, p50 of 1 client", latency, 1.1);
    Ok(())
}
