//! Keeps what cannot have an outcome for an operator, with the reason: claims of unknown campaigns, and messages that
//! hold no claims.
//!
//! Invariant: returns only when the broker has the dead letters on disk, so that the original messages may then be
//! acknowledged. If a consumer dies in between, another repeats this: a claim may be among the dead letters twice, but
//! is never lost.

use coupon_core::rabbitmq::message::{self, CLAIMS_PER_MESSAGE_MAX};
use coupon_core::rabbitmq::{self, Queues, publish_confirmed};
use coupon_core::settings::AmqpSettings;
use coupon_core::telemetry::metrics;
use coupon_core::{Claim, InstallationId, Result};
use lapin::options::ConfirmSelectOptions;
use lapin::protocol::basic::AMQPProperties;

/// A message for the dead letters.
pub type Letter = (AMQPProperties, Vec<u8>);

/// Creates messages that hold these claims, with the reason why they cannot have an outcome.
pub fn of_claims(claims: &[Claim], installation: InstallationId, reason: &str) -> Result<Vec<Letter>> {
    let letter = |claims| Ok((message::dead_letter_properties(installation, reason), message::encode(claims)?));
    claims.chunks(CLAIMS_PER_MESSAGE_MAX).map(letter).collect()
}

/// Publishes to the queue of dead letters, over a connection of its own: when short of memory or disk, RabbitMQ stops
/// reading from connections that publish, and acks must still get through.
pub async fn keep(amqp: &AmqpSettings, queues: &Queues, letters: &[Letter]) -> Result<()> {
    let connection = rabbitmq::connect(amqp, "queue-consumer, dead letters").await?;
    let published = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for (properties, body) in letters {
            publish_confirmed(&channel, &queues.dead, "the queue of dead letters", properties.clone(), body).await?;
            metrics::dead_letter();
        }
        connection.close(200, "done".into()).await?;
        Ok(())
    };
    rabbitmq::within(amqp.amqp_deadline, "keeping dead letters", published).await
}
