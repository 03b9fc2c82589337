//! One claim, one trace: the context of a caller comes in with a request or a message, spans of this process are added
//! to it, and it goes out with the next message.
//!
//! Spans are built with OpenTelemetry itself and not from spans of `tracing`: what a batch did is recorded after the
//! fact, with its true times, and a request that is not sampled costs two random numbers here instead of a span that
//! nobody sees. Invariant: [`Context::current`] in a handler is the one of its request, with a valid trace id, sampled
//! or not.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use lapin::types::{AMQPValue, FieldTable};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanBuilder, SpanContext, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use super::attribute::{DB_RESPONSE_STATUS_CODE, ERROR_TYPE};
use crate::error::Error;

pub use opentelemetry::trace::{FutureExt, Link, SpanKind};

/// The header of W3C Trace Context, over HTTP and AMQP alike: w3.org/TR/trace-context.
pub const TRACEPARENT: &str = "traceparent";

static TRACERS: OnceLock<Tracers> = OnceLock::new();
static SILENT: LazyLock<SdkTracer> =
    LazyLock::new(|| SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build().tracer("silent"));
static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// The tracers that make spans.
#[derive(Debug)]
pub(super) struct Tracers {
    /// Spans of claims, sampled as `OTEL_TRACES_SAMPLER` says.
    pub claims: SdkTracer,
    /// Root spans, all of them recorded.
    pub roots: SdkTracer,
}

impl Tracers {
    /// Makes them the tracers of this process, once.
    pub fn install(self) {
        let _ = TRACERS.set(self);
    }
}

fn tracer() -> &'static SdkTracer {
    TRACERS.get().map_or(&SILENT, |tracers| &tracers.claims)
}

/// Starts a span under a parent, which may be remote or missing, and returns the context with it.
#[must_use]
pub fn start(builder: SpanBuilder, parent: &Context) -> Context {
    parent.with_span(tracer().build_with_context(builder, parent))
}

/// Starts a trace that is recorded whatever the sampler says: that of a batch that holds a sampled claim, or that of a
/// caller that has decided for itself.
#[must_use]
pub fn start_root(builder: SpanBuilder) -> Context {
    let tracer = TRACERS.get().map_or(&*SILENT, |tracers| &tracers.roots);
    let root = Context::new();
    root.with_span(tracer.build_with_context(builder, &root))
}

/// Returns a context that is never recorded but has a trace id of its own, for requests that are not work: health and
/// metrics.
#[must_use]
pub fn start_silent(parent: &Context) -> Context {
    parent.with_span(SILENT.build_with_context(SpanBuilder::from_name(""), parent))
}

/// Starts a span under the current one; if that is not recorded, nothing is built and the current context is returned.
#[must_use]
pub fn start_child(builder: impl FnOnce() -> SpanBuilder) -> Context {
    let current = Context::current();
    if is_recorded(&current) { start(builder(), &current) } else { current }
}

/// Whether the span of a context is recorded.
#[must_use]
pub fn is_recorded(context: &Context) -> bool {
    context.span().is_recording()
}

/// The trace id of the current request.
#[must_use]
pub fn current_trace_id() -> String {
    Context::map_current(|context| context.span().span_context().trace_id()).to_string()
}

/// Adds an attribute to a span, if it is recorded.
pub fn note(context: &Context, attribute: &'static str, value: impl Into<opentelemetry::Value>) {
    let span = context.span();
    if span.is_recording() {
        span.set_attribute(KeyValue::new(attribute, value));
    }
}

/// A number of things, in the type that spans take.
#[must_use]
pub fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}

/// Ends the span of a context, as failed if there was an error.
pub fn end<T>(context: &Context, outcome: &Result<T, Error>) {
    if !is_recorded(context) {
        return;
    }
    let span = context.span();
    if let Err(error) = outcome {
        span.set_status(Status::error(error.class().name()));
        span.set_attributes(failure(error));
    }
    span.end();
}

/// What a span says about an error: its class and number. Not its text, in which a server may quote an account.
#[must_use]
pub fn failure(error: &Error) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(ERROR_TYPE, error.class().name())];
    if let Error::Mysql(mysql_async::Error::Server(server)) = error {
        attributes.push(KeyValue::new(DB_RESPONSE_STATUS_CODE, server.code.to_string()));
    }
    attributes
}

/// The context that came with a request, or an empty one.
#[must_use]
pub fn extract(headers: &impl Extractor) -> Context {
    match headers.get(TRACEPARENT) {
        Some(traceparent) if is_spelled_out(traceparent) => PROPAGATOR.extract_with_context(&Context::new(), headers),
        _ => Context::new(),
    }
}

