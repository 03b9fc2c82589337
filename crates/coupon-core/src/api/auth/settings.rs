//! The settings that say who may claim and read.
//!
//! Invariant: nobody is open to the world by accident. A service that is reached from elsewhere starts only when it was
//! said who may.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::header::{self, HeaderName};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use url::{Host, Url};

use super::keys::KeySet;
use crate::http::headers;
use crate::settings::{self, ProcessSettings};

/// The algorithms that may be chosen: each with a key of its issuer's own that nobody else learns. With a shared secret,
/// everybody who checks tokens could make them.
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

/// Who may claim and read.
#[derive(Args, Clone, Debug)]
pub struct AuthSettings {
    /// Who may claim and read an outcome: `jwt`, the account that a bearer token names; `trusted-header`, the account that
    /// the gateway in front names; `none`, anybody for any account. Must be said, but on a loopback address, where it is
    /// `none`.
    #[arg(long, env = "AUTH", value_name = "MODE")]
    pub auth: Option<AuthMode>,

    /// For trusted-header: the header in which the gateway names the account. It must remove the client's own.
    #[arg(long, env = "AUTH_HEADER", value_name = "NAME", value_parser = header_name)]
    pub auth_header: Option<HeaderName>,

    /// For jwt: a file with the keys of the issuer, as a JSON Web Key Set or as one public key in PEM.
    #[arg(long, env = "AUTH_KEYS", value_name = "FILE")]
    pub auth_keys: Option<PathBuf>,

    /// For jwt: where the issuer publishes its keys, as a JSON Web Key Set; https, but on a loopback address.
    #[arg(long, env = "AUTH_JWKS_URL", value_name = "URL", value_parser = jwks_url, hide_env_values = true)]
    pub auth_jwks_url: Option<Url>,

    /// For jwt: the `iss` of the tokens.
    #[arg(long, env = "AUTH_ISSUER", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_issuer: Option<String>,

    /// For jwt: the `aud` that a token must have, which says that it was made for this service.
    #[arg(long, env = "AUTH_AUDIENCE", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_audience: Option<String>,

    /// For jwt: the claim of a token that holds the number of the account.
    #[arg(long, env = "AUTH_ACCOUNT_CLAIM", value_name = "NAME", default_value = "sub", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_account_claim: String,

    /// For jwt: the algorithms that are taken, of `EdDSA`, ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512.
    #[arg(long, env = "AUTH_ALGORITHMS", value_name = "LIST", value_parser = algorithm, value_delimiter = ',', default_value = "EdDSA,ES256,PS256,RS256")]
    pub auth_algorithms: Vec<Algorithm>,

    /// For jwt: how far the clocks of the issuer and of this machine may be apart, 5min at most.
    #[arg(long, env = "AUTH_LEEWAY", value_name = "TIME", value_parser = leeway, default_value = "30s")]
    pub auth_leeway: Duration,

    /// Proxies whose X-Forwarded-For is believed, as networks such as 10.0.0.0/8: with none, claims are counted by account
    /// and address.
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS", value_parser = network, value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
}

/// What says which account a caller is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum AuthMode {
    /// A bearer token.
    Jwt,
    /// A header that the gateway in front sets.
    TrustedHeader,
    /// Nobody.
    None,
}

/// The settings of one way, complete.
pub(super) enum Mode {
    Jwt(Box<TokenSettings>),
    TrustedHeader(HeaderName),
    None,
}

/// What a token must be like.
pub(super) struct TokenSettings {
    pub source: KeySource,
    pub rules: Rules,
    pub account_claim: String,
}

impl TokenSettings {
    fn check(&self) -> Result<(), String> {
        match &self.source {
            KeySource::File(file) => KeySet::from_file(file, &self.rules).map(drop),
            KeySource::Url(_) => Ok(()),
        }
    }
}

/// What holds for every token, whichever key it is signed with.
pub(super) struct Rules {
    pub algorithms: Vec<Algorithm>,
    pub issuer: String,
    pub audience: String,
    pub leeway: Duration,
}

/// Where the keys of the issuer are.
#[derive(Clone, Debug)]
pub(super) enum KeySource {
    File(PathBuf),
    Url(Url),
}

