//! Addresses of servers, with the name and password in them.
//!
//! Invariants: no part of an address gets into a log or an error but what was parsed and is no secret; what a driver would
//! read otherwise than we do, or not at all, is refused here, so that nothing dials another server than the one named.

use std::fmt;
use std::str::FromStr;

use deadpool_redis::redis;
use lapin::uri::AMQPUri;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Said of every address that may have been cut in the middle of a password.
const ENCODE: &str =
    "percent-encode what is special in its name and password (%2F for /, %3F for ?, %23 for #, %40 for @)";

/// Parameters of an AMQP address that its driver knows; it passes over others.
const AMQP_PARAMETERS: &[&str] = &["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"];

/// What RabbitMQ calls the user of a new broker, and the password.
const GUEST: &str = "guest";

/// The address of a server. `Display` and `Debug` leave the name and the password out.
#[derive(Clone, Eq, PartialEq)]
pub struct ServerUrl {
    url: Url,
    /// As its driver reads it.
    driver: String,
}

impl ServerUrl {
    fn new(url: Url) -> Self {
        Self { driver: for_driver(&url), url }
    }

    /// The whole address, secrets included, for the driver that connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.driver
    }

    /// The same server with another path, which is the database of a MySQL or Redis address.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        let mut url = self.url.clone();
        url.set_path(path);
        Self::new(url)
    }

    /// The same server for another user.
    #[must_use]
    pub fn with_user(&self, name: &str, password: &str) -> Self {
        let mut url = self.url.clone();
        // Both fail for an address without a host only, and this one has a host.
        let _ = (url.set_username(name), url.set_password(Some(password)));
        Self::new(url)
    }

    /// Where to connect to, for a look that no driver takes.
    #[must_use]
    pub fn host_and_port(&self, default_port: u16) -> (String, u16) {
        // An IPv6 address stands in brackets here.
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), self.url.port().unwrap_or(default_port))
    }

    /// The name and the password, those of a new RabbitMQ if there are none.
    #[must_use]
    pub fn credentials(&self) -> (String, String) {
        match self.url.username() {
            "" => (GUEST.to_owned(), GUEST.to_owned()),
            user => (decoded(user), decoded(self.url.password().unwrap_or_default())),
        }
    }

    /// The virtual host of an AMQP address.
    #[must_use]
    pub fn vhost(&self) -> String {
        match self.url.path() {
            "" => String::from("/"),
            path => decoded(path.strip_prefix('/').unwrap_or(path)),
        }
    }
}

/// lapin takes an address in brackets for localhost, and reads any name of a host percent-decoded: so it is written as one.
fn for_driver(url: &Url) -> String {
    match (url.scheme(), url.host()) {
        ("amqp", Some(Host::Ipv6(address))) => {
            let host = address.to_string().replace(':', "%3A");
            url.as_str().replacen(&format!("[{address}]"), &host, 1)
        }
        _ => url.as_str().to_owned(),
    }
}

/// What a parser below has looked at already.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.url.host_str().unwrap_or_default())?;
        if let Some(port) = self.url.port() {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.url.path())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where RabbitMQ's HTTP API is, if it may be asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManagementUrl(Option<ServerUrl>);

impl ManagementUrl {
    /// The whole address, secrets included; empty if it is not to be asked.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.as_ref().map_or("", ServerUrl::reveal)
    }

    /// An address below it, without the name and password; none if it is not to be asked.
    #[must_use]
    pub fn below(&self, segments: &[&str]) -> Option<Url> {
        let mut url = self.0.as_ref()?.url.clone();
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }

    /// The name and the password, if it has some of its own.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, String)> {
        self.0.as_ref().filter(|url| !url.url.username().is_empty()).map(ServerUrl::credentials)
    }
}

pub(super) fn mysql_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, "mysql")?;
    if only_segment(&url)?.is_empty() {
        return Err(String::from("names no database: end it with /coupon"));
    }
    let options = mysql_async::Opts::from_url(url.reveal()).map_err(|error| format!("cannot be used: {error}"))?;
    if options.ssl_opts().is_some() {
        return Err(String::from("asks for TLS (require_ssl), which this build does not speak"));
    }
    Ok(url)
}

