//! What a service reports about its work: logs, spans and metrics. `docs/TELEMETRY.md` lists every one of them.
//!
//! ```text
//! span         one claim, one trace: contexts from and to other services, spans of this one
//! timeline     the steps that many claims go through together, recorded once and drawn into the trace of each
//! environment  what the `OTEL_*` variables say; what cannot be used is refused
//! demand       whether the collector takes them; while it does not, no more are made
//! export       finished spans on their way to the collector; those that cannot go are counted
//! metrics      counters and histograms for Prometheus
//! logs         lines with the trace id of the request that they are about
//! ```
//!
//! Invariant: telemetry never holds up or fails a claim. What cannot be sent in time is dropped and counted.

pub mod attribute;
mod demand;
mod environment;
mod export;
pub mod logs;
pub mod metrics;
pub mod span;
pub mod timeline;

use crate::settings::TlsSettings;
pub use environment::{Settings as SpanSettings, read as span_settings};

/// Telemetry of this process.
#[derive(Debug)]
pub struct Telemetry(Option<export::Pipeline>);

/// Starts the metrics of a service, and its spans if there are settings for them; call it once, inside the runtime that
/// the service runs on, after the logs.
#[must_use]
pub fn start(service: &'static str, spans: Option<SpanSettings>, tls: &TlsSettings) -> Telemetry {
    metrics::start(service);
    let unread = environment::unread();
    if !unread.is_empty() {
        tracing::warn!(
            "these variables are set but have no effect, because this program does not read them: {}",
            unread.join(", ")
        );
    }
    start_spans(service, spans, tls)
}

/// Starts the spans of a program that serves no metrics.
#[must_use]
pub fn start_spans(service: &'static str, settings: Option<SpanSettings>, tls: &TlsSettings) -> Telemetry {
    Telemetry(settings.and_then(|settings| export::Pipeline::start(service, settings, tls)))
}

impl Telemetry {
    /// Sends what has not been sent yet, for a few seconds at most. It blocks the calling thread, which must not be one
    /// of the runtime's.
    pub fn stop(self) {
        if let Some(pipeline) = self.0 {
            pipeline.stop();
        }
    }
}