impl AuthSettings {
    /// What is wrong with settings that are right one by one, for a service that listens there. Who may claim need not be
    /// said when the service is only asked for its health.
    ///
    /// # Errors
    /// One line that names it.
    pub fn check(&self, listen: SocketAddr, process: &ProcessSettings) -> Result<(), String> {
        if process.command.is_some() {
            return Ok(());
        }
        match self.mode(listen)? {
            Mode::Jwt(tokens) => tokens.check(),
            Mode::TrustedHeader(_) | Mode::None => Ok(()),
        }
    }

    pub(super) fn mode(&self, listen: SocketAddr) -> Result<Mode, String> {
        let mode = match self.auth {
            Some(mode) => mode,
            None if listen.ip().to_canonical().is_loopback() => AuthMode::None,
            None => {
                return Err(format!(
                    "--auth (AUTH) is missing, and {listen} is reached from elsewhere: say who may claim and read, by jwt, \
                     trusted-header or none"
                ));
            }
        };
        self.refuse_what_is_for_another(mode)?;
        match mode {
            AuthMode::Jwt => Ok(Mode::Jwt(Box::new(self.tokens()?))),
            AuthMode::TrustedHeader => {
                let missing = || missing(mode, &[(true, "--auth-header (AUTH_HEADER)")]);
                self.auth_header.clone().map(Mode::TrustedHeader).ok_or_else(missing)
            }
            AuthMode::None => Ok(Mode::None),
        }
    }

    /// A setting that would do nothing was meant to do something.
    fn refuse_what_is_for_another(&self, mode: AuthMode) -> Result<(), String> {
        let settings = [
            (self.auth_header.is_some(), "--auth-header (AUTH_HEADER)", AuthMode::TrustedHeader),
            (self.auth_keys.is_some(), "--auth-keys (AUTH_KEYS)", AuthMode::Jwt),
            (self.auth_jwks_url.is_some(), "--auth-jwks-url (AUTH_JWKS_URL)", AuthMode::Jwt),
            (self.auth_issuer.is_some(), "--auth-issuer (AUTH_ISSUER)", AuthMode::Jwt),
            (self.auth_audience.is_some(), "--auth-audience (AUTH_AUDIENCE)", AuthMode::Jwt),
        ];
        let others = settings.into_iter().filter(|(is_given, _, of)| *is_given && *of != mode);
        let lines = others.map(|(_, setting, of)| {
            format!("{setting} is for --auth (AUTH) {} only, and it is {}", name(of), name(mode))
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { Ok(()) } else { Err(lines.join("; ")) }
    }

    fn tokens(&self) -> Result<TokenSettings, String> {
        let source = match (&self.auth_keys, &self.auth_jwks_url) {
            (Some(file), None) => Some(KeySource::File(file.clone())),
            (None, Some(url)) => Some(KeySource::Url(url.clone())),
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(String::from(
                    "--auth-keys (AUTH_KEYS) and --auth-jwks-url (AUTH_JWKS_URL) are both given: keys come from one of them",
                ));
            }
        };
        let (Some(source), Some(issuer), Some(audience)) =
            (source.clone(), self.auth_issuer.clone(), self.auth_audience.clone())
        else {
            return Err(missing(
                AuthMode::Jwt,
                &[
                    (source.is_none(), "--auth-keys (AUTH_KEYS) or --auth-jwks-url (AUTH_JWKS_URL)"),
                    (self.auth_issuer.is_none(), "--auth-issuer (AUTH_ISSUER)"),
                    (self.auth_audience.is_none(), "--auth-audience (AUTH_AUDIENCE)"),
                ],
            ));
        };
        let rules = Rules { algorithms: self.auth_algorithms.clone(), issuer, audience, leeway: self.auth_leeway };
        Ok(TokenSettings { source, rules, account_claim: self.auth_account_claim.clone() })
    }
}

/// A line that names each setting which a mode needs and does not have.
fn missing(mode: AuthMode, settings: &[(bool, &str)]) -> String {
    let settings: Vec<&str> = settings.iter().filter(|(is_missing, _)| *is_missing).map(|(_, name)| *name).collect();
    format!("{}: missing, and --auth (AUTH) {} needs it", settings.join(", "), name(mode))
}

fn name(mode: AuthMode) -> String {
    mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Headers that clients, browsers and proxies send with a meaning of their own: none of them can be a gateway's word for
/// who calls.
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

fn header_name(text: &str) -> Result<HeaderName, String> {
    let is_ours = |name: &HeaderName| [headers::PREFER, headers::TRACEPARENT].contains(name);
    let name = text.parse().ok().filter(|name| !TAKEN.contains(name) && !is_ours(name));
    name.ok_or_else(|| String::from("must be the name of a header that means nothing else, such as x-account-id"))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().ok().filter(|algorithm| ALGORITHMS.contains(algorithm)).ok_or_else(|| {
        let names: Vec<String> = ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        format!("must be of {}", names.join(", "))
    })
}

fn leeway(text: &str) -> Result<Duration, String> {
    settings::duration_within(text, Duration::ZERO, Duration::from_mins(5))
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| String::from("must be networks or addresses, such as 10.0.0.0/8,192.0.2.1"))
}

/// The value may hold a password by mistake, so what is wrong is said without it.
fn jwks_url(text: &str) -> Result<Url, String> {
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
        "http" => Err(format!("must be https, lest anybody on the way puts keys of their own in: it {LIKE}")),
        _ => Err(String::from(LIKE)),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Test {
        #[command(flatten)]
        auth: AuthSettings,
    }

    fn mode(listen: &str, arguments: &[&str]) -> Result<Mode, String> {
        let arguments: Vec<OsString> =
            std::iter::once("test").chain(arguments.iter().copied()).map(Into::into).collect();
        let Ok(test) = settings::try_parse_from::<Test>(&arguments) else { return Err(String::from("not read")) };
        test.auth.mode(listen.parse().unwrap())
    }

    #[test]
    fn who_may_must_be_said_unless_nobody_else_can_reach_it() {
        for loopback in ["127.0.0.1:8080", "127.9.9.9:1", "[::1]:8080", "[::ffff:127.0.0.1]:80"] {
            assert!(matches!(mode(loopback, &[]), Ok(Mode::None)), "{loopback}");
        }
        for reached in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "[2001:db8::1]:8080"] {
            let error = mode(reached, &[]).err().unwrap_or_default();
            for word in ["--auth (AUTH)", reached, "jwt", "trusted-header", "none"] {
                assert!(error.contains(word), "{word} is missing: {error}");
            }
            assert!(matches!(mode(reached, &["--auth=none"]), Ok(Mode::None)), "{reached}");
        }
    }

