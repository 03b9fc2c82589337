//! Tallies what all clients of a crowd observe as it happens, and computes the figures at the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coupon_core::audit::Answers;
use coupon_core::{AccountId, ClaimKey, Outcome};
use hyper::StatusCode;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::order::{Claimed, Order};
use super::plan::Campaigns;
use super::trace::Trace;
use crate::statistics::Latencies;

/// How many errors are shown.
const EXAMPLES_MAX: usize = 5;

/// How many traces are noted: the first ones, some of which got a coupon before the campaign sold out.
const TRACES_MAX: usize = 1_000;

/// The figures of a tally.
pub struct Figures {
    /// The time from when a claim was due to its answer.
    pub to_answer_ms: Quantiles,
    /// The time from when a claim was due to its outcome.
    pub to_outcome_ms: Quantiles,
    /// Outcomes per second in the last tenth of the claims / in the first tenth.
    pub last_tenth_to_first: f64,
    pub errors: u64,
    /// Of these, the claims that the API refused for now.
    pub refused: u64,
    pub error_examples: Vec<String>,
    pub trace_ids: Vec<String>,
    /// The status of the first claim that the API let in: 201 with a coupon, 202 for later.
    pub lets_in_with: Option<StatusCode>,
    pub course: Course,
}

/// Everything observed of a load, for figures that span several loads.
#[derive(Clone, Debug)]
pub struct Course {
    pub to_answer: Latencies,
    pub to_outcome: Latencies,
    /// Outcomes in each [`STEP`], starting at the first claim.
    pub outcomes: Vec<u32>,
    pub order: Order,
}

/// The resolution of a load's course over time.
pub const STEP: Duration = Duration::from_millis(20);

pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

pub struct Tally {
    to_answer: Latencies,
    to_outcome: Latencies,
    started: Instant,
    /// Each with the instants at which the claim was meant to be sent, and was answered.
    outcomes: Vec<(u64, Outcome, [Instant; 2])>,
    errors: u64,
    refused: u64,
    error_examples: Vec<String>,
    trace_ids: Vec<String>,
    lets_in_with: Option<StatusCode>,
    decided_at: Vec<Instant>,
    bar: ProgressBar,
}

/// One tally for all tasks: a lock for each claim costs less than a histogram for each of thousands of clients.
#[derive(Clone)]
pub struct SharedTally(Arc<Mutex<Tally>>);

impl SharedTally {
    /// Starts a tally of this many claims, with a progress bar of this name.
    pub fn new(name: &str, claims: usize) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Tally {
            to_answer: Latencies::new()?,
            to_outcome: Latencies::new()?,
            started: Instant::now(),
            outcomes: Vec::new(),
            errors: 0,
            refused: 0,
            error_examples: Vec::new(),
            trace_ids: Vec::new(),
            lets_in_with: None,
            decided_at: Vec::new(),
            bar: progress_bar(name, claims)?,
        }))))
    }

    pub fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn progress_bar(name: &str, claims: usize) -> anyhow::Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{prefix:9} {bar:40} {human_pos} of {human_len} outcomes, {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(claims as u64).with_style(style).with_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

impl Tally {
    /// Records that a claim was answered within this time, whatever the answer.
    pub fn answered(&mut self, within: Duration, status: Option<StatusCode>, trace: &Trace) {
        self.to_answer.record(within);
        let lets_in = status.filter(|status| [StatusCode::CREATED, StatusCode::ACCEPTED].contains(status));
        self.lets_in_with = self.lets_in_with.or(lets_in);
        let refusals = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        self.refused += u64::from(status.is_some_and(|status| refusals.contains(&status)));
        if trace.is_sampled() && self.trace_ids.len() < TRACES_MAX {
            self.trace_ids.push(trace.id());
        }
    }

    /// Records that a claim has its outcome, or never will.
    pub fn decided(&mut self, account: u64, decided: anyhow::Result<Outcome>, meant_at: Instant, answered_at: Instant) {
        match decided {
            Ok(outcome) => {
                self.to_outcome.record(meant_at.elapsed());
                self.outcomes.push((account, outcome, [meant_at, answered_at]));
            }
            Err(error) => {
                self.errors += 1;
                if self.error_examples.len() < EXAMPLES_MAX {
                    self.error_examples.push(format!("account {account}: {error:#}"));
                }
            }
        }
        self.decided_at.push(Instant::now());
        self.bar.inc(1);
    }

    /// Returns all outcomes, for the audit, and the figures.
    pub fn finish(&self, campaigns: Campaigns) -> (Answers, Figures) {
        self.bar.finish_and_clear();
        let claim = |account| ClaimKey { campaign_id: campaigns.of(account), account_id: AccountId(account) };
        let outcomes = self.outcomes.iter().map(|&(account, outcome, _)| (claim(account), outcome)).collect();
        let claims = self.outcomes.iter().map(|&(account, outcome, at)| {
            let [sent, answered] = at.map(|at| at.saturating_duration_since(self.started));
            Claimed { account, sent, answered, is_issued: matches!(outcome, Outcome::Issued { .. }) }
        });
        let course = Course {
            to_answer: self.to_answer.clone(),
            to_outcome: self.to_outcome.clone(),
            outcomes: self.by_step(),
            order: Order::of(claims.collect()),
        };
        let figures = Figures {
            to_answer_ms: Quantiles::of(&self.to_answer),
            to_outcome_ms: Quantiles::of(&self.to_outcome),
            last_tenth_to_first: self.last_tenth_to_first(),
            errors: self.errors,
            refused: self.refused,
            error_examples: self.error_examples.clone(),
            trace_ids: self.trace_ids.clone(),
            lets_in_with: self.lets_in_with,
            course,
        };
        (Answers { outcomes, no_restock: true }, figures)
    }

    fn by_step(&self) -> Vec<u32> {
        let mut outcomes = Vec::new();
        for decided_at in &self.decided_at {
            let step = decided_at.saturating_duration_since(self.started).as_millis() / STEP.as_millis();
            let step = usize::try_from(step).unwrap_or(usize::MAX - 1);
            outcomes.resize(outcomes.len().max(step + 1), 0);
            if let Some(count) = outcomes.get_mut(step) {
                *count += 1;
            }
        }
        outcomes
    }

    /// How long the first tenth of the outcomes took / how long the last tenth took: 1 means as fast at the end.
    fn last_tenth_to_first(&self) -> f64 {
        let tenth = self.decided_at.len() / 10;
        let took = |decided: &[Instant]| match decided {
            [first, .., last] => last.duration_since(*first).as_secs_f64(),
            _ => f64::NAN,
        };
        let (first, rest) = self.decided_at.split_at(tenth);
        let (_, last) = rest.split_at(rest.len() - tenth);
        took(first) / took(last)
    }
}

impl Quantiles {
    fn of(latencies: &Latencies) -> Self {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| latencies.quantile_ms(share));
        Self { p50, p99, p999 }
    }
}
