//! Claims by many accounts over HTTP: who claims, how, and what the API answered.
//!
//! ```text
//! plan ─> claimer  POSTs the next claim ─┬─────────────── decided ─┬─> tally
//!                                        └─ accepted ─> follower ──┘
//! ```
//! Invariant: latency counts from the moment a claim was *meant* to be sent, so a slow server cannot hide its delay by
//! slowing the clients down (coordinated omission). In a closed loop that is when its client was free; in an open loop
//! the rate determines it.

mod ask;
mod claimer;
pub mod client;
mod follower;
mod order;
mod plan;
mod tally;
pub mod trace;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coupon_core::AccountId;
use coupon_core::audit::Answers;
use coupon_core::service::ensure_open_files;
use coupon_core::settings::TlsSettings;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use ask::Ask;
use claimer::Claimer;
use client::{Client, Target};
use follower::Follower;
pub use order::Order;
pub use plan::Campaigns;
pub use tally::{Course, STEP};
use tally::{Figures, SharedTally};

/// How many connections claim in most experiments; as many wait for outcomes.
pub const CLIENTS: u32 = 256;

/// The most accounts, and the most repeated claims, in one load: all of them are in memory.
const CLAIMS_MAX: u64 = 20_000_000;

/// How long to wait for outcomes after the last claim, unless an option says otherwise.
const PATIENCE_SECONDS: u64 = 120;

/// Who claims, and how.
#[derive(Args, Clone, Debug)]
pub struct Crowd {
    /// How many different accounts claim.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=CLAIMS_MAX))]
    pub accounts: u64,
    /// Additional claims, by accounts that have claimed before.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=CLAIMS_MAX))]
    pub repeats: u64,
    /// Campaigns that the accounts are spread over; their ids are consecutive.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub campaigns: u64,
    /// The first account; the others follow it.
    #[arg(long, value_name = "ID", default_value_t = AccountId(1))]
    pub first_account: AccountId,
    /// Connections that claim; each has one claim in flight.
    #[arg(long, value_name = "N", default_value_t = CLIENTS, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Claims per second (open loop). Without it, each client claims again as soon as it is answered (closed loop).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// Share of the claims that are traced, from 0 to 1: the bench asks the services to record these and no others.
    #[arg(long, value_name = "RATIO", value_parser = trace::ratio, default_value = "0.01")]
    pub trace_ratio: f64,
    /// How clients learn the outcomes of claims that were only accepted.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Ask::LongPoll)]
    pub ask: Ask,
    /// Connections that wait for outcomes.
    #[arg(long, value_name = "N", default_value_t = CLIENTS, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub followers: u32,
    /// Longest time to wait for outcomes after the last claim, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE_SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
    /// Further instances of the API, which share the clients.
    #[arg(skip)]
    pub others: Vec<Target>,
    /// The authorities that verify an API that speaks https. This is a setting of the whole program.
    #[arg(skip)]
    pub tls: TlsSettings,
}

/// What a crowd observed.
pub struct Seen {
    /// Claims sent.
    pub claims: usize,
    /// The time from the first claim to the answer of the last.
    pub answered_in: Duration,
    /// The time from the first claim to the last outcome.
    pub decided_in: Duration,
    /// Every outcome, for the audit.
    pub reported: Answers,
    pub figures: Figures,
}

impl Crowd {
    /// Creates a crowd in which each of this many accounts claims once, as fast as the clients can.
    pub fn of(accounts: u64, clients: u32, trace_ratio: f64) -> Self {
        Self {
            accounts,
            repeats: 0,
            campaigns: 1,
            first_account: AccountId(1),
            clients,
            rate: None,
            trace_ratio,
            ask: Ask::LongPoll,
            followers: clients,
            patience: PATIENCE_SECONDS,
            others: Vec::new(),
            tls: TlsSettings::default(),
        }
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let last = self.first_account.0.saturating_add(self.accounts - 1);
        if last > AccountId::MAX.0 {
            return Err(format!("--first-account and --accounts go beyond the last account, {}", AccountId::MAX));
        }
        Ok(())
    }

    /// Sends all claims and waits for all outcomes, with a progress bar of this name.
    pub async fn claim(&self, target: &Target, campaigns: Campaigns, name: &str) -> anyhow::Result<Seen> {
        let plan = Arc::new(plan::claims(self.first_account.0, self.accounts, self.repeats));
        let claims = plan.len();
        let connections = u64::from(self.clients) + u64::from(self.followers);
        ensure_open_files(connections).context("--clients and --followers")?;
        let tally = SharedTally::new(name, claims)?;
        let (accepted, to_follow) = flume::unbounded();
        let started = Instant::now();
        let mut claimers = JoinSet::new();
        let next = Arc::new(AtomicUsize::new(0));
        let instances = || std::iter::once(target).chain(&self.others).cycle();
        for (_, target) in (0..self.clients.min(u32::try_from(claims).unwrap_or(u32::MAX))).zip(instances()) {
            let claimer = Claimer {
                client: Client::new(target.clone()),
                campaigns,
                plan: Arc::clone(&plan),
                next: Arc::clone(&next),
                schedule: self.rate.map(|rate| (started, rate)),
                load: Arc::from(name),
                trace_ratio: self.trace_ratio,
                ask: self.ask,
                accepted: accepted.clone(),
                tally: tally.clone(),
            };
            claimers.spawn(claimer.run());
        }
        // The followers end when the last claimer has dropped its sender.
        drop(accepted);
        let mut followers = JoinSet::new();
        let patience = Duration::from_secs(self.patience);
        let may_ask = CancellationToken::new();
        for (_, target) in (0..self.followers).zip(instances()) {
            let follower = Follower { client: Client::new(target.clone()), campaigns, patience, tally: tally.clone() };
            let (may_ask, to_follow) = (may_ask.clone(), to_follow.clone());
            followers.spawn(async move {
                may_ask.cancelled().await;
                follower.run(to_follow).await;
            });
        }
        if self.ask != Ask::Later {
            may_ask.cancel();
        }
        join(&mut claimers).await?;
        let answered_in = started.elapsed();
        may_ask.cancel();
        join(&mut followers).await?;
        let decided_in = started.elapsed();
        let (reported, figures) = tally.lock().finish(campaigns);
        Ok(Seen { claims, answered_in, decided_in, reported, figures })
    }
}

async fn join(tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}