    #[test]
    fn a_header_that_means_something_else_is_refused() {
        assert!(header_name("X-Account-Id").is_ok());
        assert!(header_name("X-Forwarded-User").is_ok());
        for name in ["", "a b", "host", "Authorization", "content-type", "X-Forwarded-For", "prefer"] {
            assert!(header_name(name).is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn each_way_needs_its_settings_and_takes_no_others() {
        let here = "127.0.0.1:0";
        let complete = ["--auth=jwt", "--auth-keys=k", "--auth-issuer=i", "--auth-audience=a"];
        assert!(matches!(mode(here, &complete), Ok(Mode::Jwt(_))));
        assert!(matches!(
            mode(here, &["--auth=trusted-header", "--auth-header=x-account-id"]),
            Ok(Mode::TrustedHeader(_))
        ));
        for (missing, name) in [(1, "AUTH_KEYS"), (2, "AUTH_ISSUER"), (3, "AUTH_AUDIENCE")] {
            let mut arguments = complete.to_vec();
            arguments.remove(missing);
            assert!(mode(here, &arguments).err().unwrap().contains(name), "{arguments:?}");
        }
        let all = mode(here, &["--auth=jwt"]).err().unwrap();
        assert!(["AUTH_KEYS", "AUTH_ISSUER", "AUTH_AUDIENCE"].iter().all(|name| all.contains(name)), "{all}");
        let none = mode(here, &[&["--auth=none"], &complete[1..]].concat()).err().unwrap();
        assert!(["AUTH_KEYS", "AUTH_ISSUER", "AUTH_AUDIENCE"].iter().all(|name| none.contains(name)), "{none}");
        for (arguments, name) in [
            (&["--auth=trusted-header"][..], "AUTH_HEADER"),
            (&["--auth-issuer=i"], "AUTH_ISSUER"),
            (&["--auth=none", "--auth-header=x-account-id"], "AUTH_HEADER"),
            (&["--auth=trusted-header", "--auth-header=x", "--auth-keys=k"], "AUTH_KEYS"),
            (&[&complete[..], &["--auth-jwks-url=https://issuer.example/"]].concat(), "AUTH_JWKS_URL"),
        ] {
            assert!(mode(here, arguments).err().unwrap().contains(name), "{arguments:?}");
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
