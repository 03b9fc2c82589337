//! Connecting to a server: the options, the deadline, and the error when it fails.

use std::time::Duration;

use mysql_async::{Conn, Opts, OptsBuilder};

use crate::error::{Error, Result};
use crate::settings::{ServerUrl, TlsSettings};

/// The port of MySQL where an address names none.
const MYSQL_PORT: u16 = 3306;

/// The port of the MySQL that `scripts/services up` starts.
const OUR_PORT: u16 = 13306;

/// A server that can be reached answers in milliseconds, and even a busy one in less than this.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// The options for reaching a server, with nothing set on the connection.
#[must_use]
pub fn reach(address: &ServerUrl, tls: &TlsSettings) -> OptsBuilder {
    // The settings parser has already accepted this address.
    let options = Opts::from_url(address.without_ssl_mode().reveal()).unwrap_or_default();
    OptsBuilder::from_opts(options)
        // The driver would look up an IPv6 address together with its brackets.
        .ip_or_hostname(address.host_and_port(0).0)
        // Otherwise a connection to localhost may move to a unix socket unasked.
        .prefer_socket(false)
        .ssl_opts(address.asks_for_tls().then(|| tls.0.mysql()))
}

/// Connects, unless that takes longer than `limit`, or than a server that can be reached needs. A server of another
/// kind may wait for its client to speak first, while a MySQL client waits for its server.
///
/// # Errors
/// Any error from the driver, or [`Error::Deadline`].
pub async fn connect(options: impl Into<Opts>, limit: Duration) -> Result<Conn> {
    let limit = limit.min(CONNECT_DEADLINE);
    match tokio::time::timeout(limit, Conn::new(options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::Deadline { what: "connecting to MySQL", limit }),
    }
}

/// The error for a server that could not be reached: its own words or the driver's, and what to do about it.
#[must_use]
pub fn not_reached(address: &ServerUrl, error: &Error) -> Error {
    Error::Broken(format!("{address}: {error}; {}", remedy_of_not_reached(address, error)))
}

/// What to do about a server that could not be reached.
#[must_use]
pub fn remedy_of_not_reached(address: &ServerUrl, error: &Error) -> &'static str {
    match error {
        Error::Mysql(mysql_async::Error::Io(mysql_async::IoError::Io(error)))
            if error.kind() == std::io::ErrorKind::ConnectionRefused =>
        {
            let (host, port) = address.host_and_port(MYSQL_PORT);
            // The default address.
            if port == OUR_PORT && matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1") {
                "start it with `scripts/services up`"
            } else {
                "see that MySQL runs there and that COUPON_MYSQL_URL leads to it"
            }
        }
        // Only of a socket can the driver say that it is not there.
        Error::Mysql(mysql_async::Error::Io(mysql_async::IoError::Io(error)))
            if error.kind() == std::io::ErrorKind::NotFound =>
        {
            "see that MySQL listens on the socket that COUPON_MYSQL_URL names"
        }
        Error::Mysql(mysql_async::Error::Driver(_)) | Error::Deadline { .. } if !error.stays() => {
            "whatever is at this address does not answer as MySQL"
        }
        _ => error.remedy(),
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::IoError;

    use super::*;
    use crate::settings::mysql_url;

    #[test]
    fn only_what_the_script_starts_is_offered_to_be_started() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = Error::Mysql(mysql_async::Error::Io(IoError::Io(refused)));
        for (address, is_ours) in [
            ("mysql://coupon@127.0.0.1:13306/coupon", true),
            ("mysql://coupon@localhost:13306/other", true),
            ("mysql://coupon@127.0.0.1/coupon", false),
            ("mysql://coupon@mysql.example:13306/coupon", false),
        ] {
            let remedy = remedy_of_not_reached(&mysql_url(address).unwrap(), &refused);

            assert_eq!(remedy.contains("scripts/services up"), is_ours, "{address}: {remedy}");
        }
    }
}
