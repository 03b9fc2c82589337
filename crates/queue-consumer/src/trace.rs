//! Traces a batch: it has a trace of its own, and a span in the trace of each sampled claim in it.
//!
//! Invariant: a batch without a sampled claim builds no span. The span of a sampled claim begins when its batch is
//! taken and ends when the batch is acknowledged, because that is how long the claim took.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coupon_core::telemetry::attribute::{
    BATCH_SIZE, CAMPAIGN_ID, MESSAGING_DESTINATION_NAME, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE,
    MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG, MESSAGING_SYSTEM, OUTCOME, REDELIVERED, TIME_IN_QUEUE,
};
use coupon_core::telemetry::span::{self, Link, SpanKind};
use coupon_core::telemetry::timeline::Timeline;
use coupon_core::{Claim, ClaimKey, Error, Result};
use lapin::message::Delivery;
use opentelemetry::trace::{SpanBuilder, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};

use crate::batch::Settled;

/// A batch in progress.
pub struct BatchTrace {
    queue: String,
    taken_at: SystemTime,
    claims: Vec<(ClaimKey, Context)>,
    batch: Option<Context>,
}

impl BatchTrace {
    /// Starts the traces of a batch taken from the queue now.
    pub fn new(queue: &str) -> Self {
        Self { queue: queue.to_owned(), taken_at: SystemTime::now(), claims: Vec::new(), batch: None }
    }

    /// When the batch was taken.
    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    /// Adds claim number `n` of a message, if it is sampled.
    pub fn add(&mut self, delivery: &Delivery, n: usize, claim: &Claim) {
        let Some(parent) = span::extract_sampled(delivery.properties.headers().as_ref(), n) else { return };
        let time_in_queue = time_in_queue(claim, self.taken_at).as_secs_f64();
        let builder = self.span(delivery).with_start_time(self.taken_at);
        let context = span::start(builder, &parent);
        span::note(&context, CAMPAIGN_ID, claim.campaign_id);
        span::note(&context, TIME_IN_QUEUE, time_in_queue);
        if span::is_recorded(&context) {
            self.claims.push((claim.key(), context));
        }
    }

    /// Records in the trace of a message, if it is sampled, that it holds no claim.
    pub fn add_poison(&self, delivery: &Delivery) {
        let Some(parent) = span::extract_sampled(delivery.properties.headers().as_ref(), 0) else { return };
        let context = span::start(self.span(delivery), &parent);
        span::end::<()>(&context, &Err(Error::Broken(String::from("no claim"))));
    }

    fn span(&self, delivery: &Delivery) -> SpanBuilder {
        SpanBuilder::from_name(format!("process {}", self.queue)).with_kind(SpanKind::Consumer).with_attributes([
            KeyValue::new(MESSAGING_SYSTEM, "rabbitmq"),
            KeyValue::new(MESSAGING_OPERATION_NAME, "process"),
            KeyValue::new(MESSAGING_OPERATION_TYPE, "process"),
            KeyValue::new(MESSAGING_DESTINATION_NAME, self.queue.clone()),
            KeyValue::new(
                MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG,
                i64::try_from(delivery.delivery_tag).unwrap_or(i64::MAX),
            ),
            KeyValue::new(REDELIVERED, delivery.redelivered),
        ])
    }

    /// Begins the batch's own trace if any of its claims is sampled, linked both ways, and returns the timeline of its steps.
    pub fn begin(&mut self, size: usize) -> Timeline {
        if self.claims.is_empty() {
            return Timeline::default();
        }
        let link = |(_, claim): &(ClaimKey, Context)| Link::with_context(claim.span().span_context().clone());
        let builder = SpanBuilder::from_name(format!("process batch {}", self.queue))
            .with_kind(SpanKind::Consumer)
            .with_start_time(self.taken_at)
            .with_links(self.claims.iter().map(link).collect())
            .with_attributes([
                KeyValue::new(MESSAGING_SYSTEM, "rabbitmq"),
                KeyValue::new(MESSAGING_OPERATION_NAME, "process"),
                KeyValue::new(MESSAGING_OPERATION_TYPE, "process"),
                KeyValue::new(MESSAGING_DESTINATION_NAME, self.queue.clone()),
                KeyValue::new(BATCH_SIZE, span::count(size)),
            ]);
        let batch = span::start_root(builder);
        for (_, claim) in &self.claims {
            span::note(claim, BATCH_SIZE, span::count(size));
            claim.span().add_link(batch.span().span_context().clone(), Vec::new());
        }
        self.batch = Some(batch);
        Timeline::recorded()
    }

    /// The context of the batch, to which everything logged while it runs belongs.
    pub fn context(&self) -> Context {
        self.batch.clone().unwrap_or_default()
    }

    /// Draws the steps into every trace and ends their spans.
    pub fn end(self, timeline: &Timeline, settled: &Result<Settled>) {
        for (claim, context) in &self.claims {
            timeline.draw(context);
            // A claim without an outcome goes back to the queue, where its trace continues, or to the dead letters.
            if let Some(outcome) = settled.as_ref().ok().and_then(|settled| settled.outcomes.get(claim)) {
                span::note(context, OUTCOME, outcome.name());
            }
            span::end(context, settled);
        }
        if let Some(batch) = &self.batch {
            timeline.draw(batch);
            span::end(batch, settled);
        }
    }
}

/// How long a claim waited in the queue.
pub fn time_in_queue(claim: &Claim, taken_at: SystemTime) -> Duration {
    taken_at.duration_since(UNIX_EPOCH + Duration::from_millis(claim.accepted_at_ms)).unwrap_or_default()
}
