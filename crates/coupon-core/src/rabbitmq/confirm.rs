//! Publishes one message at a time and waits for its publisher confirm, for dead letters and operators. Claims take the
//! hot path of producer-api.

use lapin::options::BasicPublishOptions;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};

use crate::error::{Error, Result};

/// Publishes to a queue on a channel in confirm mode that nothing else publishes on, and returns when the broker has
/// the message on disk. `called` names the queue in errors.
///
/// # Errors
/// Any error from the broker; [`Error::Refused`] if the queue is at its limit, [`Error::Away`] if it does not exist.
pub async fn publish_confirmed(
    channel: &Channel,
    queue: &ShortString,
    called: &'static str,
    properties: AMQPProperties,
    body: &[u8],
) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    match channel.basic_publish("".into(), queue.clone(), options, body, properties).await?.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Nack(None) => Err(Error::Refused { queue: called }),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Err(Error::Away { what: called }),
        Confirmation::NotRequested => Err(Error::Broken(String::from("the channel is not in confirm mode"))),
    }
}
