//! Finished spans on their way to the collector: a bounded queue, batches, OTLP over gRPC.
//!
//! Invariant: every span that was recorded is either taken by the collector or counted as dropped. A collector that is
//! away costs the spans and nothing else: the queue drops them, and only a thread of its own waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use uuid::Uuid;

use super::attribute::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use super::demand::{Demand, OnDemand};
use super::environment::{SERVICE, Settings, variable};
use super::metrics;
use super::span::Tracers;
use crate::settings::TlsSettings;

/// How long the last spans may take to be sent when the process stops.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// The path of spans out of this process.
#[derive(Debug)]
pub struct Pipeline {
    claims: SdkTracerProvider,
    roots: SdkTracerProvider,
}

impl Pipeline {
    /// Starts sending as the settings say. The collector need not be up. `None` if spans cannot be sent, which is
    /// logged.
    pub fn start(service: &'static str, settings: Settings, tls: &TlsSettings) -> Option<Self> {
        let collector = &settings.endpoint;
        let exporter =
            OtlpExporter::builder().with_tonic().with_endpoint(collector.reveal()).with_timeout(settings.timeout);
        let exporter = if collector.asks_for_tls() {
            exporter.with_tls_config(tls.0.collector(&collector.host_and_port(0).0))
        } else {
            exporter
        };
        let exporter = exporter
            .build()
            .inspect_err(|error| tracing::warn!(%error, "OTEL_EXPORTER_OTLP_*: cannot be used. No spans are sent"))
            .ok()?;
        let resource = resource(service);
        let demand = Arc::default();
        let processor = Shared::new(exporter, &resource, &settings, Arc::clone(&demand));
        let sampler = OnDemand { sampler: settings.sampler, demand };
        let provider = || SdkTracerProvider::builder().with_resource(resource.clone());
        let pipeline = Self {
            claims: provider().with_span_processor(processor.clone()).with_sampler(sampler).build(),
            // A batch is recorded if one of its claims is, which its own trace id says nothing about.
            roots: provider().with_span_processor(processor).with_sampler(Sampler::AlwaysOn).build(),
        };
        Tracers { claims: pipeline.claims.tracer(service), roots: pipeline.roots.tracer(service) }.install();
        Some(pipeline)
    }

    /// Sends the spans that are left.
    pub fn stop(self) {
        // Both send through the same queue, so the second finds it closed.
        if let Err(error) = self.claims.shutdown_with_timeout(FLUSH_DEADLINE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
        let _ = self.roots.shutdown_with_timeout(FLUSH_DEADLINE);
    }
}

/// The sender of these spans. What the environment says about it takes precedence.
fn resource(service: &'static str) -> Resource {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new(SERVICE_NAME, service),
            KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            KeyValue::new(SERVICE_INSTANCE_ID, Uuid::new_v4().to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()));
    match variable(SERVICE) {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// One queue for all tracers. It counts the spans that wait, so that those that do not fit are dropped here, where they
/// are counted, and never inside the SDK, which keeps its count to itself.
#[derive(Clone, Debug)]
struct Shared {
    queue: Arc<BatchSpanProcessor>,
    waiting: Arc<AtomicUsize>,
    max: usize,
}

impl Shared {
    fn new(exporter: OtlpExporter, resource: &Resource, settings: &Settings, demand: Arc<Demand>) -> Self {
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_max)
            .with_max_export_batch_size(settings.batch_max)
            .with_scheduled_delay(settings.send_every)
            .build();
        let waiting = Arc::new(AtomicUsize::new(0));
        let exporter = Counted { exporter, waiting: Arc::clone(&waiting), demand };
        let mut queue = BatchSpanProcessor::new(exporter, config);
        queue.set_resource(resource);
        Self { queue: Arc::new(queue), waiting, max: settings.queue_max }
    }
}

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.max {
            self.queue.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            metrics::spans_dropped("queue_full", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }
}

/// The exporter, with its failures counted and logged once.
#[derive(Debug)]
struct Counted {
    exporter: OtlpExporter,
    waiting: Arc<AtomicUsize>,
    demand: Arc<Demand>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => {
                metrics::spans_sent(spans);
                if self.demand.taken() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                metrics::spans_dropped("export_failed", spans);
                if self.demand.refused(Instant::now()) {
                    tracing::warn!(%error, "the collector does not take spans: they are dropped until it does");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
