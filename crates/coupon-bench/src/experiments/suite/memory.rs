//! Measures memory over a long run of both ways at the same time, and when a consumer starts late.

use std::time::Duration;

use coupon_core::rabbitmq::{self, Queues};
use coupon_core::terminal;

use super::record::Suite;
use super::turn::{Turn, steady};
use crate::crowd::{CLIENTS, Crowd};
use crate::experiments::load;
use crate::lab::campaigns::make_campaign;
use crate::lab::memory::{Memory, Watch};
use crate::lab::service::Service;
use crate::lab::setup::{COALESCED, QUEUE};
use crate::lab::stand::{Stand, Way};

/// Claims per second on each way in the long run: a fraction of what they can handle, because both run at the same
/// time.
const ENDURANCE_RATE: f64 = 1_500.0;

/// How often the length of the queue is compared.
const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// Measures memory over a long run of both ways at the same time, and how soon a service is ready.
pub async fn endurance(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let seconds = if suite.quick { 20.0 } else { 600.0 };
    let (queue, coalesced) = tokio::try_join!(
        steady(suite.mysql, &QUEUE, ENDURANCE_RATE, seconds),
        steady(suite.mysql, &COALESCED, ENDURANCE_RATE, seconds),
    )?;
    for turn in [queue, coalesced] {
        let memory = turn.memory.clone();
        suite.keep(turn);
        check_peaks(suite, &format!("with 1,000 connections for {seconds} s"), &memory);
        for Memory { program, fifths_mib, ready_in_seconds, .. } in memory {
            // A quick run ends while caches are still filling.
            if let [_, second, .., last] = fifths_mib.as_slice()
                && !suite.quick
            {
                let name = format!("8: {program}, memory in the last fifth of {seconds} s / in the second");
                suite.at_most(&name, last / second, 1.1);
            }
            suite.at_most(&format!("8: {program}, ready after its start, s"), ready_in_seconds, 1.0);
        }
    }
    Ok(())
}

/// Starts a consumer late, when all claims already wait in the queue.
pub async fn backlog(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    let claims = if suite.quick { 100_000 } else { 1_000_000 };
    terminal::note(&format!("a queue of {claims} claims"));
    let environment = [("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))];
    let stand = Stand::start(Way::Queue, 0, &environment).await?;
    let campaign = make_campaign(suite.mysql, "backlog", claims / 10).await?;
    let crowd = Crowd { followers: CLIENTS, patience: 600, ..Crowd::of(claims, 1_000 - CLIENTS, 0.0) };
    let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
    let watch = Watch::start(stand.services());
    let late = async {
        until_all_wait(suite).await?;
        let consumer = Service::start("queue-consumer", &environment).await?;
        watch.add(&consumer);
        anyhow::Ok(consumer)
    };
    let (result, consumer) = tokio::join!(load::run(suite.mysql, "backlog", &load), late);
    drop(consumer?);
    let memory = watch.end();
    check_peaks(suite, &format!("with 1,000 connections and {claims} claims waiting"), &memory);
    suite.keep(Turn::new("backlog", result?, memory, Vec::new()));
    Ok(())
}

fn check_peaks(suite: &mut Suite<'_>, when: &str, memory: &[Memory]) {
    for Memory { program, peak_mib, .. } in memory {
        suite.at_most(&format!("8: {program}, most memory {when}, MiB"), *peak_mib, 64.0);
    }
}

/// Waits until the queue of claims has stopped growing.
async fn until_all_wait(suite: &Suite<'_>) -> anyhow::Result<()> {
    let queues = Queues::new(suite.namespace, suite.amqp);
    let connection = rabbitmq::connect(suite.amqp, "coupon-bench").await?;
    let mut before = 0;
    loop {
        tokio::time::sleep(COMPARE_EVERY).await;
        let now = rabbitmq::message_count(&connection, &queues.claims).await?.unwrap_or(0);
        if now > 0 && now == before {
            return Ok(());
        }
        before = now;
    }
}
