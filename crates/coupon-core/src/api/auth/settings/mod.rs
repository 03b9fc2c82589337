//! The settings that say who may claim and read.
//!
//! Invariant: no service is open to the world by accident. One that can be reached from elsewhere starts only if its
//! settings say who may claim and read.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::header::HeaderName;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use url::Url;

use self::values::{algorithm, header_name, jwks_url, leeway, network};
use super::keys::KeySet;
use super::rules::Rules;
use crate::settings::{ProcessSettings, TlsSettings};

/// Who may claim and read.
#[derive(Args, Clone, Debug)]
pub struct AuthSettings {
    /// Who may claim and read an outcome: `jwt`, the account that a bearer token names; `trusted-header`, the account
    /// that the gateway in front names; `none`, anybody for any account. Required, except on a loopback address, where
    /// the default is `none`.
    #[arg(long, env = "AUTH", value_name = "MODE")]
    pub auth: Option<AuthMode>,

    /// For trusted-header: the header in which the gateway names the account. It must remove any that the client sends.
    #[arg(long, env = "AUTH_HEADER", value_name = "NAME", value_parser = header_name)]
    pub auth_header: Option<HeaderName>,

    /// For jwt: a file with the keys of the issuer, as a JSON Web Key Set or as one public key in PEM.
    #[arg(long, env = "AUTH_KEYS", value_name = "FILE")]
    pub auth_keys: Option<PathBuf>,

    /// For jwt: where the issuer publishes its keys, as a JSON Web Key Set; https, except on a loopback address.
    #[arg(long, env = "AUTH_JWKS_URL", value_name = "URL", value_parser = jwks_url, hide_env_values = true)]
    pub auth_jwks_url: Option<Url>,

    /// For jwt: the `iss` of the tokens.
    #[arg(long, env = "AUTH_ISSUER", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_issuer: Option<String>,

    /// For jwt: the `aud` that a token must have, which shows that it was issued for this service.
    #[arg(long, env = "AUTH_AUDIENCE", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_audience: Option<String>,

    /// For jwt: the claim of a token that holds the number of the account.
    #[arg(long, env = "AUTH_ACCOUNT_CLAIM", value_name = "NAME", default_value = "sub", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_account_claim: String,

    /// For jwt: the claim of a token that holds the list of campaigns from which its account may claim; a token without
    /// it allows none. Without this setting, every account may claim from every campaign.
    #[arg(long, env = "AUTH_ELIGIBILITY_CLAIM", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_eligibility_claim: Option<String>,

    /// For jwt: the accepted algorithms, out of `EdDSA`, ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512.
    #[arg(long, env = "AUTH_ALGORITHMS", value_name = "LIST", value_parser = algorithm, value_delimiter = ',', default_value = "EdDSA,ES256,PS256,RS256")]
    pub auth_algorithms: Vec<Algorithm>,

    /// For jwt: how far the clocks of the issuer and of this machine may differ, 5min at most.
    #[arg(long, env = "AUTH_LEEWAY", value_name = "TIME", value_parser = leeway, default_value = "30s")]
    pub auth_leeway: Duration,

    /// Proxies whose X-Forwarded-For is trusted, as networks such as 10.0.0.0/8: with --auth none, claims are counted
    /// by account and address.
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS", value_parser = network, value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// TLS to the issuer.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// How the account of a caller is determined.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum AuthMode {
    /// A bearer token.
    Jwt,
    /// A header that the gateway in front sets.
    TrustedHeader,
    /// Nothing: anybody may act for any account.
    None,
}

/// The settings of one mode, complete.
pub(super) enum Mode {
    Jwt(Box<TokenSettings>),
    TrustedHeader(HeaderName),
    None,
}

/// The settings for tokens.
pub(super) struct TokenSettings {
    pub source: KeySource,
    pub rules: Rules,
    pub account_claim: String,
    pub eligibility_claim: Option<String>,
}

impl TokenSettings {
    fn check(&self) -> Result<(), String> {
        match &self.source {
            KeySource::File(file) => KeySet::from_file(file, &self.rules).map(drop),
            KeySource::Url(..) => Ok(()),
        }
    }
}

/// Where the issuer's keys come from.
#[derive(Clone, Debug)]
pub(super) enum KeySource {
    File(PathBuf),
    Url(Url, TlsSettings),
}

impl AuthSettings {
    /// Checks that settings which are valid one by one fit together, for a service that listens at this address. They
    /// are not needed by a process that only checks the health of a service.
    ///
    /// # Errors
    /// One line that says what is wrong.
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
                    "--auth (AUTH) is missing, and {listen} can be reached from elsewhere: choose who may claim and read, by jwt, \
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

    /// Refuses settings of other modes: one that would do nothing was meant to do something.
    fn refuse_what_is_for_another(&self, mode: AuthMode) -> Result<(), String> {
        let settings = [
            (self.auth_header.is_some(), "--auth-header (AUTH_HEADER)", AuthMode::TrustedHeader),
            (self.auth_keys.is_some(), "--auth-keys (AUTH_KEYS)", AuthMode::Jwt),
            (self.auth_jwks_url.is_some(), "--auth-jwks-url (AUTH_JWKS_URL)", AuthMode::Jwt),
            (self.auth_issuer.is_some(), "--auth-issuer (AUTH_ISSUER)", AuthMode::Jwt),
            (self.auth_audience.is_some(), "--auth-audience (AUTH_AUDIENCE)", AuthMode::Jwt),
            (self.auth_eligibility_claim.is_some(), "--auth-eligibility-claim (AUTH_ELIGIBILITY_CLAIM)", AuthMode::Jwt),
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
            (None, Some(url)) => Some(KeySource::Url(url.clone(), self.tls.clone())),
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
        let (account_claim, eligibility_claim) = (self.auth_account_claim.clone(), self.auth_eligibility_claim.clone());
        if eligibility_claim.as_ref() == Some(&account_claim) {
            return Err(format!(
                "--auth-account-claim (AUTH_ACCOUNT_CLAIM) and --auth-eligibility-claim (AUTH_ELIGIBILITY_CLAIM) are both \
                 '{account_claim}': one names the account, the other a list of campaigns"
            ));
        }
        Ok(TokenSettings { source, rules, account_claim, eligibility_claim })
    }
}

/// Returns a line that names each setting that the mode needs and that is missing.
fn missing(mode: AuthMode, settings: &[(bool, &str)]) -> String {
    let settings: Vec<&str> = settings.iter().filter(|(is_missing, _)| *is_missing).map(|(_, name)| *name).collect();
    format!("{}: missing, and --auth (AUTH) {} needs it", settings.join(", "), name(mode))
}

fn name(mode: AuthMode) -> String {
    mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::settings;

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
            (&["--auth=none", "--auth-eligibility-claim=campaigns"], "AUTH_ELIGIBILITY_CLAIM"),
            (&[&complete[..], &["--auth-eligibility-claim=sub"]].concat(), "AUTH_ACCOUNT_CLAIM"),
            (&["--auth=trusted-header", "--auth-header=x", "--auth-keys=k"], "AUTH_KEYS"),
            (&[&complete[..], &["--auth-jwks-url=https://issuer.example/"]].concat(), "AUTH_JWKS_URL"),
        ] {
            assert!(mode(here, arguments).err().unwrap().contains(name), "{arguments:?}");
        }
    }
}
