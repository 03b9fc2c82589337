//! RabbitMQ as both of its users see it: the queues and their limits, the policies that may undo these, the message that
//! carries claims, and a connection with a deadline on everything.

mod confirm;
pub mod message;
mod policies;
mod queues;

use std::time::Duration;

use lapin::Connection;

pub use confirm::publish_confirmed;
pub use policies::{Danger, Policies};
pub use queues::{Queues, message_count};

use crate::error::{Error, Result};
use crate::settings::AmqpSettings;

/// A try to connect takes milliseconds. One that hangs, as at an address that leads nowhere for now, makes room for the
/// next.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Connects to the broker under a name that its management page shows.
///
/// # Errors
/// The broker's, or the deadline.
pub async fn connect(settings: &AmqpSettings, name: &str) -> Result<Connection> {
    let properties = connection_properties(name);
    within(settings.amqp_deadline.min(CONNECT_DEADLINE), "connecting to RabbitMQ", async {
        Ok(Connection::connect(settings.amqp_url.reveal(), properties).await?)
    })
    .await
}

/// What every connection of ours says to the broker. No automatic recovery: after a failure a channel is opened anew,
/// because confirms and acknowledgements of the old one are void.
#[must_use]
pub fn connection_properties(name: &str) -> lapin::ConnectionProperties {
    lapin::ConnectionProperties::default().with_connection_name(name.into())
}

/// Ends `work` with the broker at a deadline: lapin itself waits for ever while the broker blocks its publishers.
///
/// # Errors
/// Those of the work, or [`Error::Deadline`].
pub async fn within<T>(limit: Duration, what: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Deadline { what, limit }))
}
