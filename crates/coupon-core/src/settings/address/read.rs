//! Parses addresses. Everything that is not understood is refused, and no error repeats a part of the address.

use std::ops::RangeInclusive;
use std::str::FromStr;

use deadpool_redis::redis;
use lapin::uri::AMQPUri;
use mysql_async::UrlError;
use percent_encoding::percent_decode_str;
use url::Url;

use super::{ManagementUrl, SSL_MODE, ServerUrl, VERIFY_IDENTITY};
use crate::domain::plain_number;

/// The advice for every address that may have been cut in the middle of a password.
const ENCODE: &str =
    "percent-encode what is special in its name and password (%2F for /, %3F for ?, %23 for #, %40 for @, %25 for %)";

/// The parameter that lets the server ask for the password as it is.
const CLEARTEXT: &str = "enable_cleartext_plugin";

/// Parameters of a MySQL address that its driver knows and that we do not set ourselves. The packet size is left out,
/// because it is for the server to decide: with a smaller one no coupons can be loaded.
const MYSQL_PARAMETERS: &[&str] =
    &["compression", CLEARTEXT, "secure_auth", "socket", SSL_MODE, "stmt_cache_size", "tcp_nodelay", "wait_timeout"];

/// Parameters that make its driver speak TLS, even with a server that has not been verified.
const MYSQL_TLS: &[&str] = &["require_ssl", "verify_ca", "verify_identity", "built_in_roots"];

const ASK_FOR_TLS: &str = "end it with ?ssl-mode=VERIFY_IDENTITY";

/// Parameters of a Redis address that its driver knows.
const REDIS_PARAMETERS: &[&str] = &["protocol"];

/// Parameters of an AMQP address. Its driver knows others, with which the broker would seem to be away: too few
/// channels, too small a frame, a way to log in that needs TLS.
const AMQP_PARAMETERS: &[&str] = &["heartbeat"];

/// Seconds between heartbeats. With 0 there would be none, and nobody would notice a consumer that stalls.
const HEARTBEATS: RangeInclusive<u64> = 1..=600;

/// Databases that every server keeps for itself.
const MYSQLS_OWN: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// The most characters of a name: <https://dev.mysql.com/doc/refman/9.7/en/identifier-length.html>.
const MYSQL_NAME_MAX: usize = 64;

pub fn mysql_url(text: &str) -> Result<ServerUrl, String> {
    if text.starts_with("mysqls://") {
        return Err(format!("asks for TLS by its scheme: {ASK_FOR_TLS}"));
    }
    let url = server_url(text, &["mysql"])?;
    if url.only_segment()?.is_empty() {
        return Err(String::from("names no database: end it with /coupon"));
    }
    if percent_decode_str(url.only_segment()?).decode_utf8_lossy().chars().count() > MYSQL_NAME_MAX {
        return Err(format!("names a database of more than {MYSQL_NAME_MAX} characters, which MySQL does not allow"));
    }
    if MYSQLS_OWN.contains(&url.only_segment()?.to_ascii_lowercase().as_str()) {
        return Err(String::from("names a database of the server's own: end it with another name, as /coupon"));
    }
    if url.parameters().any(|(name, _)| MYSQL_TLS.contains(&name.as_ref())) {
        return Err(format!("asks for TLS by one of {}: {ASK_FOR_TLS}", MYSQL_TLS.join(", ")));
    }
    url.knows_parameters(MYSQL_PARAMETERS)?;
    let is_checked = |mode: &str| [VERIFY_IDENTITY, "DISABLED"].iter().any(|known| mode.eq_ignore_ascii_case(known));
    if url.parameters().any(|(name, value)| name == SSL_MODE && !is_checked(&value)) {
        return Err(format!("has an {SSL_MODE} other than {VERIFY_IDENTITY}, which checks the server, and DISABLED"));
    }
    if !url.asks_for_tls() && url.parameters().any(|(name, value)| name == CLEARTEXT && value != "false") {
        return Err(format!("would send the password in the clear ({CLEARTEXT}): {ASK_FOR_TLS}"));
    }
    if url.asks_for_tls() && url.parameters().any(|(name, _)| name == "socket") {
        return Err(format!("has a socket, over which there is no TLS, and an {SSL_MODE} that asks for it"));
    }
    mysql_async::Opts::from_url(url.without_ssl_mode().reveal()).map_err(|error| match &error {
        UrlError::InvalidParamValue { param, .. } | UrlError::FeatureRequired { param, .. } => wrong_value(param),
        _ => url.wrong_parameter(),
    })?;
    Ok(url)
}

