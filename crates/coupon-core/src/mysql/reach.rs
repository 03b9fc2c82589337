//! Connecting to a server: by which options, within which time, and what is said when it fails.

use std::time::Duration;

use mysql_async::{Conn, Opts, OptsBuilder};

use crate::error::{Error, Result};
use crate::settings::{ServerUrl, TlsSettings};

/// A server that is there answers in milliseconds, also a busy one in less than this.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// How to reach a server, with nothing set on the connection.
#[must_use]
pub fn reach(address: &ServerUrl, tls: &TlsSettings) -> OptsBuilder {
    // The settings parser has tried this address already.
    let options = Opts::from_url(address.without_ssl_mode().reveal()).unwrap_or_default();
    OptsBuilder::from_opts(options)
        // The driver would look up an IPv6 address with its brackets.
        .ip_or_hostname(address.host_and_port(0).0)
        // Else a connection to localhost may move to a unix socket unasked.
        .prefer_socket(false)
        .ssl_opts(address.asks_for_tls().then(|| tls.0.mysql()))
}

/// A connection, unless that takes longer than this, or than a server needs that is there. A server of another kind may
/// wait for its client to speak first, as MySQL's waits for it.
///
/// # Errors
/// The driver's, or [`Error::Deadline`].
pub async fn connect(options: impl Into<Opts>, limit: Duration) -> Result<Conn> {
    let limit = limit.min(CONNECT_DEADLINE);
    match tokio::time::timeout(limit, Conn::new(options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::Deadline { what: "connecting to MySQL", limit }),
    }
}

/// A server that could not be asked, with its own words or the driver's, and what to do about it.
#[must_use]
pub fn not_reached(address: &ServerUrl, error: &Error) -> Error {
    Error::Broken(format!("{address}: {error}; {}", remedy_of_not_reached(address, error)))
}

/// What to do about a server that could not be asked.
#[must_use]
pub fn remedy_of_not_reached(address: &ServerUrl, error: &Error) -> &'static str {
    match error {
        Error::Mysql(mysql_async::Error::Io(mysql_async::IoError::Io(error)))
            if error.kind() == std::io::ErrorKind::ConnectionRefused =>
        {
            let (host, _) = address.host_and_port(0);
            // Where the defaults lead to.
            if matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1") {
                "start it with `scripts/services up`"
            } else {
                "see that MySQL runs there and that COUPON_MYSQL_URL leads to it"
            }
        }
        Error::Mysql(mysql_async::Error::Driver(_)) | Error::Deadline { .. } if !error.stays() => {
            "what is at this address, if anything, does not answer as MySQL"
        }
        _ => error.remedy(),
    }
}
