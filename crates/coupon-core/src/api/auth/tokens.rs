//! Bearer tokens (RFC 6750): from the header of a request to the account that its issuer vouches for, and the campaigns
//! from which that account may claim.
//!
//! Invariant: nothing that a token says is trusted before its signature has been verified, except the part of its
//! header that selects one of the known keys. Where to find keys (`jku`, `x5u`, `jwk`) is never taken from a token. A
//! token that has been checked is not checked again until it expires or a key changes: verifying a signature costs as
//! much as a claim.

use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, decode, decode_header, get_current_timestamp};
use moka::sync::Cache;
use serde_json::{Map, Value};

use super::issuer::Issuer;
use super::keys::KeySet;
use super::settings::TokenSettings;
use super::{Caller, Eligibility};
use crate::api::extract;
use crate::domain::AccountId;
use crate::error;
use crate::http::problem::Problem;
use crate::tokens::TOKEN_MAX;

/// The types of access tokens (RFC 9068 defines the second); other tokens of the same issuer serve other purposes.
const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];

/// Why a token is refused whose claims do not follow RFC 7519.
const MALFORMED: &str = "its exp, nbf, iss or aud is missing or malformed";

/// Bytes of memory for tokens that have been checked: about a hundred thousand of the usual length.
const CHECKED_MAX: u64 = 64 * 1024 * 1024;

/// Roughly the bytes that are kept for each of them in addition to its text.
const CHECKED_OVERHEAD: usize = 256;

/// Checks tokens.
pub(super) struct Tokens {
    issuer: Arc<Issuer>,
    account_claim: String,
    eligibility_claim: Option<String>,
    /// In seconds.
    leeway: u64,
    /// The key is the whole token, so that no other token is ever mistaken for it.
    checked: Cache<Box<str>, Checked>,
}

/// A token that has been checked and is valid.
#[derive(Clone)]
struct Checked {
    account: AccountId,
    eligibility: Eligibility,
    /// Its `exp`.
    ends_at: u64,
    /// The keys that were known when it was checked.
    keys: Arc<KeySet>,
}

impl Checked {
    fn caller(self) -> Caller {
        Caller::Account(self.account, self.eligibility)
    }

    fn holds(&self, keys: &Arc<KeySet>, now: u64, leeway: u64) -> bool {
        Arc::ptr_eq(&self.keys, keys) && self.ends_at.saturating_add(leeway) >= now
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refused {
    /// It has no token.
    Missing,
    /// It has two.
    Repeated,
    /// The token is invalid, for this reason.
    Invalid(&'static str),
    /// No key is known yet.
    Unknown,
}

impl Tokens {
    pub async fn start(settings: TokenSettings) -> anyhow::Result<Self> {
        let leeway = settings.rules.leeway.as_secs();
        let issuer = Issuer::start(settings.source, settings.rules).await?;
        let checked = Cache::<Box<str>, Checked>::builder()
            .weigher(|token, checked| {
                let bytes = token.len() + checked.eligibility.bytes() + CHECKED_OVERHEAD;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .max_capacity(CHECKED_MAX)
            .build();
        let TokenSettings { account_claim, eligibility_claim, .. } = settings;
        Ok(Self { issuer, account_claim, eligibility_claim, leeway, checked })
    }

    /// Whether tokens can be checked.
    ///
    /// # Errors
    /// No key is known yet.
    pub fn has_keys(&self) -> error::Result<()> {
        if self.issuer.keys().is_some() {
            return Ok(());
        }
        Err(match self.issuer.failure() {
            Some(reason) => error::Error::Stuck {
                reason: format!("no keys from the issuer of tokens: {reason}"),
                class: error::Class::Retryable,
                stays: false,
                remedy: "see that AUTH_JWKS_URL leads to its keys",
            },
            None => error::Error::Away { what: "the issuer of tokens" },
        })
    }

    /// The caller that the token in these headers names.
    ///
    /// # Errors
    /// 400, 401, or 503 before the keys are known.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.check(headers).await.map_err(Refused::problem)
    }

    async fn check(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let token = bearer(headers)?;
        if let Some(caller) = self.checked_before(token) {
            return Ok(caller);
        }
        let header = header(token)?;
        let keys = self.keys_for(&header).await.ok_or(Refused::Unknown)?;
        let key = keys.find(&header).ok_or(Refused::Invalid("it was not signed with a key of the issuer"))?;
        let claims = decode::<Map<String, Value>>(token, &key.verifying, &key.validation);
        let claims = claims.map_err(|error| Refused::Invalid(reason(&error)))?.claims;
        // jsonwebtoken accepts a list of issuers, which does not say which of them vouches for the account.
        if !claims.get("iss").is_some_and(Value::is_string) {
            return Err(Refused::Invalid(MALFORMED));
        }
        let account = claims.get(&self.account_claim).and_then(extract::account);
        let account = account.ok_or(Refused::Invalid("it names no account"))?;
        let eligibility = Eligibility::read(self.eligibility_claim.as_deref(), &claims);
        let eligibility = eligibility.ok_or(Refused::Invalid("it lacks the required list of campaigns"))?;
        if let Some(ends_at) = claims.get("exp").and_then(Value::as_u64) {
            self.checked.insert(token.into(), Checked { account, eligibility: eligibility.clone(), ends_at, keys });
        }
        Ok(Caller::Account(account, eligibility))
    }

    fn checked_before(&self, token: &str) -> Option<Caller> {
        let checked = self.checked.get(token)?;
        let keys = self.issuer.keys()?;
        checked.holds(&keys, get_current_timestamp(), self.leeway).then(|| checked.caller())
    }

    /// The keys, fetched once more if the one that is needed is not among them.
    async fn keys_for(&self, header: &Header) -> Option<Arc<KeySet>> {
        let keys = self.issuer.keys();
        match keys {
            Some(keys) if keys.find(header).is_some() => Some(keys),
            Some(_) => {
                // Boxed, like everything rare on the path of a claim, to keep the future of a request small.
                Box::pin(self.issuer.ask_for_unknown()).await;
                self.issuer.keys()
            }
            None => None,
        }
    }
}

/// The one token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut sent = headers.get_all(AUTHORIZATION);
    let (Some(credentials), others) = (sent.next(), sent.next()) else { return Err(Refused::Missing) };
    if others.is_some() {
        return Err(Refused::Repeated);
    }
    let (scheme, token) = credentials.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refused::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Missing);
    }
    if token.len() > TOKEN_MAX {
        return Err(Refused::Invalid("it is too long"));
    }
    Ok(token.trim_start_matches(' '))
}

fn header(token: &str) -> Result<Header, Refused> {
    let header = decode_header(token).map_err(|_| Refused::Invalid("it is not a signed JWT with a known algorithm"))?;
    if header.crit.is_some() {
        return Err(Refused::Invalid("it has critical headers that are not known here"));
    }
    if header.typ.as_ref().is_some_and(|typ| !TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ))) {
        return Err(Refused::Invalid("it is not an access token"));
    }
    Ok(header)
}

