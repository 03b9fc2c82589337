//! A collector of the spans that the programs of a test export over OTLP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use coupon_otlp::Receiver;
use coupon_otlp::common::v1::{KeyValue, any_value::Value};
use coupon_otlp::trace::span::SpanKind;
use coupon_otlp::trace::status::StatusCode;

use crate::wait::eventually;

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of its sender.
    pub service: String,
    /// The id of its trace.
    pub trace_id: String,
    /// The id of the span.
    pub id: String,
    /// The id of its parent; empty for a root.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Its attributes, all as text.
    pub attributes: BTreeMap<String, String>,
    /// The ids of the traces and spans that it links to.
    pub links: Vec<(String, String)>,
    /// Whether its status is an error.
    pub is_error: bool,
    /// When it began and ended, in nanoseconds since the Unix epoch.
    pub time: (u64, u64),
}

impl Span {
    /// An attribute; empty if there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// A collector that runs for as long as the test's runtime.
pub struct Collector {
    receiver: Receiver,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts a collector on a free port.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start() -> Self {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let receiver = Receiver::start(move |senders| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend(senders.into_iter().flat_map(read_all));
        });
        Self { receiver: receiver.await.expect("a port"), spans }
    }

    /// The collector's address, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.receiver.url()
    }

    /// Every span that has arrived.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a trace, in the order in which they began.
    #[must_use]
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans: Vec<Span> = self.spans().into_iter().filter(|span| span.trace_id == trace_id).collect();
        spans.sort_by_key(|span| span.time);
        spans
    }

    /// The spans of a trace, once one with this name has arrived.
    ///
    /// # Panics
    /// The span does not arrive.
    pub async fn trace_with(&self, trace_id: &str, name: &str) -> Vec<Span> {
        eventually(&format!("the span '{name}' of trace {trace_id} arrives"), async || {
            self.trace(trace_id).iter().any(|span| span.name == name)
        })
        .await;
        self.trace(trace_id)
    }
}

fn read_all(sender: coupon_otlp::trace::ResourceSpans) -> impl Iterator<Item = Span> {
    let resource = attributes(sender.resource.map(|resource| resource.attributes).unwrap_or_default());
    let service = resource.get("service.name").cloned().unwrap_or_default();
    sender.scope_spans.into_iter().flat_map(|scope| scope.spans).map(move |span| read(&service, span))
}

fn read(service: &str, span: coupon_otlp::trace::Span) -> Span {
    let is_error = span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    Span {
        service: service.to_owned(),
        kind: span.kind(),
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        name: span.name,
        attributes: attributes(span.attributes),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        is_error,
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
    }
}

fn attributes(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(is_so)) => is_so.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let attributes = attributes.into_iter();
    attributes.map(|attribute| (attribute.key, text(attribute.value.and_then(|value| value.value)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
