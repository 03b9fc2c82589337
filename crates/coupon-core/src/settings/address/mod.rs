//! Addresses of servers, with the name and password in them.
//!
//! Invariants: no part of an address gets into a log or an error except its scheme, host, port and path, which is the
//! database; whatever a driver would read differently from us, or not at all, is refused here, so that nothing connects
//! to a server other than the one named.

mod read;

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

pub use read::collector_url;
pub(crate) use read::{amqp_url, management_url, mysql_url, redis_url};

/// MySQL's own name for the parameter that asks for TLS.
const SSL_MODE: &str = "ssl-mode";

/// Its only value that asks for TLS and verifies the server.
const VERIFY_IDENTITY: &str = "VERIFY_IDENTITY";

/// The user of a new RabbitMQ, and its password.
const GUEST: &str = "guest";

/// The address of a server. Its password cannot be shown by mistake: `Display` and `Debug` show only the place.
#[derive(Clone)]
pub struct ServerUrl {
    /// The address without user, password and parameters.
    place: Url,
    user: String,
    password: Option<SecretString>,
    query: Option<String>,
    /// The whole address, as its driver reads it.
    whole: SecretString,
}

impl ServerUrl {
    fn of(mut url: Url) -> Self {
        let user = decoded(url.username());
        let password = url.password().map(decoded).map(SecretString::from);
        let query = url.query().map(str::to_owned);
        // Both fail only for an address without a host, and this one has a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        Self { place: url, user, password, query, whole: SecretString::default() }.written()
    }

    /// Writes the whole address anew from its parts.
    fn written(mut self) -> Self {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut url = self.place.clone();
        let password = self.password.as_ref().map(|password| encoded(password.expose_secret()));
        let _ = (url.set_username(&encoded(&self.user)), url.set_password(password.as_deref()));
        url.set_query(self.query.as_deref());
        self.whole = for_driver(&url).into();
        self
    }

    /// The whole address, secrets included, for the driver that connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.whole.expose_secret()
    }

    /// The same server with another path, which is the database of a MySQL or Redis address.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        let mut other = self.clone();
        other.place.set_path(path);
        other.written()
    }

    /// The same server for another user.
    #[must_use]
    pub fn with_user(&self, name: &str, password: &str) -> Self {
        Self { user: name.to_owned(), password: Some(password.into()), ..self.clone() }.written()
    }

    /// Whether the server is to be spoken to over TLS.
    #[must_use]
    pub fn asks_for_tls(&self) -> bool {
        let asks = |value: &str| value.eq_ignore_ascii_case(VERIFY_IDENTITY);
        matches!(self.place.scheme(), "rediss" | "amqps" | "https")
            || self.parameters().any(|(name, value)| name == SSL_MODE && asks(&value))
    }

    /// The same address without the parameter that asks for TLS, which MySQL's driver does not know.
    #[must_use]
    pub fn without_ssl_mode(&self) -> Self {
        let others = self.parameters().filter(|(name, _)| name != SSL_MODE);
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
        Self { query: Some(query).filter(|query| !query.is_empty()), ..self.clone() }.written()
    }

    /// Where to connect to, for a check that no driver makes.
    #[must_use]
    pub fn host_and_port(&self, default_port: u16) -> (String, u16) {
        // An IPv6 address stands in brackets here.
        let host = self.place.host_str().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), self.place.port().unwrap_or(default_port))
    }

    /// The name and the password, or those of a new RabbitMQ if there are none.
    #[must_use]
    pub fn credentials(&self) -> (String, SecretString) {
        match self.user.as_str() {
            "" => (GUEST.to_owned(), GUEST.into()),
            user => (user.to_owned(), self.password.clone().unwrap_or_default()),
        }
    }

    /// The virtual host of an AMQP address.
    #[must_use]
    pub fn vhost(&self) -> String {
        match self.place.path() {
            "" => String::from("/"),
            path => decoded(path.strip_prefix('/').unwrap_or(path)),
        }
    }

    /// The only segment of the path; drivers would skip others.
    fn only_segment(&self) -> Result<&str, String> {
        let path = self.place.path();
        let segment = path.strip_prefix('/').unwrap_or(path);
        if segment.contains('/') { Err(String::from("has more than one / after its host")) } else { Ok(segment) }
    }

    /// Refuses a user without a password: drivers would log in without a user, or with a password of their own.
    fn no_user_alone(&self) -> Result<(), String> {
        match self.password {
            None if !self.user.is_empty() => Err(String::from("names a user without a password")),
            _ => Ok(()),
        }
    }

    /// What is wrong if the driver refuses an address of which everything else has been checked.
    fn wrong_parameter(&self) -> String {
        read::wrong_value(&self.parameters().map(|(name, _)| name.into_owned()).collect::<Vec<_>>().join(", "))
    }

    fn parameters(&self) -> url::form_urlencoded::Parse<'_> {
        url::form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes())
    }

    /// Refuses unknown parameters without naming them: one may be a part of a password.
    fn knows_parameters(&self, known: &[&str]) -> Result<(), String> {
        if known.iter().any(|known| self.parameters().filter(|(name, _)| name == known).count() > 1) {
            return Err(String::from("has a parameter twice"));
        }
        match (self.parameters().any(|(name, _)| !known.contains(&name.as_ref())), known) {
            (false, _) => Ok(()),
            (true, []) => Err(String::from("has a parameter, and takes none")),
            (true, known) => Err(format!("has a parameter that is not known; it takes {}", known.join(", "))),
        }
    }
}