/// Why a token whose key is known is refused.
fn reason(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is from another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => MALFORMED,
        _ => "it cannot be read",
    }
}

impl Refused {
    fn problem(self) -> Problem {
        const MISSING: &str = "send a token of your own: authorization: Bearer ...";
        const REPEATED: &str = "send one authorization header only";
        const REALM: &str = "Bearer realm=\"coupons\"";

        let challenge = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(REALM));
        match self {
            // A caller that sent no credentials gets no error code (RFC 6750, 3.1).
            Self::Missing => Problem::unauthenticated(MISSING, HeaderValue::from_static(REALM)),
            Self::Repeated => Problem::two_authorizations(
                REPEATED,
                challenge(&format!("{REALM}, error=\"invalid_request\", error_description=\"{REPEATED}\"")),
            ),
            Self::Invalid(reason) => Problem::unauthenticated(
                format!("the token is refused: {reason}"),
                challenge(&format!("{REALM}, error=\"invalid_token\", error_description=\"{reason}\"")),
            ),
            Self::Unknown => Problem::unavailable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sent(values: &[&'static str]) -> Result<String, Refused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers).map(String::from)
    }

    #[test]
    fn a_request_has_one_token() {
        assert_eq!(sent(&["Bearer a.b.c"]).unwrap(), "a.b.c");
        assert_eq!(sent(&["bearer  a.b.c"]).unwrap(), "a.b.c");
        for missing in [&[][..], &[""], &["Bearer"], &["Basic a.b.c"], &["a.b.c"]] {
            assert_eq!(sent(missing), Err(Refused::Missing), "{missing:?}");
        }
        assert_eq!(sent(&["Bearer a.b.c", "Bearer a.b.c"]), Err(Refused::Repeated));
    }

    #[test]
    fn what_was_checked_holds_until_it_ends_or_a_key_changes() {
        let set = || {
            let text = crate::tokens::KeyPair::generate().unwrap().jwks().to_string();
            let (issuer, audience) = (String::from("issuer"), String::from("coupons"));
            let algorithms = vec![jsonwebtoken::Algorithm::EdDSA];
            let rules = super::super::rules::Rules { algorithms, issuer, audience, leeway: Duration::ZERO };
            Arc::new(KeySet::read(&text, &rules).unwrap())
        };
        let keys = set();
        let checked =
            Checked { account: AccountId(42), eligibility: Eligibility::Any, ends_at: 1_000, keys: Arc::clone(&keys) };

        assert!(checked.holds(&keys, 1_000, 0));
        assert!(!checked.holds(&keys, 1_001, 0));
        assert!(checked.holds(&keys, 1_030, 30));
        assert!(!checked.holds(&keys, 1_031, 30));
        assert!(!checked.holds(&set(), 1_000, 30), "other keys");
    }

    #[test]
    fn a_challenge_says_what_is_wrong_only_to_those_who_tried() {
        let challenge = |refused: Refused| format!("{:?}", refused.problem());

        assert!(challenge(Refused::Invalid("it has expired")).contains("error=\\\"invalid_token\\\""));
        assert!(!challenge(Refused::Missing).contains("error="));
    }
}
