//! Claims that cannot have an outcome are kept for an operator, with the reason.
//!
//! Invariant: returns only when the broker has them on disk, so that their messages may then be acknowledged. A consumer
//! that dies in between does so again: such a claim may be among the dead letters twice, but is never lost.

use coupon_core::rabbitmq::Queues;
use coupon_core::rabbitmq::message::{self, CLAIMS_PER_MESSAGE_MAX};
use coupon_core::telemetry::metrics;
use coupon_core::{Claim, Error, InstallationId, Result};
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};

/// Publishes claims to the dead-letter queue on a channel in confirm mode that nothing else publishes on.
pub async fn keep(
    channel: &Channel,
    queues: &Queues,
    installation: InstallationId,
    claims: &[Claim],
    reason: &str,
) -> Result<()> {
    tracing::error!(reason, claims = claims.len(), queue = %queues.dead, "claims go to the dead letters");
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    for claims in claims.chunks(CLAIMS_PER_MESSAGE_MAX) {
        let (properties, body) = (message::dead_letter_properties(installation, reason), message::encode(claims)?);
        let sent = channel.basic_publish("".into(), queues.dead.clone(), options, &body, properties);
        match sent.await?.await? {
            Confirmation::Ack(None) => metrics::dead_letter(),
            Confirmation::Nack(None) => return Err(Error::Refused { queue: "the queue of dead letters" }),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                return Err(Error::Away { what: "the queue of dead letters" });
            }
            Confirmation::NotRequested => {
                return Err(Error::Broken(String::from("the channel is not in confirm mode")));
            }
        }
    }
    Ok(())
}
