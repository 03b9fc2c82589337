//! Reads the outcomes of claims, for both APIs. One list holds everyone who waits in this process.
//!
//! ```text
//! outcome ─ question ─> waiting  questions, and when to look them up ─ due ─> lookup ─> Redis, MySQL
//! pushed  ─ outcomes ──────^                                        <──────── what was found
//! ```
//! The outcomes that queue-consumer pushes answer most questions, on the thread that receives them. A push may be lost,
//! so the records in Redis and MySQL are read too: at once, unless the claim was accepted here a moment ago, and then
//! after pauses that grow. One task does that for all claims that are due, in one or two round trips to each server.
//!
//! Invariant: "sold out" is answered only if the campaign was seen to be sold out *before* MySQL was seen to hold no
//! coupon of that account, and the latter after the question arrived; a pushed or recorded `sold_out` only means that
//! it is time for a lookup.

mod lookup;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::trace::SpanBuilder;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::lookup::Servers;
use self::waiting::Waiting;
use crate::api::campaigns::Campaigns;
use crate::domain::{ClaimKey, Outcome};
use crate::error::{Error, Result};
use crate::mysql::Mysql;
use crate::redis::outcomes::Outcomes;
use crate::telemetry::span::{self, SpanKind};

/// A lookup takes milliseconds; servers that take longer than this are as good as away.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// Name of the span of a question, from its arrival to the outcome or the end of the wait.
pub const WAIT_SPAN: &str = "wait for outcome";

/// Reads outcomes. Cheap to clone.
#[derive(Clone)]
pub struct OutcomeReader {
    campaigns: Campaigns,
    shared: Arc<Shared>,
    /// Ends the task when the last clone is dropped.
    _task: Arc<DropGuard>,
}

struct Shared {
    servers: Servers,
    waiting: Mutex<Waiting>,
    /// Notified when a lookup is due sooner than the task knows.
    sooner: Notify,
}

struct Question {
    claim: ClaimKey,
    asked_at: Instant,
    until: Instant,
    answer: oneshot::Sender<Outcome>,
}

impl OutcomeReader {
    /// Starts the task that looks claims up; it ends when the last clone is dropped. `recorded` are the outcomes in
    /// Redis, which only the queue way has.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn start(campaigns: Campaigns, mysql: Mysql, recorded: Option<Outcomes>) -> Self {
        let waiting = Mutex::new(Waiting::new(Instant::now(), recorded.is_some()));
        let servers = Servers { campaigns: campaigns.clone(), mysql, recorded };
        let shared = Arc::new(Shared { servers, waiting, sooner: Notify::new() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(look_up_all(Arc::clone(&shared))));
        Self { campaigns, shared, _task: Arc::new(stop.drop_guard()) }
    }

    /// The outcome of a claim, waiting up to `wait` for one; `None` if there is no such campaign.
    ///
    /// # Errors
    /// The campaign cannot be read, no lookup succeeds in time, or too many questions wait already.
    pub async fn outcome(&self, claim: ClaimKey, wait: Duration) -> Result<Option<Outcome>> {
        let state = self.campaigns.state(claim.campaign_id).await?;
        if state.campaign.is_none() {
            return Ok(None);
        }
        if state.is_sold_out_for(claim.account_id) {
            return Ok(Some(Outcome::SoldOut));
        }
        let outcome = self.ask(claim, wait).await?;
        // The campaign may have been deleted meanwhile. Memory knows, because the lookups keep it there.
        let is_deleted = async || {
            let known = self.campaigns.known(claim.campaign_id).await;
            known.is_some_and(|state| state.campaign.is_none())
        };
        Ok(if outcome == Outcome::Pending && is_deleted().await { None } else { Some(outcome) })
    }

    /// Remembers that this instance is about to hand a claim to the broker: only outcomes pushed from now on belong to
    /// it, and whoever asks for it soon waits for the push.
    pub fn expect(&self, claim: ClaimKey) {
        self.shared.waiting().expect(claim);
    }

    /// The outcome of a claim that this instance has just accepted, waiting up to `wait` for it.
    ///
    /// # Errors
    /// Those of [`Self::outcome`].
    pub async fn ask(&self, claim: ClaimKey, wait: Duration) -> Result<Outcome> {
        let context = span::start_child(|| SpanBuilder::from_name(WAIT_SPAN).with_kind(SpanKind::Internal));
        let outcome = self.wait_for_answer(claim, wait).await;
        span::end(&context, &outcome);
        outcome
    }

    async fn wait_for_answer(&self, claim: ClaimKey, wait: Duration) -> Result<Outcome> {
        let answered = self.shared.ask(claim, wait)?;
        // No answer means that MySQL was away until the wait was over.
        let limit = wait + LOOKUP_DEADLINE;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(Error::Deadline { what: "reading a claim", limit }),
        }
    }

    /// Takes outcomes that queue-consumer has pushed to this instance.
    pub async fn pushed(&self, outcomes: &[(ClaimKey, Outcome)]) {
        let may_be_sold_out = self.shared.waiting().pushed(outcomes, Instant::now());
        if may_be_sold_out {
            self.shared.sooner.notify_one();
            self.shared.servers.notice_sold_out(outcomes).await;
        }
    }

    /// Reports that pushes may have been lost: the claims of everyone who waits are looked up at once.
    pub fn pushes_missed(&self) {
        self.shared.waiting().pushes_missed(Instant::now());
        self.shared.sooner.notify_one();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a question, and returns the channel on which it will be answered.
    fn ask(&self, claim: ClaimKey, wait: Duration) -> Result<oneshot::Receiver<Outcome>> {
        let (answer, answered) = oneshot::channel();
        let asked_at = Instant::now();
        let is_sooner = self.waiting().ask(Question { claim, asked_at, until: asked_at + wait, answer })?;
        if is_sooner {
            self.sooner.notify_one();
        }
        Ok(answered)
    }
}

/// Looks up the claims that are due, one lookup at a time.
async fn look_up_all(shared: Arc<Shared>) {
    loop {
        let next = shared.waiting().next_lookup();
        tokio::select! {
            () = shared.sooner.notified() => continue,
            () = sleep_until(next) => {}
        }
        let now = Instant::now();
        let due = shared.waiting().due(now);
        if !due.is_empty() {
            let found = shared.servers.look_up(due, now).await;
            shared.waiting().looked_up(found, Instant::now());
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