/// Whether version, trace, span and flags have all their digits, as the W3C's recommendation on trace context asks. The
/// propagator would also read numbers that are shorter or have a sign.
fn is_spelled_out(traceparent: &str) -> bool {
    let is_hexadecimal = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    traceparent.split('-').take(4).take_while(is_hexadecimal).map(str::len).eq([2, 32, 16, 2])
}

/// A span's place in its trace, as the header that carries it: version, trace, span, flags.
#[must_use]
pub fn traceparent(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags())
}

/// The headers of a message that carry the contexts of its claims. The first context has the standard name, so that
/// other tools find it; the names of the others end in their number. A context that is not sampled is carried only if
/// it is the first: nobody would look at the others. `tracestate` is not carried: a client may fill it with kilobytes,
/// and headers that are longer than a frame make the broker close the connection.
#[must_use]
pub fn message_headers<'a>(contexts: impl Iterator<Item = &'a Context>) -> FieldTable {
    let mut headers = FieldTable::default();
    for (n, context) in contexts.enumerate() {
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() && (n == 0 || span.is_sampled()) {
            headers.insert(numbered(n).as_ref().into(), AMQPValue::LongString(traceparent(span).into()));
        }
    }
    headers
}

/// The context of a message's claim number `n`, if it is sampled. Contexts that are not sampled are not parsed: with 1
/// % sampled, they are most of them.
#[must_use]
pub fn extract_sampled(headers: Option<&FieldTable>, n: usize) -> Option<Context> {
    let AMQPValue::LongString(traceparent) = headers?.inner().get(numbered(n).as_ref())? else { return None };
    let traceparent = std::str::from_utf8(traceparent.as_bytes()).ok()?;
    let flags = traceparent.chars().next_back()?.to_digit(16)?;
    if flags & 1 == 0 {
        return None;
    }
    let context = extract(&Traceparent(traceparent));
    context.span().span_context().is_sampled().then_some(context)
}

/// Name of the header with the context of a message's claim number `n`.
fn numbered(n: usize) -> Cow<'static, str> {
    if n == 0 { TRACEPARENT.into() } else { format!("{TRACEPARENT}-{n}").into() }
}

/// A context as it was received, for [`extract`].
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{TraceFlags, TraceState};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_a_context_or_none(text in "[ -~]{0,60}|0[0-9a-f]-[0-9a-f]{30,34}-[0-9a-f]{15,17}-[0-9a-f]{1,3}") {
            let mut headers = FieldTable::default();
            headers.insert(TRACEPARENT.into(), AMQPValue::LongString(text.into()));
            let sampled = extract_sampled(Some(&headers), 0);
            prop_assert!(sampled.is_none_or(|context| context.span().span_context().is_valid()));
        }
    }

    fn remote(flags: TraceFlags) -> Context {
        let state = TraceState::from_key_value([("shop", "7")]).unwrap();
        let (trace, span) = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128, 0x00f0_67aa_0ba9_02b7_u64);
        Context::new().with_remote_span_context(SpanContext::new(trace.into(), span.into(), flags, true, state))
    }

    #[test]
    fn a_parent_has_all_its_digits() {
        let read = |text: &str| extract(&Traceparent(text)).span().span_context().is_valid();

        assert!(read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(read("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-of-a-later-version"));
        for text in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "",
        ] {
            assert!(!read(text), "{text}");
        }
    }

    #[test]
    fn a_context_survives_its_message() {
        let sent = remote(TraceFlags::SAMPLED);

        let headers = message_headers([&sent, &sent].into_iter());
        let received = extract_sampled(Some(&headers), 1).unwrap();

        assert_eq!(headers.inner().len(), 2, "no state of a client's: {headers:?}");
        assert_eq!(
            traceparent(received.span().span_context()),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
    }

    #[test]
    fn what_is_not_sampled_is_not_read() {
        let silent = remote(TraceFlags::default());
        let headers = message_headers([&silent, &silent].into_iter());

        assert_eq!(headers.inner().len(), 1, "that of the first alone: {headers:?}");
        assert!((0..3).all(|n| extract_sampled(Some(&headers), n).is_none()));
        assert!(extract_sampled(Some(&FieldTable::default()), 0).is_none());
        assert!(extract_sampled(None, 0).is_none());

        let mut broken = FieldTable::default();
        broken.insert(TRACEPARENT.into(), AMQPValue::LongString("nonsense-01".into()));
        assert!(extract_sampled(Some(&broken), 0).is_none());
    }

    #[test]
    fn a_context_that_is_not_recorded_has_an_id_all_the_same() {
        let context = start_silent(&Context::new());

        assert!(context.span().span_context().is_valid());
        assert!(!is_recorded(&context));
    }
}