pub fn redis_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, &["redis", "rediss"])?;
    let database = url.only_segment()?;
    if !database.is_empty() && plain_number(database, 0..=9_999).is_none() {
        return Err(String::from("must end with the number of a database, as in /0"));
    }
    url.no_user_alone()?;
    url.knows_parameters(REDIS_PARAMETERS)?;
    redis::Client::open(url.reveal()).map_err(|_| url.wrong_parameter())?;
    Ok(url)
}

pub fn amqp_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, &["amqp", "amqps"])?;
    if url.only_segment()?.is_empty() && !url.place.path().is_empty() {
        return Err(String::from("names no virtual host: end it with /%2f for the default one"));
    }
    url.no_user_alone()?;
    url.knows_parameters(AMQP_PARAMETERS)?;
    AMQPUri::from_str(url.reveal()).map_err(|_| url.wrong_parameter())?;
    if url.parameters().any(|(_, value)| plain_number(&value, HEARTBEATS).is_none()) {
        let (least, most) = HEARTBEATS.into_inner();
        return Err(format!("has a heartbeat other than {least} to {most} seconds"));
    }
    Ok(url)
}

pub fn management_url(text: &str) -> Result<ManagementUrl, String> {
    if text.is_empty() {
        return Ok(ManagementUrl(None));
    }
    let url = server_url(text, &["http", "https"])?;
    url.no_user_alone()?;
    url.knows_parameters(&[])?;
    if url.place.path().trim_end_matches('/').ends_with("/api") {
        return Err(String::from("ends with /api, which is added to it"));
    }
    Ok(ManagementUrl(Some(url)))
}

/// Parses the address of the collector of spans, which takes them over gRPC and therefore at no path.
///
/// # Errors
/// What is wrong with the address, without any part of it.
pub fn collector_url(text: &str) -> Result<ServerUrl, String> {
    let url = server_url(text, &["http", "https"])?;
    if !url.user.is_empty() || url.password.is_some() {
        return Err(String::from("has a user or password, which OTLP does not take: use headers"));
    }
    if !["", "/"].contains(&url.place.path()) {
        return Err(String::from("has a path, which OTLP over gRPC does not take"));
    }
    url.knows_parameters(&[])?;
    Ok(url)
}

pub fn wrong_value(parameters: &str) -> String {
    format!("has a value of {parameters} that cannot be used")
}