pub(super) fn redis_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, "redis")?;
    let database = only_segment(&url)?;
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(String::from("must end with the number of a database, as in /0"));
    }
    no_user_alone(&url)?;
    knows_parameters(&url, &["protocol"])?;
    redis::Client::open(url.reveal()).map_err(|error| format!("cannot be used: {error}"))?;
    Ok(url)
}

pub(super) fn amqp_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, "amqp")?;
    if only_segment(&url)?.is_empty() && !url.url.path().is_empty() {
        return Err(String::from("names no virtual host: end it with /%2f for the default one"));
    }
    no_user_alone(&url)?;
    knows_parameters(&url, AMQP_PARAMETERS)?;
    AMQPUri::from_str(url.reveal()).map_err(|error| format!("cannot be used: {error}"))?;
    Ok(url)
}

pub(super) fn management_url(text: &str) -> Result<ManagementUrl, String> {
    if text.is_empty() {
        return Ok(ManagementUrl(None));
    }
    let url = server_url(text, "http")?;
    no_user_alone(&url)?;
    knows_parameters(&url, &[])?;
    Ok(ManagementUrl(Some(url)))
}

fn server_url(text: &str, scheme: &str) -> Result<ServerUrl, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(String::from("has a blank in it"));
    }
    let behind_scheme = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let rest = behind_scheme.ok_or_else(|| format!("must begin with {scheme}://"))?;
    // The parser would end the host here, and take the beginning of a password for a port.
    if rest.split_once(['/', '?', '#', '\\']).is_some_and(|(_, behind)| behind.contains('@')) {
        return Err(format!("has an @ behind its host: {ENCODE}"));
    }
    let url = Url::parse(text).map_err(|error| format!("is no address ({error}): {ENCODE}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(String::from("names no host"));
    }
    if url.fragment().is_some() {
        return Err(format!("has a # in it: {ENCODE}"));
    }
    let secrets = [url.username(), url.password().unwrap_or_default()];
    if secrets.iter().any(|text| percent_decode_str(text).decode_utf8().is_err()) {
        return Err(String::from("has a name or password that is no UTF-8 once it is percent-decoded"));
    }
    Ok(ServerUrl::new(url))
}

/// The one part of the path; drivers would pass over others.
fn only_segment(url: &ServerUrl) -> Result<&str, String> {
    let path = url.url.path();
    let segment = path.strip_prefix('/').unwrap_or(path);
    if segment.contains('/') { Err(String::from("has more than one / behind its host")) } else { Ok(segment) }
}

/// Drivers would come without a name, or with a password of their own.
fn no_user_alone(url: &ServerUrl) -> Result<(), String> {
    if url.url.username().is_empty() || url.url.password().is_some() {
        Ok(())
    } else {
        Err(String::from("names a user without a password"))
    }
}

