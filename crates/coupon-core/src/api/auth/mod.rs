//! Determines the caller of a request before anything is looked up, both for a claim and for its outcome.
//!
//! ```text
//! request ─> Auth::caller ─┬ tokens   a bearer token, by the keys of its issuer (keys.rs, issuer.rs)
//!                          ├ header   the account that the gateway in front names
//!                          └ nobody   the address of the client (address.rs)
//! Caller::claiming(claim) ─> Claimant ─> the limit of claims
//!                 └ eligibility   the campaigns that a token names, where it must
//! ```
//!
//! Invariant: what a caller learns about an account that is not theirs does not depend on that account's claim.

mod address;
mod algorithms;
mod document;
mod eligibility;
mod issuer;
mod keys;
mod rules;
mod settings;
mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

pub use self::eligibility::Eligibility;
use self::settings::Mode;
pub use self::settings::{AuthMode, AuthSettings};
use self::tokens::Tokens;
use crate::domain::{AccountId, ClaimKey};
use crate::http::health::{Health, Need};
use crate::http::problem::Problem;

/// How a service finds out who calls it. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    way: Way,
    proxies: Arc<[IpNet]>,
}

#[derive(Clone)]
enum Way {
    Tokens(Arc<Tokens>),
    Header(HeaderName),
    Nobody,
}

/// The caller of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Caller {
    /// This account, which may claim from these campaigns.
    Account(AccountId, Eligibility),
    /// A caller who is known only by this address.
    Anybody(IpAddr),
}

/// Whose claims are counted: an authenticated account, or an account as named from one address, so that nobody
/// elsewhere can use up its allowance.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Claimant {
    account: AccountId,
    named_from: Option<IpAddr>,
}

impl Caller {
    /// Lets the caller act for an account.
    ///
    /// # Errors
    /// 403 for an account that is not the caller's.
    pub fn acting_for(&self, account: AccountId) -> Result<Claimant, Problem> {
        match self {
            Self::Account(own, _) if *own == account => Ok(Claimant { account, named_from: None }),
            Self::Account(..) => Err(Problem::other_account()),
            Self::Anybody(address) => Ok(Claimant { account, named_from: Some(*address) }),
        }
    }

    /// Lets the caller claim from a campaign for an account. Reading the outcome of a claim does not require this.
    ///
    /// # Errors
    /// 403 for an account that is not the caller's, and for a campaign that the caller's token must name and does not.
    pub fn claiming(&self, claim: ClaimKey) -> Result<Claimant, Problem> {
        let claimant = self.acting_for(claim.account_id)?;
        match self {
            Self::Account(_, eligibility) if !eligibility.holds(claim.campaign_id) => Err(Problem::not_eligible()),
            _ => Ok(claimant),
        }
    }
}

impl Auth {
    /// Starts authentication as the settings require for a service that listens at this address. The keys must be
    /// readable if they are in a file; the issuer behind a URL may be away.
    ///
    /// # Errors
    /// Settings that do not fit together, or keys that cannot be read.
    pub async fn start(settings: &AuthSettings, listen: SocketAddr) -> anyhow::Result<Self> {
        let way = match settings.mode(listen).map_err(anyhow::Error::msg)? {
            Mode::Jwt(tokens) => Way::Tokens(Arc::new(Tokens::start(*tokens).await?)),
            Mode::TrustedHeader(name) => {
                tracing::info!(
                    "the header {name} says who may claim and read: only a gateway that sets it may reach {listen}"
                );
                Way::Header(name)
            }
            Mode::None => {
                tracing::warn!(
                    "--auth (AUTH) is none: anybody who reaches {listen} may claim for any account, and read any account's coupon"
                );
                Way::Nobody
            }
        };
        Ok(Self { way, proxies: settings.trusted_proxies.clone().into() })
    }

    /// Finds out who is calling.
    ///
    /// # Errors
    /// 400 for two `authorization` headers, 401 for a caller who does not authenticate, 503 while tokens cannot be
    /// checked.
    pub async fn caller(&self, request: &HttpRequest) -> Result<Caller, Problem> {
        match &self.way {
            Way::Tokens(tokens) => tokens.caller(request.headers()).await,
            Way::Header(name) => {
                named_account(request.headers(), name).map(|account| Caller::Account(account, Eligibility::Any))
            }
            Way::Nobody => Ok(Caller::Anybody(address::of_client(request, &self.proxies))),
        }
    }

    /// Adds the issuer of tokens, where they are used, to the health: without its keys no claim can be accepted.
    #[must_use]
    pub fn watched(&self, health: Health) -> Health {
        match &self.way {
            Way::Tokens(tokens) => {
                health.watch("issuer", Need::Always, tokens, async |tokens: Arc<Tokens>| tokens.has_keys())
            }
            Way::Header(_) | Way::Nobody => health,
        }
    }
}

/// Reads the account that the gateway names, which has only one valid spelling.
fn named_account(headers: &HeaderMap, name: &HeaderName) -> Result<AccountId, Problem> {
    let mut named = headers.get_all(name);
    let account = match (named.next(), named.next()) {
        (Some(account), None) => account.to_str().ok().and_then(|account| account.parse().ok()),
        // If there are two, one may come from the client.
        _ => None,
    };
    account.ok_or_else(|| {
        let challenge = HeaderValue::from_static("Gateway realm=\"coupons\"");
        Problem::unauthenticated(format!("the header {name} must name the account, once, in digits"), challenge)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_acts_for_itself_only() {
        let caller = Caller::Account(AccountId(42), Eligibility::Any);

        assert!(caller.acting_for(AccountId(42)).is_ok());
        assert_eq!(caller.acting_for(AccountId(43)).unwrap_err().code(), "other_account");
    }

    #[test]
    fn what_is_named_from_one_address_is_not_counted_at_another() {
        let here = Caller::Anybody([192, 0, 2, 1].into()).acting_for(AccountId(42)).unwrap();
        let there = Caller::Anybody([192, 0, 2, 2].into()).acting_for(AccountId(42)).unwrap();

        assert_ne!(here, there);
    }

    #[test]
    fn the_gateway_names_one_account_once() {
        let name = HeaderName::from_static("x-account-id");
        let named = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            named_account(&headers, &name)
        };

        assert_eq!(named(&["42"]).unwrap(), AccountId(42));
        for wrong in [&[][..], &[""], &["042"], &["+42"], &["0"], &["42, 43"], &["42", "42"], &["me"]] {
            assert_eq!(named(wrong).unwrap_err().code(), "unauthenticated", "{wrong:?}");
        }
    }
}
