//! Claims by many accounts over HTTP.
//!
//! Clients take the next claim of the plan and POST it; claims that were accepted but not decided go to followers, who
//! wait for their outcomes at the same time. Invariant: latency counts from the moment a claim was *meant* to be sent, so
//! a slow server cannot hide its delay by slowing the clients down (coordinated omission). In a closed loop that is when
//! its client was free; in an open loop the rate says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coupon_core::audit::{self, Told};
use coupon_core::mysql::Mysql;
use coupon_core::{AccountId, CampaignId, ClaimKey, Outcome};
use hdrhistogram::Histogram;
use hyper::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use crate::client::{self, Client, Target};
use crate::plan;
use crate::traceparent::{self, Traceparent};

/// Latencies are kept in microseconds with this many significant digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies above an hour are counted as one hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Accounts, and repeated claims, of one load at most: all of them are in memory.
const CLAIMS_MAX: u64 = 20_000_000;

/// Errors shown.
const EXAMPLES_MAX: usize = 5;

/// Traces noted: the first, of which some got a coupon before the campaign sold out.
const TRACES_MAX: usize = 1_000;

/// How long outcomes are waited for after the last claim.
const PATIENCE_SECONDS: u64 = 120;

/// How long a follower lets the API wait in one request.
const WAIT: &str = "10s";

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The API.
    #[arg(long, value_parser = client::address, default_value = "http://127.0.0.1:8080")]
    pub url: Url,
    /// The campaign to claim from; the first, where there are several.
    #[arg(long, value_name = "ID")]
    pub campaign: CampaignId,
    #[command(flatten)]
    pub crowd: Crowd,
}

/// Who claims, and how.
#[derive(Args, Clone, Debug)]
pub struct Crowd {
    /// Different accounts that claim.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=CLAIMS_MAX))]
    pub accounts: u64,
    /// Claims on top, by accounts that claimed before.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=CLAIMS_MAX))]
    pub repeats: u64,
    /// Campaigns that the accounts are spread over; they have numbers one after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub campaigns: u64,
    /// The first account; the others follow it.
    #[arg(long, value_name = "ID", default_value_t = AccountId(1))]
    pub first_account: AccountId,
    /// Connections that claim; each has one claim on its way.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Claims a second (open loop). Without it each client claims again as soon as it is answered (closed loop).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// Share of the claims that are traced, from 0 to 1: the bench asks the services to record these and no others.
    #[arg(long, value_name = "RATIO", value_parser = traceparent::ratio, default_value = "0.01")]
    pub trace_ratio: f64,
    /// Connections that wait for outcomes.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub followers: u32,
    /// Longest time to wait for outcomes after the last claim, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE_SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}

impl Crowd {
    /// What is wrong with values that are right one by one.
    pub fn check(&self) -> Result<(), String> {
        let last = self.first_account.0.saturating_add(self.accounts - 1);
        if last > AccountId::MAX.0 {
            return Err(format!("--first-account and --accounts go beyond the last account, {}", AccountId::MAX));
        }
        Ok(())
    }

    /// One claim by each of so many accounts, as fast as the clients go.
    pub fn of(accounts: u64, clients: u32, trace_ratio: f64) -> Self {
        let (rate, followers, patience) = (None, clients, PATIENCE_SECONDS);
        Self {
            accounts,
            repeats: 0,
            campaigns: 1,
            first_account: AccountId(1),
            clients,
            rate,
            trace_ratio,
            followers,
            patience,
        }
    }
}

/// What came of a load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadResult {
    /// Which way.
    pub way: String,
    /// The first campaign.
    pub campaign_id: CampaignId,
    /// How many there were.
    pub campaigns: u64,
    /// Their stock.
    pub coupons: u64,
    /// Claims sent.
    pub claims: u64,
    /// Accounts that got a coupon.
    pub issued: u64,
    /// Accounts that were told sold out.
    pub sold_out: u64,
    /// Claims beyond an account's first that were answered as the first was.
    pub repeated: u64,
    /// Claims that were answered with an error or not at all.
    pub errors: u64,
    /// From the first claim to the answer of the last.
    pub accept_seconds: f64,
    /// From the first claim to the last outcome.
    pub outcome_seconds: f64,
    /// Half of the claims were answered within this.
    pub p50_ms: f64,
    /// 99 % of the claims were.
    pub p99_ms: f64,
    /// Half of the claims had their outcome within this.
    pub outcome_p50_ms: f64,
    /// 99 % had.
    pub outcome_p99_ms: f64,
    /// `clean`, or the names of the invariants that are broken.
    pub audit: String,
    /// 99.9 % of the claims were answered within this.
    pub p999_ms: f64,
    /// 99.9 % had their outcome within this.
    pub outcome_p999_ms: f64,
    /// Outcomes a second in the last tenth of the claims, of those in the first tenth.
    pub last_tenth_to_first: f64,
    /// Share of the claims that were traced.
    pub trace_ratio: f64,
    /// Some of the traces.
    pub trace_ids: Vec<String>,
    /// Some of the errors.
    pub error_examples: Vec<String>,
    /// What the audit found to be broken, with examples.
    pub findings: Vec<audit::Finding>,
}

