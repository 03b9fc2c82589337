//! Publishes claims: those waiting at the same moment in one actix worker share a message, and so one confirm.
//!
//! Invariants: a message takes the waiting claims and is never held back to fill up, so a lone claim leaves
//! immediately; every claim in a message is answered according to its confirm; once its message is on its way, a claim
//! is published even if its client hangs up, because it cannot be taken back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use coupon_core::rabbitmq::{self, message};
use coupon_core::telemetry::attribute::{
    CAMPAIGN_ID, MESSAGE_CLAIMS, MESSAGING_DESTINATION_NAME, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE, MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, MESSAGING_SYSTEM,
};
use coupon_core::telemetry::metrics;
use coupon_core::telemetry::span::{self, SpanKind};
use coupon_core::{Claim, Error, InstallationId, InstanceId, Result};
use opentelemetry::trace::SpanBuilder;
use opentelemetry::{Context, KeyValue};
use tokio::sync::oneshot;

use crate::channel::{Broker, WorkerChannel};

/// How many messages of one worker may await their confirms. With more, messages get smaller and the broker busier;
/// with one, a claim may wait for a whole confirm before its message leaves. See docs/PERFORMANCE.md.
const MESSAGES_IN_FLIGHT: usize = 4;

/// Claims that may wait in one worker for a message; further ones are refused.
const WAITING_MAX: usize = 16_384;

/// Publishes the claims of one actix worker.
pub struct Publisher {
    line: Rc<Line>,
}

struct Line {
    channel: WorkerChannel,
    installation: InstallationId,
    instance: InstanceId,
    claims_per_message: usize,
    waiting: RefCell<VecDeque<Waiting>>,
    senders: Cell<usize>,
}

struct Waiting {
    claim: Claim,
    context: Context,
    answer: oneshot::Sender<Result<()>>,
}

impl Publisher {
    /// Creates the publisher of the current thread's worker.
    pub fn new(broker: Broker, installation: InstallationId, instance: InstanceId, claims_per_message: usize) -> Self {
        let line = Line {
            channel: WorkerChannel::new(broker),
            installation,
            instance,
            claims_per_message,
            waiting: RefCell::default(),
            senders: Cell::new(0),
        };
        Self { line: Rc::new(line) }
    }

    /// Publishes a claim and returns when it is safe on the broker's disk.
    ///
    /// # Errors
    /// The broker is away, refuses (its queue is full), or does not confirm within the deadline. The claim may have
    /// arrived anyway, which is harmless: processing is idempotent.
    pub async fn publish(&self, claim: Claim) -> Result<()> {
        let _in_flight = metrics::InFlight::claims(1);
        let context = span::start_child(|| self.span(&claim));
        let published = self.wait_for_confirm(claim, context.clone()).await;
        span::end(&context, &published);
        metrics::confirm(match &published {
            Ok(()) => "ack",
            Err(Error::Refused { .. }) => "nack",
            Err(_) => "failed",
        });
        published
    }

    /// The span of a publish, from joining the line to the confirm.
    fn span(&self, claim: &Claim) -> SpanBuilder {
        let queue = self.line.channel.queue();
        SpanBuilder::from_name(format!("publish {queue}")).with_kind(SpanKind::Producer).with_attributes([
            KeyValue::new(MESSAGING_SYSTEM, "rabbitmq"),
            KeyValue::new(MESSAGING_OPERATION_NAME, "publish"),
            KeyValue::new(MESSAGING_OPERATION_TYPE, "send"),
            KeyValue::new(MESSAGING_DESTINATION_NAME, queue.to_owned()),
            KeyValue::new(MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, queue.to_owned()),
            KeyValue::new(CAMPAIGN_ID, claim.campaign_id),
        ])
    }

    async fn wait_for_confirm(&self, claim: Claim, context: Context) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.line.add(Waiting { claim, context, answer })?;
        if self.line.senders.get() < MESSAGES_IN_FLIGHT {
            // A task of its own, because a client that hangs up must not take the claims of others with it.
            actix_web::rt::spawn(send_all(Sender::new(Rc::clone(&self.line))));
        }
        let deadline = self.line.channel.deadline();
        rabbitmq::within(deadline, "a publisher confirm", async {
            answered.await.unwrap_or_else(|_| Err(Error::Broken(String::from("a message ended without an answer"))))
        })
        .await
    }
}

impl Line {
    fn add(&self, claim: Waiting) -> Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX {
            return Err(Error::Full { what: "the line of claims" });
        }
        waiting.push_back(claim);
        Ok(())
    }

    /// Takes the waiting claims, up to a message. A client that stopped waiting claims again if it still wants a
    /// coupon.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let mut message = Vec::with_capacity(waiting.len().min(self.claims_per_message));
        while message.len() < self.claims_per_message {
            match waiting.pop_front() {
                Some(claim) if claim.answer.is_closed() => {}
                Some(claim) => message.push(claim),
                None => break,
            }
        }
        message
    }

    async fn send(&self, waiting: &[Waiting]) -> Result<()> {
        let claims: Vec<Claim> = waiting.iter().map(|waiting| waiting.claim).collect();
        let body = message::encode(&claims)?;
        for context in waiting.iter().map(|waiting| &waiting.context).filter(|context| span::is_recorded(context)) {
            span::note(context, MESSAGE_CLAIMS, span::count(waiting.len()));
            span::note(context, MESSAGING_MESSAGE_BODY_SIZE, span::count(body.len()));
        }
        metrics::message(waiting.len());
        let properties = message::properties(self.installation, waiting.iter().map(|waiting| &waiting.context));
        let properties = message::published_by(properties, self.instance);
        self.channel.publish(properties, &body).await
    }
}

/// One of the messages that may be in flight at the same time.
struct Sender(Rc<Line>);

impl Sender {
    fn new(line: Rc<Line>) -> Self {
        line.senders.set(line.senders.get() + 1);
        Self(line)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
    }
}

/// Sends message after message until no claim waits.
async fn send_all(sender: Sender) {
    loop {
        let message = sender.0.take();
        if message.is_empty() {
            return;
        }
        let published = sender.0.send(&message).await;
        for waiting in message {
            // A client that has hung up meanwhile needs no answer.
            let _ = waiting.answer.send(published.as_ref().map(drop).map_err(Error::shared));
        }
    }
}
