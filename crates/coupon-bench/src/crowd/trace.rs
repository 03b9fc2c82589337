//! The trace of a claim. Its root is the bench's own span, from the first byte sent to the outcome.
//!
//! As the caller, the bench decides which claims are traced, so that it knows the traces of its run, and another ratio
//! does not require restarting the services.

use coupon_core::Outcome;
use coupon_core::telemetry::attribute::OUTCOME;
use coupon_core::telemetry::span::{self, SpanKind, TRACEPARENT};
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use rand::RngExt;

/// The name of the root span.
pub const ROOT: &str = "claim";

/// The attribute of the root span that names the load.
pub const LOAD: &str = "coupon.load";

/// The name of the span of a request for the outcome of a claim that was only accepted.
const QUESTION: &str = "ask for outcome";

/// Parses a share of claims, from 0 to 1.
///
/// # Errors
/// The text is anything else.
pub fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) && !text.starts_with('-') => Ok(ratio),
        _ => Err(String::from("must be a number from 0 to 1")),
    }
}

/// The trace of a claim, or the part of it that belongs to one request for the outcome.
#[derive(Clone)]
pub struct Trace(Context);

impl Trace {
    /// Begins a trace that is sampled with this probability. Even if the bench exports no spans, the services record
    /// it.
    pub fn begin(load: &str, ratio: f64) -> Self {
        let is_sampled = rand::rng().random_bool(ratio);
        if is_sampled {
            let load = KeyValue::new(LOAD, load.to_owned());
            let root = SpanBuilder::from_name(ROOT).with_kind(SpanKind::Client).with_attributes([load]);
            let root = span::start_root(root);
            if span::is_recorded(&root) {
                return Self(root);
            }
        }
        Self::remote(is_sampled)
    }

    fn remote(is_sampled: bool) -> Self {
        let mut rng = rand::rng();
        // No id may be zero.
        let trace = TraceId::from(rng.random_range(1..=u128::MAX));
        let span = SpanId::from(rng.random_range(1..=u64::MAX));
        let flags = TraceFlags::default().with_sampled(is_sampled);
        Self(Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::default())))
    }

    /// Begins a request for the outcome. It is recorded only if the bench exports spans; otherwise only claims are
    /// traced.
    pub fn question(&self) -> Self {
        if !span::is_recorded(&self.0) {
            return Self::remote(false);
        }
        Self(span::start(SpanBuilder::from_name(QUESTION).with_kind(SpanKind::Client), &self.0))
    }

    /// Whether the services record this trace.
    pub fn is_sampled(&self) -> bool {
        self.0.span().span_context().is_sampled()
    }

    /// The id by which Jaeger finds this trace.
    pub fn id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    /// The header that the services read: w3.org/TR/trace-context.
    pub fn header(&self) -> anyhow::Result<(HeaderName, HeaderValue)> {
        let value = HeaderValue::try_from(span::traceparent(self.0.span().span_context()))?;
        Ok((HeaderName::from_static(TRACEPARENT), value))
    }

    /// Ends the span with the outcome, or with an error.
    pub fn end(&self, answer: &anyhow::Result<Outcome>) {
        match answer {
            Ok(Outcome::Pending) => {}
            Ok(outcome) => span::note(&self.0, OUTCOME, outcome.name()),
            Err(_) => self.0.span().set_status(Status::error("no outcome")),
        }
        self.0.span().end();
    }
}