fn server_url(text: &str, schemes: &[&str]) -> Result<ServerUrl, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(String::from("contains white space"));
    }
    let Some((_, rest)) = text.split_once("://").filter(|(scheme, _)| schemes.contains(scheme)) else {
        return Err(format!("must begin with {}://", schemes.join(":// or ")));
    };
    // The parser would end the host here, and take the beginning of a password for a port.
    if rest.split_once(['/', '?', '#', '\\']).is_some_and(|(_, after)| after.contains('@')) {
        return Err(format!("has an @ after its host: {ENCODE}"));
    }
    if rest.contains('#') {
        return Err(format!("has a # in it: {ENCODE}"));
    }
    if !is_encoded(rest) {
        return Err(format!("has a % without two hexadecimal digits after it: {ENCODE}"));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.contains('%') || !host.is_ascii() {
        return Err(String::from("names no host, or one that is not written in plain letters and digits"));
    }
    let url = Url::parse(text).map_err(|error| format!("is not an address ({error}): {ENCODE}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(String::from("names no host"));
    }
    if url.port() == Some(0) {
        return Err(String::from("names the port 0, on which nothing listens"));
    }
    let parts = [url.username(), url.password().unwrap_or_default(), url.path()];
    let is_text =
        |part: &str| percent_decode_str(part).decode_utf8().is_ok_and(|text| !text.contains(char::is_control));
    if !parts.into_iter().all(is_text) {
        return Err(String::from(
            "has a part that is not UTF-8 text, or has control characters, once it is percent-decoded",
        ));
    }
    Ok(ServerUrl::of(url))
}

/// Whether each % has two hexadecimal digits after it.
fn is_encoded(text: &str) -> bool {
    let is_byte = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::super::decoded;
    use super::*;

    proptest! {
        #[test]
        fn no_password_is_shown(
            password in "[A-Za-z0-9._~-]{8,20}",
            scheme in "mysql|redis|amqp|http|[a-z]{1,6}",
            before in "[ -~]{0,6}",
            rest in "[ -~]{0,20}",
        ) {
            for text in [
                format!("{scheme}://nobody:{password}@host/coupon{rest}"),
                format!("{scheme}://nobody:{password}{before}@host/coupon"),
                format!("{scheme}://{before}:{password}@{rest}"),
            ] {
                for read in [mysql_url, redis_url, amqp_url] {
                    let shown = match read(&text) {
                        Ok(url) => format!("{url} {url:?}"),
                        Err(line) => line,
                    };
                    prop_assert!(!shown.contains(&password), "{shown} of {text}");
                }
            }
        }
    }

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
                assert!(!refusal.contains("host:3306"), "no part of what was not read: {refusal}");
            }
            let encoded = format!("{scheme}://coupon:12%2FSE%40CRET@host:3306/0");
            let url = parse(&encoded).unwrap();
            let (user, password) = url.credentials();
            assert_eq!((user.as_str(), password.expose_secret()), ("coupon", "12/SE@CRET"));
            assert_eq!(format!("{url} {url:?}"), format!("{scheme}://host:3306/0 {scheme}://host:3306/0"));
        }
    }

    #[test]
    fn a_secret_comes_out_as_it_went_in() {
        for secret in
            ["p%2Fw", "100%25", "100%2541", "%25%32%35", "a%3Ab%3F%23%5B%5D%40%20%E2%82%AC", "!$&'()*+,;=~._-"]
        {
            let plain = decoded(secret);
            let options =
                mysql_async::Opts::from_url(mysql_url(&format!("mysql://me:{secret}@host/coupon")).unwrap().reveal())
                    .unwrap();
            assert_eq!(options.pass().unwrap_or_default(), plain);
            let amqp = AMQPUri::from_str(amqp_url(&format!("amqp://me:{secret}@host")).unwrap().reveal()).unwrap();
            assert_eq!(amqp.authority.userinfo.password, plain);
            let redis = redis::Client::open(redis_url(&format!("redis://me:{secret}@host")).unwrap().reveal()).unwrap();
            assert_eq!(redis.get_connection_info().redis_settings().password().unwrap_or_default(), plain);
        }
        let other = amqp_url("amqp://host/%2f?heartbeat=7").unwrap().with_user("you", "100%41");
        assert_eq!(AMQPUri::from_str(other.reveal()).unwrap().authority.userinfo.password, "100%41");
        assert_eq!(AMQPUri::from_str(other.reveal()).unwrap().query.heartbeat, Some(7));
    }

    #[test]
    fn no_part_of_an_address_that_is_refused_is_shown() {
        type Parse = fn(&str) -> Option<String>;
        let parsers: [(&str, Parse); 5] = [
            ("mysql", |text| mysql_url(text).err()),
            ("redis", |text| redis_url(text).err()),
            ("amqp", |text| amqp_url(text).err()),
            ("http", |text| management_url(text).err()),
            ("http", |text| collector_url(text).err()),
        ];
        for (scheme, parse) in parsers {
            for address in [
                "SECRET",
                "SECRET://host/0",
                "{}://SECRET:SECRET",
                "{}://SECRET:99999/0",
                "{}://[SECRET]/0",
                "{}://me:SECRET@host:0/0",
                "{}://me:SECRET@/0",
                "{}://me:%zzSECRET@host/0",
                "{}://me:%ffSECRET@host/0",
                "{}://me:%00SECRET@host/0",
                "{}://me:SECRET@ho%73t/0",
                "{}://me:SECRET@host/0/SECRET?SECRET",
                "{}://me:SECRET@host/0?SECRET=SECRET",
                "{}://me:SECRET@host/0?heartbeat=SECRET&protocol=SECRET&compression=SECRET",
                "{}://me:SECRET@host/0#SECRET",
                "{}sec://me:SECRET@host/0",
                " {}://me:SECRET@host/0",
            ] {
                let address = address.replace("{}", scheme);
                let refusal = parse(&address).unwrap_or_else(|| panic!("{address} was taken"));
                assert!(!refusal.contains("SECRET"), "{address}: {refusal}");
            }
        }
    }

    #[test]
    fn what_a_driver_would_pass_over_is_refused() {
        for (address, reason) in [
            ("mysql://host", "no database"),
            ("mysql://host/", "no database"),
            ("mysql://host/coupon/other", "more than one /"),
            (&format!("mysql://host/{}", "a".repeat(65)), "more than 64 characters"),
            ("mysql://host/coupon?require_ssl=true", "end it with ?ssl-mode=VERIFY_IDENTITY"),
            ("mysql://host/coupon?ssl-mode=REQUIRED", "ssl-mode other than VERIFY_IDENTITY"),
            ("mysql://host/coupon?ssl-mode=DISABLED&ssl-mode=VERIFY_CA", "a parameter twice"),
            ("mysql://host/coupon?ssl-mode=VERIFY_IDENTITY&socket=/run/mysqld", "a socket, over which there is no TLS"),
            ("mysql://host/coupon?no_such=1", "it takes compression"),
            ("mysql://host/coupon?pool_max=1", "it takes compression"),
            ("mysql://host/coupon?max_allowed_packet=1", "it takes compression"),
            ("mysql://host/coupon?tcp_nodelay=maybe", "a value of tcp_nodelay that"),
            ("mysql://host/coupon?enable_cleartext_plugin=true", "would send the password in the clear"),
            ("mysqls://host/coupon", "end it with ?ssl-mode=VERIFY_IDENTITY"),
            ("mysql://host:0/coupon", "port 0"),
            ("mysql://me:100%@host/coupon", "%25"),
            ("mysql:///coupon", "no host"),
            ("postgres://host/coupon", "mysql://"),
            ("mysql://host:99999/coupon", "port"),
            ("mysql://host/coupon#there", "#"),
            ("mysql://host/cou pon", "white space"),
            ("mysql://%ff:p@host/coupon", "UTF-8"),
        ] {
            let refusal = mysql_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        for (address, reason) in [
            ("redis://host/abc", "number"),
            ("redis://host/-1", "number"),
            ("redis://host/0/1", "more than one /"),
            ("redis://host/+1", "number"),
            ("redis://host/09", "number"),
            ("redis://host/4294967296", "number"),
            ("redis://host/0?db=1", "it takes protocol"),
            ("redis://host?protocol=resp9", "protocol that cannot be used"),
            ("redis://secret@host", "without a password"),
        ] {
            let refusal = redis_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        for (address, reason) in [
            ("amqp://host/", "virtual host"),
            ("amqp://host/a/b", "more than one /"),
            ("amqp://host/%2f?foo=bar", "it takes heartbeat"),
            ("amqp://host/%2f?channel_max=1", "it takes heartbeat"),
            ("amqp://host/%2f?heartbeat=7&frame_max=1", "it takes heartbeat"),
            ("amqp://host/%2f?heartbeat=7&heartbeat=8", "a parameter twice"),
            ("amqp://host/%2f?heartbeat=soon", "a value of heartbeat that cannot be used"),
            ("amqp://host/%2f?heartbeat=0", "a heartbeat other than 1 to 600 seconds"),
            ("amqp://host/%2f?heartbeat=601", "a heartbeat other than 1 to 600 seconds"),
            ("amqp://host/x%00", "control characters"),
            ("amqp://me@host/%2f", "without a password"),
            ("mqtt://host/%2f", "amqp:// or amqps://"),
        ] {
            let refusal = amqp_url(address).unwrap_err();
            assert!(refusal.contains(reason), "{address}: {refusal}");
        }
        assert!(redis_url("redis://:secret@host").is_ok() && redis_url("redis://host/15").is_ok());
        assert!(amqp_url("amqp://host").is_ok() && mysql_url("mysql://me@host/coupon?tcp_nodelay=true").is_ok());
    }

    #[test]
    fn what_is_asked_of_rabbitmq_is_written_right() {
        let url = management_url("http://me:se%2Fcret@host:15672/rabbit/").unwrap();

        assert_eq!(url.below(&["api", "policies", "/"]).unwrap().as_str(), "http://host:15672/rabbit/api/policies/%2F");
        let (user, password) = url.credentials().unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("me", "se/cret"));
        assert!(management_url("http://host").unwrap().credentials().is_none());
        assert_eq!(management_url("").unwrap().below(&["api"]), None);
        for url in ["http://host/api", "http://host/rabbit/api/"] {
            assert!(management_url(url).unwrap_err().contains("/api, which is added"), "{url}");
        }
    }
}
