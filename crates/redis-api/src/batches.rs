//! Settles claims in batches: those waiting in this process at the same moment share one.
//!
//! Invariants: a free worker takes the waiting claims and never waits for more; every claim of a batch is answered,
//! whatever happens to the batch.

use std::sync::Arc;
use std::time::Duration;

use backon::Retryable;
use coupon_core::mysql::conflicts::{Lost, pauses_after_conflicts};
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::telemetry::{metrics, span};
use coupon_core::{Claim, ClaimKey, Error, Outcome, Result, clock};
use flume::{Receiver, Sender};
use opentelemetry::trace::SpanBuilder;
use queue_consumer::settle::{Publishers, Settler};
use tokio::sync::oneshot;

/// Claims that may wait for a worker; further ones are refused.
const WAITING_MAX: usize = 16_384;

/// The longest a claim waits in total.
const DEADLINE: Duration = Duration::from_secs(15);

struct Waiting {
    claim: Claim,
    is_sampled: bool,
    answer: oneshot::Sender<(Result<Option<Outcome>>, Arc<Timeline>)>,
}

/// The workers that settle batches. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    waiting: Sender<Waiting>,
}

impl Batches {
    /// Starts the workers on the current runtime; they end when the last clone of `Batches` is dropped.
    pub fn start(settler: Settler, workers: usize, batch_max: usize) -> Self {
        let (waiting, claims) = flume::bounded(WAITING_MAX);
        let settler = Arc::new(settler);
        for _ in 0..workers {
            tokio::spawn(work(Arc::clone(&settler), claims.clone(), batch_max));
        }
        Self { waiting }
    }

    /// The outcome of a claim, settled together with the other claims of the same moment; `None` if there is no such
    /// campaign.
    ///
    /// # Errors
    /// An error of a server, or too many claims wait already.
    pub async fn settle(&self, claim: ClaimKey) -> Result<Option<Outcome>> {
        let _in_flight = metrics::InFlight::claims(1);
        let context = span::start_child(|| SpanBuilder::from_name("claim"));
        let is_sampled = span::is_recorded(&context);
        let (settled, timeline) = self.wait_for_batch(claim, is_sampled).await;
        if let Some(timeline) = timeline.filter(|_| is_sampled) {
            timeline.draw(&context);
        }
        span::end(&context, &settled);
        settled
    }

    async fn wait_for_batch(
        &self,
        ClaimKey { campaign_id, account_id }: ClaimKey,
        is_sampled: bool,
    ) -> (Result<Option<Outcome>>, Option<Arc<Timeline>>) {
        let claim = Claim { campaign_id, account_id, accepted_at_ms: clock::now_ms() };
        let (answer, answered) = oneshot::channel();
        if self.waiting.try_send(Waiting { claim, is_sampled, answer }).is_err() {
            return (Err(Error::Full { what: "the line of claims" }), None);
        }
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok((settled, timeline))) => (settled, Some(timeline)),
            Ok(Err(_)) => (Err(Error::Broken(String::from("a batch ended without an answer"))), None),
            Err(_) => (Err(Error::Deadline { what: "a claim in line", limit: DEADLINE }), None),
        }
    }
}

/// Takes the waiting claims, up to a batch at a time, until the line is closed.
async fn work(settler: Arc<Settler>, claims: Receiver<Waiting>, batch_max: usize) {
    while let Ok(first) = claims.recv_async().await {
        let mut taken = vec![first];
        taken.extend(claims.try_iter().take(batch_max - 1));
        // A client that stopped waiting claims again if it still wants a coupon.
        taken.retain(|waiting| !waiting.answer.is_closed());
        if !taken.is_empty() {
            settle_all(&settler, taken).await;
        }
    }
}

async fn settle_all(settler: &Settler, taken: Vec<Waiting>) {
    metrics::group(taken.len());
    let is_sampled = taken.iter().any(|waiting| waiting.is_sampled);
    let timeline = Arc::new(if is_sampled { Timeline::recorded() } else { Timeline::default() });
    let (claims, publishers) = (taken.iter().map(|waiting| waiting.claim).collect::<Vec<_>>(), Publishers::new());
    let mut lost = Lost::default();
    let settled = (|| settler.settle(&claims, &publishers, &timeline))
        .retry(pauses_after_conflicts())
        .when(|error| error.is_conflict() && lost.may_try_again())
        .notify(|error, _| metrics::retry(error.class().name()))
        .await
        .inspect_err(|error| tracing::debug!(%error, claims = claims.len(), "a batch of claims failed"));
    for waiting in taken {
        let outcome = settled.as_ref().map(|settled| settled.outcomes.get(&waiting.claim.key()).copied());
        // A client that has hung up needs no answer: if it claims again, it gets the same coupon.
        let _ = waiting.answer.send((outcome.map_err(Error::shared), Arc::clone(&timeline)));
    }
}
