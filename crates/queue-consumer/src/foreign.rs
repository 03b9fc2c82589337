//! Claims of another installation in our queue: two share a broker and a namespace by mistake, or this consumer was given
//! another database than the producers. It leaves them to a consumer of their own and stands aside.
//!
//! Invariant: it consumes again only once the queue has been seen empty. Each time a consumer takes messages and gives them
//! back counts as a delivery, and deliveries are limited.

use std::time::Duration;

use coupon_core::Result;
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::settings::AmqpSettings;
use tokio_util::sync::CancellationToken;

/// How often it checks the queue until then.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// Returns when no message waits in the queue, or when the process is told to stop.
pub async fn stand_aside(amqp: &AmqpSettings, queues: &Queues, stop: &CancellationToken) {
    while tokio::time::timeout(ASK_EVERY, stop.cancelled()).await.is_err() {
        match waiting(amqp, queues).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot tell whether claims of another installation are gone"),
        }
    }
}

async fn waiting(amqp: &AmqpSettings, queues: &Queues) -> Result<u32> {
    let connection = rabbitmq::connect(amqp, "queue-consumer").await?;
    let count = rabbitmq::message_count(&connection, &queues.claims);
    let count = rabbitmq::within(amqp.amqp_deadline, "looking at the queue", count).await?;
    let _ = connection.close(200, "done".into()).await;
    // A queue that is not there is made again when consuming starts.
    Ok(count.unwrap_or(0))
}
