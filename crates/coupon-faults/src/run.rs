//! Carries out a run, from its beginning to its report.
//!
//! Invariant: the order is fixed. Everything is set up before the load begins; the load continues until the last fault
//! has been healed for a while; nothing is judged before every client is done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coupon_core::Outcome;
use coupon_core::audit::{self, Answers, Broker};
use coupon_testkit::TestSpace;
use deadpool_redis::redis::Cmd;
use tokio::process::Command;
use tokio::sync::watch;

use crate::campaigns::{Campaigns, Role};
use crate::checkers::{self, Check, Evidence};
use crate::clients::Clients;
use crate::flushes;
use crate::journal::{Answer, Journal, Micros, Operation, Request};
use crate::load;
use crate::logs;
use crate::programs::End;
use crate::report::{Report, Setting};
use crate::schedule::Schedule;
use crate::stage::{Places, Stage};
use crate::supervisor::{self, Seen};
use crate::{effects, rows, timeline};

/// How long the load continues after the last heal, to show that the system has recovered.
const CALM: Duration = Duration::from_secs(12);

/// How long clients may follow up claims after the load: a little longer than an accepted claim may take.
const DRAIN: Micros = 35_000_000;

/// Plays a schedule.
///
/// # Errors
/// The run could not be made. Its findings are not errors: they are in the report.
pub async fn run(space: Arc<TestSpace>, schedule: &Schedule, places: &Places) -> anyhow::Result<Report> {
    let load_lasts = Duration::from_millis(schedule.load_ms) + CALM;
    let (campaigns, stock) = Campaigns::make(&space, schedule.rate, load_lasts).await;
    let campaigns = Arc::new(campaigns);
    let stage = Arc::new(Stage::set(Arc::clone(&space), places).await?);
    let journal = Arc::new(Journal::new());
    for stock in stock {
        journal.restocked(stock);
    }
    let clients = Arc::new(Clients::new(stage.addresses.clone(), Arc::clone(&journal), Arc::clone(&campaigns))?);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (stop_load, load_stops) = watch::channel(false);
    let (stop_watching, watching_stops) = watch::channel(false);

    let watching = supervisor::watch(Arc::clone(&stage), Arc::clone(&clients), Arc::clone(&seen), watching_stops);
    let watching = tokio::spawn(watching);
    let itself = supervisor::watch_itself(Arc::clone(&clients), Arc::clone(&seen), load_stops.clone());
    tokio::spawn(itself);
    let claiming = tokio::spawn(load::run(Arc::clone(&clients), schedule.seed, schedule.rate, load_stops.clone()));
    let restocking = Arc::clone(&campaigns).restock_in_turns(space.mysql().clone(), Arc::clone(&journal), load_stops);
    let restocking = tokio::spawn(restocking);
    let played = supervisor::play(&stage, &clients, schedule).await;
    tokio::time::sleep_until(journal.began() + Duration::from_millis(schedule.load_ms)).await;
    tokio::time::sleep(CALM).await;
    let lasted = journal.now();
    clients.give_up.store(lasted + DRAIN, Ordering::Relaxed);
    stop_load.send_replace(true);
    restocking.await?;
    claiming.await?;
    // This makes sure that the connection works, over which the space is cleaned up.
    stage.redis(&Cmd::ping()).await?;
    let drained = drained(&stage).await;
    let flushed = flushes::check(&stage, &clients).await?;
    stop_watching.send_replace(true);
    watching.await?;

    for server in stage.servers() {
        server.keep_log()?;
    }
    let evidence =
        Evidence { operations: journal.operations(), restocks: journal.restocks(), rows: rows::read(&stage).await? };
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let visits = effects::visits(&evidence.operations);
    let faults = effects::effects(&played, &evidence.operations, &visits, &seen.samples);
    let mut checks = checkers::all(&evidence);
    checks.extend(effects::liveness(&faults, &evidence.operations, lasted));
    checks.push(audited(&space, &campaigns, &evidence.operations).await?);
    checks.extend([drained, flushed, ended(&seen.ends), logs::check(&places.logs)?]);
    Ok(Report {
        setting: setting(schedule, places).await,
        lasted,
        claims: evidence.operations.iter().filter(|one| one.request == Request::Claim).count() as u64,
        accounts: visits.len() as u64,
        issued: evidence.rows.held.len() as u64,
        answers: answers(&evidence.operations),
        seconds: timeline::seconds(&evidence.operations, &visits, lasted),
        faults,
        checks,
        repeated_starts: stage.programs.iter().map(|one| one.repeated_starts.load(Ordering::Relaxed)).sum(),
        late: seen.late,
        out_of_memory: seen.ends.iter().any(|end| matches!(end, End::Memory(_))),
    })
}

/// Counts the answers of each kind.
fn answers(operations: &[Operation]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for operation in operations {
        let name = match operation.answer {
            Answer::Issued(_) => String::from("issued"),
            Answer::Refused(status) | Answer::Failed(status) => status.to_string(),
            other => format!("{other:?}").to_lowercase(),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// Runs the product's audit, with every answer that no restock has made outdated.
async fn audited(space: &TestSpace, campaigns: &Campaigns, operations: &[Operation]) -> anyhow::Result<Check> {
    let outcome = |one: &Operation| match one.answer {
        Answer::Issued(coupon_id) => Some((one.claim, Outcome::Issued { coupon_id })),
        Answer::SoldOut if campaigns.role(one.claim.campaign_id.0) != Role::Restocked => {
            Some((one.claim, Outcome::SoldOut))
        }
        _ => None,
    };
    let answers = Answers { outcomes: operations.iter().filter_map(outcome).collect(), no_restock: false };
    let broker = Broker { dead_letters: u64::from(space.queues.dead_letters().await) };
    let report = audit::audit(space.mysql(), None, answers, Some(broker)).await?;
    let found = |finding: &&audit::Finding| {
        (finding.broken > 0).then(|| ((0, Micros::MAX), format!("{}: {:?}", finding.invariant, finding.examples)))
    };
    Ok(Check::of("audit", "The audit of couponctl is clean, also of dead letters.", report.invariants.iter(), found))
}

/// Checks that the queue is empty at the end.
async fn drained(stage: &Stage) -> Check {
    let left = stage.space.queues.waiting().await;
    let says = "At the end no claim is left in the queue.";
    Check::of("drained", says, [left].iter(), |left| {
        (**left > 0).then(|| ((0, Micros::MAX), format!("{left} messages")))
    })
}

fn ended(ends: &[End]) -> Check {
    Check::of("ended by itself", "No program ends unless it is asked to, or killed.", ends.iter(), |end| {
        let (End::Itself(says) | End::Memory(says)) = end;
        Some(((0, Micros::MAX), says.clone()))
    })
}

async fn setting(schedule: &Schedule, places: &Places) -> Setting {
    let output = async |program: PathBuf, arguments: &[&str]| {
        let ran = Command::new(program).args(arguments).current_dir(&places.root).output().await;
        ran.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned()).unwrap_or_default()
    };
    let status = output(places.root.join("scripts/services"), &["--failures", "status"]).await;
    let version = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Setting {
        seed: schedule.seed,
        rate: schedule.rate,
        commit: output("git".into(), &["describe", "--always", "--dirty"]).await,
        servers: status.lines().map(version).collect::<Vec<_>>().join(", "),
        machine: format!("{cores} cores, {} {}", std::env::consts::OS, std::env::consts::ARCH),
        build: String::from(if cfg!(debug_assertions) { "debug build" } else { "release build" }),
    }
}