/// Writes an address for its driver. lapin takes an IPv6 address in brackets for localhost, but percent-decodes any
/// host name, so the address is written as an encoded name.
fn for_driver(url: &Url) -> String {
    match (url.scheme(), url.host()) {
        ("amqp" | "amqps", Some(Host::Ipv6(address))) => {
            let host = address.to_string().replace(':', "%3A");
            url.as_str().replacen(&format!("[{address}]"), &host, 1)
        }
        _ => url.as_str().to_owned(),
    }
}

/// Decodes what a parser below has already checked.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.place.as_str())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The address of RabbitMQ's HTTP API, if it may be asked.
#[derive(Clone, Debug)]
pub struct ManagementUrl(Option<ServerUrl>);

impl ManagementUrl {
    /// The whole address, secrets included; empty if it is not to be asked.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.as_ref().map_or("", ServerUrl::reveal)
    }

    /// An address below it, without the name and password; `None` if it is not to be asked.
    #[must_use]
    pub fn below(&self, segments: &[&str]) -> Option<Url> {
        let mut url = self.0.as_ref()?.place.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }

    /// Whether it is asked over TLS.
    #[must_use]
    pub fn asks_for_tls(&self) -> bool {
        self.0.as_ref().is_some_and(ServerUrl::asks_for_tls)
    }

    /// The name and the password, if it has any of its own.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, SecretString)> {
        self.0.as_ref().filter(|url| !url.user.is_empty()).map(ServerUrl::credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whether_it_is_spoken_to_over_tls() {
        for url in [
            mysql_url("mysql://host/coupon?ssl-mode=VERIFY_IDENTITY"),
            redis_url("rediss://host"),
            amqp_url("amqps://[::1]"),
            collector_url("https://host:4317"),
        ] {
            assert!(url.as_ref().unwrap().asks_for_tls(), "{url:?}");
        }
        for url in
            [mysql_url("mysql://host/coupon?ssl-mode=disabled"), redis_url("redis://host"), amqp_url("amqp://host")]
        {
            assert!(!url.as_ref().unwrap().asks_for_tls(), "{url:?}");
        }
        let url = mysql_url("mysql://host/coupon?tcp_nodelay=true&ssl-mode=VERIFY_IDENTITY").unwrap();
        assert_eq!(url.without_ssl_mode().reveal(), "mysql://host/coupon?tcp_nodelay=true");
        assert!(url.with_path("other").asks_for_tls(), "another database is on the same server");
    }
}