impl LoadResult {
    /// Whether the audit found nothing and every claim was answered.
    pub fn is_clean(&self) -> bool {
        self.audit == "clean" && self.errors == 0
    }
}

/// Lets the crowd at an API and audits what came of it.
pub async fn run(mysql: &Mysql, way: &str, arguments: &Arguments) -> anyhow::Result<LoadResult> {
    let Arguments { url, campaign, crowd } = arguments;
    let target = Target::new(url)?;
    probe(&target, *campaign).await?;
    let plan = Arc::new(plan::claims(crowd.first_account.0, crowd.accounts, crowd.repeats));
    let shared = SharedTally::new(progress(way, plan.len())?)?;
    let campaigns = Campaigns { first: *campaign, count: crowd.campaigns };
    let (accepted, ended) = claim_and_follow(&target, campaigns, crowd, Arc::clone(&plan), &shared).await?;
    let (told, measured) = shared.lock().finish(campaigns);

    let reports = audit_each(mysql, campaigns, &told).await?;
    let findings = reports.iter().flat_map(|report| &report.invariants);
    let findings: Vec<audit::Finding> = findings.filter(|finding| finding.broken > 0).cloned().collect();
    let broken: BTreeSet<&str> = findings.iter().map(|finding| finding.invariant).collect();
    let (issued, sold_out) = by_account(&told);
    Ok(LoadResult {
        way: way.to_owned(),
        campaign_id: *campaign,
        campaigns: crowd.campaigns,
        coupons: reports.iter().flat_map(|report| &report.campaigns).map(|stock| stock.coupons).sum(),
        claims: plan.len() as u64,
        issued,
        sold_out,
        repeated: told.outcomes.len() as u64 - issued - sold_out,
        errors: measured.errors,
        accept_seconds: accepted.as_secs_f64(),
        outcome_seconds: ended.as_secs_f64(),
        p50_ms: measured.answered_ms.0,
        p99_ms: measured.answered_ms.1,
        outcome_p50_ms: measured.decided_ms.0,
        outcome_p99_ms: measured.decided_ms.1,
        p999_ms: measured.answered_ms.2,
        outcome_p999_ms: measured.decided_ms.2,
        last_tenth_to_first: measured.last_tenth_to_first,
        trace_ratio: crowd.trace_ratio,
        trace_ids: measured.trace_ids,
        audit: if broken.is_empty() {
            String::from("clean")
        } else {
            format!("broken: {}", broken.into_iter().collect::<Vec<_>>().join(", "))
        },
        error_examples: measured.error_examples,
        findings,
    })
}

/// The campaigns of a load.
#[derive(Clone, Copy)]
struct Campaigns {
    first: CampaignId,
    count: u64,
}

impl Campaigns {
    /// Which of them an account claims from.
    fn of(self, account: u64) -> CampaignId {
        CampaignId(self.first.0 + account % self.count)
    }
}

async fn audit_each(mysql: &Mysql, campaigns: Campaigns, told: &Told) -> anyhow::Result<Vec<audit::Report>> {
    let mut by_campaign: BTreeMap<CampaignId, Told> = BTreeMap::new();
    for campaign in (0..campaigns.count).map(|account| campaigns.of(account)) {
        by_campaign.insert(campaign, Told { outcomes: Vec::new(), no_restock: told.no_restock });
    }
    for &(claim, outcome) in &told.outcomes {
        by_campaign.entry(claim.campaign_id).or_default().outcomes.push((claim, outcome));
    }
    let mut reports = Vec::with_capacity(by_campaign.len());
    for (campaign, told) in by_campaign {
        reports.push(audit::audit(mysql, Some(campaign), told, None).await?);
    }
    Ok(reports)
}

