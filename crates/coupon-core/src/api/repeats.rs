//! Links the span of a repeated claim to that of the first, which has led to the outcome.
//!
//! It does so as far as this instance remembers: for the newest claims among those that are traced.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

use super::recent::Recent;
use crate::domain::ClaimKey;

/// The spans of first claims. Cheap to clone.
#[derive(Clone, Default)]
pub struct Repeats(Arc<Mutex<Recent<(TraceId, SpanId)>>>);

impl Repeats {
    /// Links the current span to that of the first claim, or remembers it as the first.
    pub(super) fn link(&self, claim: ClaimKey) {
        Context::map_current(|context| {
            let span = context.span();
            if !span.is_recording() {
                return;
            }
            let own = span.span_context();
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((trace, first)) = first.get(&claim) else {
                return first.insert(claim, (own.trace_id(), own.span_id()));
            };
            span.add_link(SpanContext::new(trace, first, TraceFlags::SAMPLED, true, TraceState::default()), Vec::new());
        });
    }
}
