//! Claims of another installation in our queue: two share a broker and a namespace by mistake, or this consumer was
//! given a different database from the producers'. It stands aside and leaves them to a consumer of their installation.
//!
//! Invariant: it consumes again once the queue has been seen empty, or with a claim of ours at its head, which it
//! checks at growing intervals. Every time a consumer takes messages and gives them back counts as a delivery, and
//! deliveries are limited.

use std::time::Duration;

use coupon_core::rabbitmq::{self, Queues, message};
use coupon_core::settings::AmqpSettings;
use coupon_core::{InstallationId, Result};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it checks the queue until then, and how soon it first checks the head of the queue.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// The longest pause between two checks of the head. At this pace the delivery limit of a claim lasts for half a day.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_mins(10);

/// How long a check waits for the head. It consumes, because a queue with a single active consumer refuses `basic.get`.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// What a consumer knows about claims that are not its own.
pub struct Foreign {
    ours: InstallationId,
    /// The pause before the next check of the head; it keeps growing until the queue is empty.
    pause: Duration,
}

impl Foreign {
    pub fn new(ours: InstallationId) -> Self {
        Self { ours, pause: ASK_EVERY }
    }

    /// Returns when no message waits in the queue, when the next one is ours, or when the process is told to stop.
    pub async fn stand_aside(&mut self, amqp: &AmqpSettings, queues: &Queues, stop: &CancellationToken) {
        let mut look_at = Instant::now() + self.pause;
        while tokio::time::timeout(ASK_EVERY, stop.cancelled()).await.is_err() {
            let is_due = Instant::now() >= look_at;
            if is_due {
                self.pause = (self.pause * 2).min(LOOK_AT_LEAST_EVERY);
                look_at = Instant::now() + self.pause;
            }
            match self.is_over(amqp, queues, is_due).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot check whether claims of another installation are still queued");
                }
            }
        }
    }

    async fn is_over(&mut self, amqp: &AmqpSettings, queues: &Queues, may_look: bool) -> Result<bool> {
        let connection = rabbitmq::connect(amqp, "queue-consumer").await?;
        let asked = async {
            // A missing queue is declared again when consuming starts.
            if rabbitmq::message_count(&connection, &queues.claims).await?.unwrap_or(0) == 0 {
                self.pause = ASK_EVERY;
                return Ok(true);
            }
            if !may_look {
                return Ok(false);
            }
            let channel = connection.create_channel().await?;
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            let (queue, options) = (queues.claims.clone(), BasicConsumeOptions::default());
            let mut looking = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
            match tokio::time::timeout(LOOK_FOR, looking.next()).await {
                Ok(Some(head)) => Ok(self.is_ours(&head?)),
                // Somebody takes what waits.
                Ok(None) | Err(_) => Ok(false),
            }
        };
        let is_over = rabbitmq::within(amqp.amqp_deadline, "looking at the queue", asked).await;
        // Closing the connection returns the message that was checked.
        let _ = connection.close(200, "done".into()).await;
        is_over
    }

    /// Whether the message is ours. A message that holds no claims counts as ours: any consumer moves it to the dead
    /// letters.
    fn is_ours(&self, head: &lapin::message::Delivery) -> bool {
        let head = message::decode(&head.properties, &head.data);
        head.ok().and_then(|message| message.installation).is_none_or(|theirs| theirs == self.ours)
    }
}
