//! Reading what became of a claim, for both APIs: one task answers everyone who waits in this process.
//!
//! ```text
//! outcome ─ question ─> waiting  questions, and when to look them up ─ due ─> lookup ─> Redis, MySQL
//! pushed  ─ outcomes ───────^                                        <──────── what was found
//! ```
//! The outcomes that queue-consumer pushes answer most questions. A push may be lost, so the records in Redis and MySQL are
//! read too: at once, unless the claim was accepted here a moment ago, and then in pauses that grow. One lookup asks for all claims that are due, in one round trip to
//! each server.
//! Invariant: "sold out" is answered only when the campaign was seen sold out *before* MySQL was seen to hold no coupon of
//! that account, and both after the question came; a pushed or recorded `sold_out` only says that it is time to look it up.

mod lookup;
mod waiting;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse, FusedFuture as _};
use opentelemetry::trace::SpanBuilder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::lookup::Servers;
use self::waiting::{LookedUp, Waiting};
use crate::api::campaigns::Campaigns;
use crate::api::recent::Recent;
use crate::domain::{ClaimKey, Outcome};
use crate::error::{Error, Result};
use crate::mysql::Mysql;
use crate::redis::outcomes::Outcomes;
use crate::telemetry::span::{self, SpanKind};

/// A lookup takes milliseconds; servers that take longer than this are as good as away.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// Name of the span of a question: from its coming to the outcome, or to the end of the wait.
pub const WAIT_SPAN: &str = "wait for outcome";

/// What is handed to the task and not taken yet.
const INBOX_MAX: usize = 4096;

/// Questions and messages taken from there at once.
const TAKEN_AT_ONCE: usize = 1_000;

/// Reads outcomes. Cheap to clone.
#[derive(Clone)]
pub struct OutcomeReader {
    campaigns: Campaigns,
    inbox: mpsc::Sender<Received>,
    /// Claims that this instance has accepted and of which nothing was pushed yet.
    accepted: Arc<Mutex<Recent<()>>>,
}

/// What reaches the task.
enum Received {
    Question(Question),
    Pushed(Vec<(ClaimKey, Outcome)>),
    PushesMissed,
}

struct Question {
    claim: ClaimKey,
    asked_at: Instant,
    until: Instant,
    /// Whether its outcome is to be pushed to this instance. Else the claim may have had it long before.
    is_expected: bool,
    answer: oneshot::Sender<Outcome>,
}

impl OutcomeReader {
    /// Starts the task that looks claims up; it ends when the last clone is dropped. `recorded` are the outcomes in Redis,
    /// which only the queue has.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(campaigns: Campaigns, mysql: Mysql, recorded: Option<Outcomes>) -> Self {
        let (inbox, received) = mpsc::channel(INBOX_MAX);
        let servers = Servers { campaigns: campaigns.clone(), mysql, recorded };
        tokio::spawn(answer_all(received, servers));
        Self { campaigns, inbox, accepted: Arc::default() }
    }

    /// The outcome of a claim, waiting up to `wait` for one; `None` when there is no such campaign.
    ///
    /// # Errors
    /// Redis's and MySQL's, or too many wait already.
    pub async fn outcome(&self, claim: ClaimKey, wait: Duration) -> Result<Option<Outcome>> {
        let state = self.campaigns.state(claim.campaign_id).await?;
        if state.campaign.is_none() {
            return Ok(None);
        }
        if state.is_sold_out_for(claim.account_id) {
            return Ok(Some(Outcome::SoldOut));
        }
        let is_expected = self.accepted().get(&claim).is_some();
        self.ask(claim, wait, is_expected).await.map(Some)
    }

    /// The outcome of a claim that this instance has just accepted, waiting up to `wait` for it.
    ///
    /// # Errors
    /// Those of [`Self::outcome`].
    pub async fn outcome_of_accepted(&self, claim: ClaimKey, wait: Duration) -> Result<Outcome> {
        self.ask(claim, wait, true).await
    }

    /// Remembers that this instance has accepted a claim: who asks for it soon waits for the push.
    pub fn expect(&self, claim: ClaimKey) {
        self.accepted().insert(claim, ());
    }

    fn accepted(&self) -> MutexGuard<'_, Recent<()>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, claim: ClaimKey, wait: Duration, is_expected: bool) -> Result<Outcome> {
        let context = span::start_child(|| SpanBuilder::from_name(WAIT_SPAN).with_kind(SpanKind::Internal));
        let outcome = self.wait_for_answer(claim, wait, is_expected).await;
        span::end(&context, &outcome);
        outcome
    }

    async fn wait_for_answer(&self, claim: ClaimKey, wait: Duration, is_expected: bool) -> Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        let asked_at = Instant::now();
        let question = Question { claim, asked_at, until: asked_at + wait, is_expected, answer };
        self.inbox
            .try_send(Received::Question(question))
            .map_err(|_| Error::Full { what: "the list of waiting requests" })?;
        // No answer: MySQL was away until the wait was over.
        let limit = wait + LOOKUP_DEADLINE;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(Error::Deadline { what: "reading a claim", limit }),
        }
    }

    /// Hands over outcomes that queue-consumer has pushed to this instance.
    pub async fn pushed(&self, outcomes: Vec<(ClaimKey, Outcome)>) {
        self.forget_accepted(&outcomes);
        // The task outlives this handle.
        let _ = self.inbox.send(Received::Pushed(outcomes)).await;
    }

    fn forget_accepted(&self, pushed: &[(ClaimKey, Outcome)]) {
        let mut accepted = self.accepted();
        for (claim, _) in pushed {
            accepted.remove(claim);
        }
    }

    /// Says that pushes may have been lost: the claims of everyone who waits are looked up at once.
    pub async fn pushes_missed(&self) {
        *self.accepted() = Recent::default();
        let _ = self.inbox.send(Received::PushesMissed).await;
    }
}

/// Takes questions and pushes, and looks up the claims that are due: one lookup at a time, during which it goes on taking.
async fn answer_all(mut inbox: mpsc::Receiver<Received>, servers: Servers) {
    let mut waiting = Waiting::new(Instant::now(), servers.recorded.is_some());
    let mut lookup: Fuse<BoxFuture<'_, LookedUp>> = Fuse::terminated();
    let mut received = Vec::new();
    loop {
        let next_lookup = if lookup.is_terminated() { waiting.next_lookup() } else { None };
        tokio::select! {
            taken = inbox.recv_many(&mut received, TAKEN_AT_ONCE) => {
                if taken == 0 {
                    return;
                }
                take(&mut waiting, &servers, &mut received).await;
            }
            found = &mut lookup => waiting.looked_up(found, Instant::now()),
            () = sleep_until(next_lookup) => {}
        }
        if lookup.is_terminated() {
            let now = Instant::now();
            let due = waiting.due(now);
            if !due.is_empty() {
                lookup = servers.look_up(due, now).boxed().fuse();
            }
        }
    }
}

async fn take(waiting: &mut Waiting, servers: &Servers, received: &mut Vec<Received>) {
    let now = Instant::now();
    for received in received.drain(..) {
        match received {
            Received::Question(question) => waiting.ask(question),
            Received::Pushed(outcomes) => {
                if waiting.pushed(&outcomes, now) {
                    servers.notice_sold_out(&outcomes).await;
                }
            }
            Received::PushesMissed => waiting.look_up_all(now),
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
