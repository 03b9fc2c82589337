//! Plays the faults of a schedule at their times, and watches the programs meanwhile.
//!
//! Invariants: two faults never hold the same thing at the same time; a fault that cannot be made or repaired fails the
//! run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coupon_core::terminal;
use serde::Serialize;
use tokio::sync::{Mutex as Lock, watch};
use tokio::task::JoinSet;

use crate::clients::Clients;
use crate::faults::Scene;
use crate::journal::Micros;
use crate::programs::End;
use crate::schedule::{Fault, Schedule};
use crate::stage::Stage;

/// How often the programs are checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The deadline of one fault, including the recovery of whatever it has to wait for.
const FAULT_DEADLINE: Duration = Duration::from_secs(150);

/// The counters of queue-consumer that show what a fault has cost, in the order of [`Sample::counts`].
const COUNTERS: [&str; 3] = ["coupon_redeliveries_total", "coupon_retries_total", "coupon_refills_total"];

/// A fault that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// The fault as planned.
    #[serde(flatten)]
    pub fault: Fault,
    /// When the fault began to break things.
    pub began: Micros,
    /// When everything it broke was working again.
    pub healed: Micros,
    /// The reason why the fault could not be made or repaired.
    pub error: Option<String>,
}

/// The totals counted by all consumers up to a time, across their restarts.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The time.
    pub at: Micros,
    /// Redelivered messages, repeated work, refills.
    pub counts: [f64; 3],
}

/// What was observed beside the faults.
#[derive(Default)]
pub struct Seen {
    /// Programs that ended on their own.
    pub ends: Vec<End>,
    /// The consumers' counters, in order of time.
    pub samples: Vec<Sample>,
    /// The most by which the run itself was late: on a machine without a core to spare, everything looks slow.
    pub late: Micros,
}

/// Plays all faults. Returns them, in the order in which they were planned, once the last one is repaired.
pub async fn play(stage: &Arc<Stage>, clients: &Arc<Clients>, schedule: &Schedule) -> Vec<Played> {
    let things: BTreeSet<String> =
        schedule.faults.iter().flat_map(|fault| fault.breaks().into_iter().map(String::from)).collect();
    let locks: Arc<BTreeMap<String, Lock<()>>> =
        Arc::new(things.into_iter().map(|thing| (thing, Lock::new(()))).collect());
    let mut playing = JoinSet::new();
    for (n, fault) in schedule.faults.iter().cloned().enumerate() {
        tokio::time::sleep_until(clients.journal.began() + Duration::from_millis(fault.at_ms)).await;
        let scene = Scene::new(Arc::clone(stage), Arc::clone(clients), fault);
        let locks = Arc::clone(&locks);
        playing.spawn(async move { (n, alone(&scene, &locks).await) });
    }
    let mut played: Vec<(usize, Played)> = playing.join_all().await;
    played.sort_by_key(|(n, _)| *n);
    played.into_iter().map(|(_, played)| played).collect()
}

async fn alone(scene: &Scene, locks: &BTreeMap<String, Lock<()>>) -> Played {
    let mut mine = Vec::new();
    // Locked in the order of their names, so that no two faults wait for each other.
    let wanted: BTreeSet<&str> = scene.fault.breaks().into_iter().collect();
    for thing in wanted {
        if let Some(lock) = locks.get(thing) {
            mine.push(lock.lock().await);
        }
    }
    let outcome = tokio::time::timeout(FAULT_DEADLINE, scene.play()).await;
    let error = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("it is not over after {FAULT_DEADLINE:?}")),
    };
    let healed = scene.clients.journal.now();
    say(scene, healed, error.as_deref());
    Played { fault: scene.fault.clone(), began: scene.began(), healed, error }
}

/// Prints a line of progress.
fn say(scene: &Scene, healed: Micros, error: Option<&str>) {
    let (fault, began) = (&scene.fault, scene.began());
    let took = healed.saturating_sub(began) / 1_000;
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    terminal::note(&format!("{:7} ms  {} of {}, {took} ms{error}", began / 1_000, fault.kind.name(), fault.target));
}

/// Measures how late this process is woken, until told to stop.
pub async fn watch_itself(clients: Arc<Clients>, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let due = clients.journal.now() + u64::try_from(LOOK_EVERY.as_micros()).unwrap_or(0);
        tokio::time::sleep(LOOK_EVERY).await;
        let late = clients.journal.now().saturating_sub(due);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.late = seen.late.max(late);
    }
}

/// Watches the programs until told to stop.
pub async fn watch(stage: Arc<Stage>, clients: Arc<Clients>, seen: Arc<Mutex<Seen>>, stop: watch::Receiver<bool>) {
    let mut last: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    let mut total = [0.0; 3];
    while !*stop.borrow() {
        tokio::time::sleep(LOOK_EVERY).await;
        for program in &stage.programs {
            let ended = program.look().await.unwrap_or_else(|error| Some(End::Itself(format!("{error:#}"))));
            seen.lock().unwrap_or_else(PoisonError::into_inner).ends.extend(ended);
            if !program.name.starts_with("queue-consumer") {
                continue;
            }
            let Some(counts) = program.counters(COUNTERS).await else { continue };
            let before = last.insert(program.name, counts).unwrap_or_default();
            for ((total, now), before) in total.iter_mut().zip(counts).zip(before) {
                // A counter that has decreased belongs to a process started since.
                *total += if now < before { now } else { now - before };
            }
        }
        let sample = Sample { at: clients.journal.now(), counts: total };
        seen.lock().unwrap_or_else(PoisonError::into_inner).samples.push(sample);
    }
}
