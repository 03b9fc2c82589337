//! Parsers for the values of single settings.
//!
//! Invariant: an error does not repeat a value that may hold a secret.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::header::{self, HeaderName};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use url::{Host, Url};

use crate::http::headers;
use crate::settings;

/// The algorithms to choose from: each signs with a private key that only the issuer knows. With a shared secret,
/// everybody who checks tokens could also make them.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::EdDSA,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// Headers that already mean something to clients, browsers and proxies, so that a gateway cannot name the caller in
/// them.
const TAKEN: [HeaderName; 23] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::ORIGIN,
    header::REFERER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
    header::VIA,
    header::X_FORWARDED_FOR,
    header::X_FORWARDED_HOST,
    header::X_FORWARDED_PROTO,
    HeaderName::from_static("x-real-ip"),
];

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    let is_ours = |name: &HeaderName| [headers::PREFER, headers::TRACEPARENT].contains(name);
    let name = text.parse().ok().filter(|name| !TAKEN.contains(name) && !is_ours(name));
    name.ok_or_else(|| String::from("must be the name of a header that means nothing else, such as x-account-id"))
}

pub(super) fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().ok().filter(|algorithm| ALGORITHMS.contains(algorithm)).ok_or_else(|| {
        let names: Vec<String> = ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        format!("must be one of {}", names.join(", "))
    })
}

pub(super) fn leeway(text: &str) -> Result<Duration, String> {
    settings::duration_within(text, Duration::ZERO, Duration::from_mins(5))
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| String::from("must be networks or addresses, such as 10.0.0.0/8,192.0.2.1"))
}

/// Parses the address of a key set. It may hold a password by mistake, so errors do not repeat it.
pub(super) fn jwks_url(text: &str) -> Result<Url, String> {
    const LIKE: &str = "must be like https://issuer.example/.well-known/jwks.json";

    let url = Url::parse(text).map_err(|_| LIKE)?;
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(String::from("must not hold a name or a password: keys are public"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err(format!("must be https, because anybody on the path could insert keys of their own: it {LIKE}")),
        _ => Err(String::from(LIKE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_means_something_else_is_refused() {
        assert!(header_name("X-Account-Id").is_ok());
        assert!(header_name("X-Forwarded-User").is_ok());
        for name in ["", "a b", "host", "Authorization", "content-type", "X-Forwarded-For", "prefer"] {
            assert!(header_name(name).is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn no_algorithm_has_a_shared_secret_or_none() {
        for refused in ["HS256", "HS384", "HS512", "none", "NONE", "", "es256"] {
            assert!(algorithm(refused).is_err(), "{refused}");
        }
        for taken in ALGORITHMS {
            assert_eq!(algorithm(&format!("{taken:?}")), Ok(taken));
        }
    }

    #[test]
    fn keys_come_over_https_but_from_this_machine() {
        for url in
            ["https://issuer.example/jwks", "http://127.0.0.1:8000/jwks", "http://localhost/jwks", "http://[::1]/"]
        {
            assert!(jwks_url(url).is_ok(), "{url}");
        }
        for url in ["http://issuer.example/jwks", "ftp://localhost/", "https://a:secret@issuer.example/", "issuer", ""]
        {
            let error = jwks_url(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_proxy_is_a_network_or_an_address() {
        assert_eq!(network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert!(network("proxy").is_err());
    }
}
