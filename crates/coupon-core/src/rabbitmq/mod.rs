//! RabbitMQ as both of its users see it: the queues and their limits, the policies that may override these, the message
//! that carries claims, and a connection with a deadline on everything.

mod confirm;
pub mod message;
mod policies;
mod queues;
mod version;

use std::io;
use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt as _, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};

pub use confirm::publish_confirmed;
pub use policies::{Danger, Policies};
pub use queues::{Counts, Queues, counts, message_count};
pub use version::version;

use crate::error::{Error, Result};
use crate::settings::AmqpSettings;

/// An attempt to connect takes milliseconds. One that hangs, for instance at an address that leads nowhere for now,
/// makes way for the next.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// The heartbeat interval in seconds, unless the address sets one. The broker looks once in each, and drops a client
/// that was silent twice in a row: after 20 to 30 s. Then it gives the client's claims to other consumers. With a shorter one, a slow client would be dropped too easily.
const HEARTBEAT_SECONDS: u16 = 10;

/// Connects to the broker under a name that its management page shows.
///
/// # Errors
/// Any error from the broker, or [`Error::Deadline`].
pub async fn connect(settings: &AmqpSettings, name: &str) -> Result<Connection> {
    within(settings.amqp_deadline.min(CONNECT_DEADLINE), "connecting to RabbitMQ", async {
        Ok(dial(settings, name).await?)
    })
    .await
}

/// Like [`connect`], but without a deadline, for a pool that has one of its own.
///
/// # Errors
/// Any error from the broker.
pub async fn dial(settings: &AmqpSettings, name: &str) -> lapin::Result<Connection> {
    // No automatic recovery: after a failure a channel is opened anew, because confirms and acknowledgements of the old
    // one are void.
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    // The settings parser has already accepted this address.
    let mut address: AMQPUri = settings.amqp_url.reveal().parse().map_err(io::Error::other)?;
    address.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let tls = settings.tls.clone();
    let connect = async move |mut address: AMQPUri, runtime| {
        let over_tls = address.scheme == AMQPScheme::AMQPS;
        // The driver's own TLS trusts the system's authorities as well.
        address.scheme = AMQPScheme::AMQP;
        let stream = address.connect_async(&runtime).await?;
        if over_tls {
            let connector = RustlsConnector::from(tls.0.config());
            Ok(stream.into_rustls(&connector, &address.authority.host).await?)
        } else {
            Ok(stream)
        }
    };
    // Boxed, because its future is large, and part of that of each message.
    Box::pin(Connection::connector(address, lapin::runtime::default_runtime()?, connect, properties)).await
}

/// Ends `work` with the broker at a deadline: lapin itself waits forever while the broker blocks its publishers.
///
/// # Errors
/// Those of the work, or [`Error::Deadline`].
pub async fn within<T>(limit: Duration, what: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Deadline { what, limit }))
}
