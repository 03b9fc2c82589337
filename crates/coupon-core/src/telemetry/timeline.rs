//! The steps of a piece of work, recorded once with their true times: as metrics for all, and as spans in the trace of
//! each sampled claim that the work was done for. A batch of 500 claims is one piece of work and may be five traces.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};

use super::attribute::{
    DB_COLLECTION_NAME, DB_OPERATION_BATCH_SIZE, DB_OPERATION_NAME, DB_QUERY_TEXT, DB_SYSTEM_NAME, ERROR_TYPE,
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_OPERATION_NAME, MESSAGING_OPERATION_TYPE, MESSAGING_SYSTEM,
};
use super::{metrics, span};
use crate::error::{Error, Result};

/// A kind of step: its name, in spans and metrics, and what it does.
#[derive(Debug)]
pub struct Operation {
    /// Name of the span and of the step in metrics.
    pub name: &'static str,
    /// Where it is done, and how.
    pub at: Server,
}

/// The server at which a step works, and how.
#[derive(Debug)]
pub enum Server {
    /// A statement on the table `coupon`: what it does, and its text without values.
    Mysql(&'static str, &'static str),
    /// The beginning or the end of a transaction.
    MysqlTransaction,
    /// A command.
    Redis(&'static str),
    /// A message to the broker that settles deliveries, such as an ack.
    Rabbitmq,
    /// No server, or several.
    None,
}

impl Operation {
    fn kind(&self) -> SpanKind {
        if matches!(self.at, Server::None) { SpanKind::Internal } else { SpanKind::Client }
    }

    fn attributes(&self, size: usize) -> Vec<KeyValue> {
        let mut attributes = match self.at {
            Server::Mysql(operation, text) => vec![
                KeyValue::new(DB_SYSTEM_NAME, "mysql"),
                KeyValue::new(DB_OPERATION_NAME, operation),
                KeyValue::new(DB_COLLECTION_NAME, "coupon"),
                KeyValue::new(DB_QUERY_TEXT, text),
            ],
            Server::MysqlTransaction => {
                vec![KeyValue::new(DB_SYSTEM_NAME, "mysql"), KeyValue::new(DB_OPERATION_NAME, self.name)]
            }
            Server::Redis(command) => {
                vec![KeyValue::new(DB_SYSTEM_NAME, "redis"), KeyValue::new(DB_OPERATION_NAME, command)]
            }
            Server::Rabbitmq => vec![
                KeyValue::new(MESSAGING_SYSTEM, "rabbitmq"),
                KeyValue::new(MESSAGING_OPERATION_NAME, self.name),
                KeyValue::new(MESSAGING_OPERATION_TYPE, "settle"),
            ],
            Server::None => Vec::new(),
        };
        let size_name =
            if matches!(self.at, Server::Rabbitmq) { MESSAGING_BATCH_MESSAGE_COUNT } else { DB_OPERATION_BATCH_SIZE };
        // The conventions do not want a size of one.
        if size > 1 {
            attributes.push(KeyValue::new(size_name, span::count(size)));
        }
        attributes
    }
}

#[derive(Debug)]
struct Step {
    operation: &'static Operation,
    size: usize,
    began: SystemTime,
    ended: SystemTime,
    failure: Vec<KeyValue>,
}

/// What was done, in order.
#[derive(Debug, Default)]
pub struct Timeline {
    /// `None` if no sampled claim takes part, so that only metrics are wanted.
    steps: Option<Mutex<Vec<Step>>>,
}

impl Timeline {
    /// Creates one for work in which a sampled claim takes part.
    #[must_use]
    pub fn recorded() -> Self {
        Self { steps: Some(Mutex::default()) }
    }

    /// Runs a step for `size` claims.
    ///
    /// # Errors
    /// Those of the step.
    pub async fn step<T>(
        &self,
        operation: &'static Operation,
        size: usize,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = Begun::now(operation, size);
        let outcome = work.await;
        self.end(begun, outcome.as_ref().err());
        outcome
    }

    /// Ends a step.
    pub fn end(&self, step: Begun, error: Option<&Error>) {
        let Begun { operation, size, began, since } = step;
        let took = since.elapsed();
        metrics::step(operation.name, took);
        let Some(steps) = &self.steps else { return };
        // By the monotonic clock, which does not jump.
        let ended = began + took;
        let failure = error.map(span::failure).unwrap_or_default();
        steps.lock().unwrap_or_else(PoisonError::into_inner).push(Step { operation, size, began, ended, failure });
    }

    /// Draws the steps as spans under the span of a claim or a batch.
    pub fn draw(&self, parent: &Context) {
        let Some(steps) = self.steps.as_ref().filter(|_| span::is_recorded(parent)) else { return };
        for step in steps.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let builder = SpanBuilder::from_name(step.operation.name)
                .with_kind(step.operation.kind())
                .with_start_time(step.began)
                .with_attributes(step.operation.attributes(step.size));
            let drawn = span::start(builder, parent);
            let drawn = drawn.span();
            if let Some(class) = step.failure.iter().find(|attribute| attribute.key.as_str() == ERROR_TYPE) {
                drawn.set_status(Status::error(class.value.to_string()));
                drawn.set_attributes(step.failure.iter().cloned());
            }
            drawn.end_with_timestamp(step.ended);
        }
    }
}

/// A step under way.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    operation: &'static Operation,
    size: usize,
    began: SystemTime,
    since: Instant,
}

impl Begun {
    /// Begins a step for `size` claims that is ended in another place.
    #[must_use]
    pub fn now(operation: &'static Operation, size: usize) -> Self {
        Self { operation, size, began: SystemTime::now(), since: Instant::now() }
    }
}