fn knows_parameters(url: &ServerUrl, known: &[&str]) -> Result<(), String> {
    match url.url.query_pairs().find(|(name, _)| !known.contains(&name.as_ref())) {
        Some((name, _)) => Err(format!("has the parameter '{name}', which is not known")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_brackets_stays_itself() {
        let url = amqp_url("amqp://me:p%2Fw@[2001:db8::1]:5673/%2f?heartbeat=7").unwrap();

        let read = AMQPUri::from_str(url.reveal()).unwrap();
        assert_eq!((read.authority.host.as_str(), read.authority.port), ("2001:db8::1", 5673));
        assert_eq!((read.authority.userinfo.password.as_str(), read.vhost.as_str()), ("p/w", "/"));
        assert_eq!(read.query.heartbeat, Some(7));
        assert_eq!(url.to_string(), "amqp://[2001:db8::1]:5673/%2f");
        let read = AMQPUri::from_str(amqp_url("amqp://[::1]").unwrap().reveal()).unwrap();
        assert_eq!((read.authority.host.as_str(), read.authority.port), ("::1", 5672));

        let mysql = mysql_async::Opts::from_url(mysql_url("mysql://me@[::1]/coupon").unwrap().reveal()).unwrap();
        assert_eq!(mysql.ip_or_hostname(), "[::1]", "as its driver resolves it");
        let redis = redis::Client::open(redis_url("redis://[::1]:7/3").unwrap().reveal()).unwrap();
        let redis = redis.get_connection_info().addr().to_string();
        assert!(redis.contains("::1") && redis.ends_with(":7"), "{redis}");
    }

    #[test]
    fn a_password_that_was_not_encoded_is_refused_and_not_shown() {
        type Parse = fn(&str) -> Result<ServerUrl, String>;
        let parsers: [(&str, Parse); 3] = [("mysql", mysql_url), ("redis", redis_url), ("amqp", amqp_url)];
        for (scheme, parse) in parsers {
            for password in ["1234/SECRET", "12?SECRET", "12#SECRET", "SECRET/12", "SE?CRET", "#SECRET"] {
                let refusal = parse(&format!("{scheme}://coupon:{password}@host:3306/coupon")).unwrap_err();

                assert!(refusal.contains("percent-encode"), "{scheme} {password}: {refusal}");
                for part in ["SE", "CRET", "coupon", "12"] {
                    assert!(!refusal.contains(part), "{scheme} {password}: {refusal}");
                }
            }
            let encoded = format!("{scheme}://coupon:12%2FSE%40CRET@host:3306/0");
            assert_eq!(parse(&encoded).unwrap().credentials(), (String::from("coupon"), String::from("12/SE@CRET")));
        }
    }

    #[test]
    fn what_a_driver_would_pass_over_is_refused() {
        for (address, reason) in [
            ("mysql://host", "no database"),
            ("mysql://host/", "no database"),
            ("mysql://host/coupon/other", "more than one /"),
            ("mysql://host/coupon?require_ssl=true", "TLS"),
            ("mysql://host/coupon?no_such=1", "no_such"),
            ("mysql:///coupon", "no host"),
            ("postgres://host/coupon", "mysql://"),
            ("mysql://host:99999/coupon", "port"),
            ("mysql://host/coupon#there", "#"),
            ("mysql://host/cou pon", "blank"),
            ("mysql://%ff:p@host/coupon", "UTF-8"),
        ] {
            let refusal = mysql_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        for (address, reason) in [
            ("redis://host/abc", "number"),
            ("redis://host/-1", "number"),
            ("redis://host/0/1", "more than one /"),
            ("redis://host/0?db=1", "db"),
            ("redis://host?protocol=resp9", "cannot be used"),
            ("redis://secret@host", "without a password"),
            ("rediss://host", "redis://"),
        ] {
            let refusal = redis_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        for (address, reason) in [
            ("amqp://host/", "virtual host"),
            ("amqp://host/a/b", "more than one /"),
            ("amqp://host/%2f?foo=bar", "foo"),
            ("amqp://host/%2f?heartbeat=soon", "cannot be used"),
            ("amqp://me@host/%2f", "without a password"),
            ("amqps://host/%2f", "amqp://"),
        ] {
            let refusal = amqp_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        assert!(redis_url("redis://:secret@host").is_ok() && redis_url("redis://host/15").is_ok());
        assert!(amqp_url("amqp://host").is_ok() && mysql_url("mysql://me@host/coupon?prefer_socket=false").is_ok());
    }

    #[test]
    fn what_is_asked_of_rabbitmq_is_written_right() {
        let url = management_url("http://me:se%2Fcret@host:15672/rabbit/").unwrap();

        assert_eq!(url.below(&["api", "policies", "/"]).unwrap().as_str(), "http://host:15672/rabbit/api/policies/%2F");
        assert_eq!(url.credentials(), Some((String::from("me"), String::from("se/cret"))));
        assert_eq!(management_url("http://host").unwrap().credentials(), None);
        assert_eq!(management_url("").unwrap().below(&["api"]), None);
        assert!(management_url("https://host").unwrap_err().contains("http://"));
    }
}
