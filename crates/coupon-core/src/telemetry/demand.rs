//! Whether anybody takes the spans that this process makes.
//!
//! Making spans only to drop them costs a fifth to a quarter of the claims a second. So once the collector has taken
//! none for [`PATIENCE`], only one trace is begun in each [`TRY_EVERY`], which is enough to find out that it is back.
//!
//! Invariant: traces that a caller samples are recorded all the while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::metrics;

/// How long a collector may fail before recording pauses.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a trace is recorded while recording is paused.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What the exports show about the collector.
#[derive(Debug, Default)]
pub(super) struct Demand {
    is_paused: AtomicBool,
    failing: Mutex<Failing>,
}

#[derive(Debug, Default)]
struct Failing {
    since: Option<Instant>,
    tried_at: Option<Instant>,
}

impl Demand {
    /// Records that the collector took spans. Returns whether it had failed before.
    pub fn taken(&self) -> bool {
        if self.is_paused.swap(false, Ordering::Relaxed) {
            metrics::tracing_paused(false);
        }
        std::mem::take(&mut *self.failing()).since.is_some()
    }

    /// Records that the collector did not take spans. Returns whether that is new.
    pub fn refused(&self, now: Instant) -> bool {
        let mut failing = self.failing();
        let is_new = failing.since.is_none();
        let since = *failing.since.get_or_insert(now);
        if now - since >= PATIENCE && !self.is_paused.swap(true, Ordering::Relaxed) {
            metrics::tracing_paused(true);
            tracing::warn!(
                "no collector has taken spans for a while: until one does, only callers' traces are recorded"
            );
        }
        is_new
    }

    /// Whether a trace that no caller samples may be recorded.
    fn allows(&self, now: Instant) -> bool {
        if !self.is_paused.load(Ordering::Relaxed) {
            return true;
        }
        let mut failing = self.failing();
        let may_try = failing.tried_at.is_none_or(|tried_at| now - tried_at >= TRY_EVERY);
        if may_try {
            failing.tried_at = Some(now);
        }
        may_try
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples as `sampler` does, while there is demand.
#[derive(Clone, Debug)]
pub(super) struct OnDemand {
    pub sampler: Sampler,
    pub demand: Arc<Demand>,
}

impl ShouldSample for OnDemand {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let result = self.sampler.should_sample(parent, trace_id, name, kind, attributes, links);
        let is_asked_for = parent.is_some_and(|parent| parent.span().span_context().is_sampled());
        if result.decision == SamplingDecision::Drop || is_asked_for || self.demand.allows(Instant::now()) {
            return result;
        }
        Sampler::AlwaysOff.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_pauses_while_nobody_takes_spans() {
        let (demand, began) = (Demand::default(), Instant::now());
        assert!(demand.refused(began));
        assert!(!demand.refused(began + PATIENCE / 2));
        assert!(demand.allows(began + PATIENCE / 2) && demand.allows(began + PATIENCE / 2));

        demand.refused(began + PATIENCE);

        let paused_at = began + PATIENCE;
        assert!(demand.allows(paused_at), "one finds out whether the collector is back");
        assert!(!demand.allows(paused_at + TRY_EVERY / 2));
        assert!(demand.allows(paused_at + TRY_EVERY));
        assert!(demand.taken());
        assert!(demand.allows(paused_at + TRY_EVERY) && !demand.taken());
    }
}
