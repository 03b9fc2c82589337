//! What a service tells of its work: logs, spans and metrics. `docs/TELEMETRY.md` lists every one of them.
//!
//! ```text
//! span         one claim, one trace: contexts from and to other services, spans of this one
//! timeline     the steps that many claims go through together, told once and drawn into the trace of each
//! environment  what the `OTEL_*` variables say; what cannot be used is told
//! export       finished spans on their way to the collector; those that cannot go are counted
//! metrics      counters and histograms for Prometheus
//! logs         lines with the trace id of the request that they are about
//! ```
//!
//! Invariant: telemetry never holds up or fails a claim. What cannot be sent in time is dropped and counted.

pub mod attribute;
mod environment;
mod export;
pub mod logs;
pub mod metrics;
pub mod span;
pub mod timeline;

/// Telemetry of this process.
#[derive(Debug)]
pub struct Telemetry(Option<export::Pipeline>);

/// Starts spans and metrics of a service; call it once, inside the runtime that the service runs on, after the logs.
/// Everything about spans comes from the `OTEL_*` variables; a value that cannot be used is logged and holds up nothing.
#[must_use]
pub fn start(service: &'static str) -> Telemetry {
    metrics::start(service);
    Telemetry(environment::read().and_then(|settings| export::Pipeline::start(service, settings)))
}

impl Telemetry {
    /// Sends what has not been sent yet, for a few seconds at most. It blocks its thread, which must not be one of the
    /// runtime's.
    pub fn stop(self) {
        if let Some(pipeline) = self.0 {
            pipeline.stop();
        }
    }
}