/// Fails early, with a reason, when there is nothing to claim from.
async fn probe(target: &Target, campaign: CampaignId) -> anyhow::Result<()> {
    let path = format!("/v1/campaigns/{campaign}");
    let (status, body) = Client::new(target.clone()).send(Method::GET, &path, String::new(), None).await?;
    anyhow::ensure!(status == StatusCode::OK, "GET {path} answered {status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

fn progress(way: &str, claims: usize) -> anyhow::Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{prefix:9} {bar:40} {human_pos} of {human_len} outcomes, {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(claims as u64).with_style(style).with_prefix(way.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// A claim that was accepted: somebody must ask for its outcome.
struct Accepted {
    account: u64,
    meant_at: Instant,
}

/// Sends all claims and waits for all outcomes. Gives the times of the last answer and the last outcome.
async fn claim_and_follow(
    target: &Target,
    campaigns: Campaigns,
    crowd: &Crowd,
    plan: Arc<Vec<u64>>,
    tally: &SharedTally,
) -> anyhow::Result<(Duration, Duration)> {
    let (accepted, to_follow) = flume::unbounded();
    let claims = plan.len();
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..crowd.clients.min(u32::try_from(claims).unwrap_or(u32::MAX)) {
        let claimer = Claimer {
            client: Client::new(target.clone()),
            campaigns,
            plan: Arc::clone(&plan),
            next: Arc::clone(&next),
            schedule: crowd.rate.map(|rate| (started, rate)),
            trace_ratio: crowd.trace_ratio,
            accepted: accepted.clone(),
            tally: tally.clone(),
        };
        clients.spawn(claimer.run());
    }
    drop(accepted);
    let mut followers = JoinSet::new();
    for _ in 0..crowd.followers {
        let follower = Follower {
            client: Client::new(target.clone()),
            campaigns,
            patience: Duration::from_secs(crowd.patience),
            tally: tally.clone(),
        };
        followers.spawn(follower.run(to_follow.clone()));
    }
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let answered = started.elapsed();
    while let Some(ended) = followers.join_next().await {
        ended?;
    }
    Ok((answered, started.elapsed()))
}

/// One client of the crowd.
struct Claimer {
    client: Client,
    campaigns: Campaigns,
    plan: Arc<Vec<u64>>,
    next: Arc<AtomicUsize>,
    schedule: Option<(Instant, u32)>,
    trace_ratio: f64,
    accepted: flume::Sender<Accepted>,
    tally: SharedTally,
}

impl Claimer {
    async fn run(mut self) {
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&account) = self.plan.get(turn) else { return };
            let meant_at = self.wait_for_turn(turn).await;
            let traceparent = Traceparent::random(self.trace_ratio);
            let path = format!("/v1/campaigns/{}/claims", self.campaigns.of(account));
            let body = format!("{{\"account_id\":{account}}}");
            let answer = self.client.send(Method::POST, &path, body, traceparent.header().ok()).await;
            self.tally.lock().answers(meant_at, traceparent);
            match answer.and_then(|(status, body)| read_answer(status, &body)) {
                // The followers outlive the clients.
                Ok(Outcome::Pending) => drop(self.accepted.send(Accepted { account, meant_at })),
                ended => self.tally.lock().ends(account, ended, meant_at),
            }
        }
    }

    /// In an open loop a claim has its time, whether a client is late for it or not.
    async fn wait_for_turn(&self, turn: usize) -> Instant {
        let Some((started, rate)) = self.schedule else { return Instant::now() };
        let meant_at = started + Duration::from_secs_f64(turn as f64 / f64::from(rate));
        tokio::time::sleep_until(meant_at).await;
        meant_at
    }
}

fn read_answer(status: StatusCode, body: &[u8]) -> anyhow::Result<Outcome> {
    match status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => {
            serde_json::from_slice(body).with_context(|| format!("{status}: {}", String::from_utf8_lossy(body)))
        }
        StatusCode::CONFLICT => Ok(Outcome::SoldOut),
        _ => anyhow::bail!("{status}: {}", String::from_utf8_lossy(body)),
    }
}

/// Asks what became of accepted claims.
struct Follower {
    client: Client,
    campaigns: Campaigns,
    patience: Duration,
    tally: SharedTally,
}

impl Follower {
    async fn run(mut self, to_follow: flume::Receiver<Accepted>) {
        while let Ok(Accepted { account, meant_at }) = to_follow.recv_async().await {
            let give_up_at = Instant::now() + self.patience;
            let outcome = loop {
                match self.ask(account).await {
                    Ok(Outcome::Pending) | Err(_) if Instant::now() < give_up_at => {}
                    outcome => break outcome,
                }
            };
            self.tally.lock().ends(account, outcome, meant_at);
        }
    }

    async fn ask(&mut self, account: u64) -> anyhow::Result<Outcome> {
        let path = format!("/v1/campaigns/{}/claims/{account}?wait={WAIT}", self.campaigns.of(account));
        // Asking is not what is looked at: never traced.
        let traceparent = Traceparent::random(0.0).header()?;
        let (status, body) = self.client.send(Method::GET, &path, String::new(), Some(traceparent)).await?;
        read_answer(status, &body)
    }
}

/// What all tasks saw.
struct Tally {
    answered: Histogram<u64>,
    decided: Histogram<u64>,
    outcomes: Vec<(u64, Outcome)>,
    errors: u64,
    error_examples: Vec<String>,
    trace_ids: Vec<String>,
    ended_at: Vec<Instant>,
    bar: ProgressBar,
}

/// One tally for all tasks: a lock for each claim costs less than a histogram for each of thousands of clients.
#[derive(Clone)]
struct SharedTally(Arc<Mutex<Tally>>);

impl SharedTally {
    fn new(bar: ProgressBar) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_US, SIGNIFICANT_DIGITS);
        Ok(Self(Arc::new(Mutex::new(Tally {
            answered: histogram()?,
            decided: histogram()?,
            outcomes: Vec::new(),
            errors: 0,
            error_examples: Vec::new(),
            trace_ids: Vec::new(),
            ended_at: Vec::new(),
            bar,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The figures of a tally: p50, p99 and p99.9.
struct Measured {
    answered_ms: (f64, f64, f64),
    decided_ms: (f64, f64, f64),
    last_tenth_to_first: f64,
    errors: u64,
    error_examples: Vec<String>,
    trace_ids: Vec<String>,
}

impl Tally {
    fn answers(&mut self, meant_at: Instant, traceparent: Traceparent) {
        self.answered.saturating_record(micros(meant_at));
        if traceparent.is_sampled && self.trace_ids.len() < TRACES_MAX {
            self.trace_ids.push(traceparent.trace_id());
        }
    }

    fn ends(&mut self, account: u64, ended: anyhow::Result<Outcome>, meant_at: Instant) {
        match ended {
            Ok(outcome) => {
                self.decided.saturating_record(micros(meant_at));
                self.outcomes.push((account, outcome));
            }
            Err(error) => {
                self.errors += 1;
                if self.error_examples.len() < EXAMPLES_MAX {
                    self.error_examples.push(format!("account {account}: {error:#}"));
                }
            }
        }
        self.ended_at.push(Instant::now());
        self.bar.inc(1);
    }

    fn finish(&self, campaigns: Campaigns) -> (Told, Measured) {
        self.bar.finish_and_clear();
        (self.told(campaigns), self.measured())
    }

    fn measured(&self) -> Measured {
        let quantiles = |histogram: &Histogram<u64>| {
            (quantile_ms(histogram, 0.5), quantile_ms(histogram, 0.99), quantile_ms(histogram, 0.999))
        };
        Measured {
            answered_ms: quantiles(&self.answered),
            decided_ms: quantiles(&self.decided),
            last_tenth_to_first: self.last_tenth_to_first(),
            errors: self.errors,
            error_examples: self.error_examples.clone(),
            trace_ids: self.trace_ids.clone(),
        }
    }

    /// How long the first tenth of the outcomes took, of what the last tenth took: 1 = as quick in the end.
    fn last_tenth_to_first(&self) -> f64 {
        let tenth = self.ended_at.len() / 10;
        let took = |ended: &[Instant]| match ended {
            [first, .., last] => last.duration_since(*first).as_secs_f64(),
            _ => f64::NAN,
        };
        let (first, rest) = self.ended_at.split_at(tenth);
        let (_, last) = rest.split_at(rest.len() - tenth);
        took(first) / took(last)
    }

    fn told(&self, campaigns: Campaigns) -> Told {
        let claim = |account| ClaimKey { campaign_id: campaigns.of(account), account_id: AccountId(account) };
        let outcomes = self.outcomes.iter().map(|&(account, outcome)| (claim(account), outcome)).collect();
        Told { outcomes, no_restock: true }
    }
}

/// How many accounts were issued a coupon, and how many were told sold out.
fn by_account(told: &Told) -> (u64, u64) {
    let mut accounts: HashMap<ClaimKey, Outcome> = HashMap::new();
    for &(claim, outcome) in &told.outcomes {
        accounts.entry(claim).or_insert(outcome);
    }
    let count = |wanted: fn(&Outcome) -> bool| accounts.values().filter(|outcome| wanted(outcome)).count() as u64;
    (count(|outcome| matches!(outcome, Outcome::Issued { .. })), count(|outcome| *outcome == Outcome::SoldOut))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}
