//! Makes key pairs and tokens, for trying the system out and for tests: what an issuer does, in a few lines.
//!
//! Invariant: a private key leaves this module only through [`KeyPair::to_pem`].

use std::fmt;
use std::time::Duration;

use anyhow::anyhow;
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::Pem;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::domain::{AccountId, CampaignId};

/// The PEM label of a private key (RFC 7468).
const PEM_TAG: &str = "PRIVATE KEY";

/// The most bytes of a token that the APIs take; one with a long list of groups has a few thousand.
pub const TOKEN_MAX: usize = 8 * 1024;

/// The claim with the campaigns of [`KeyPair::token`], for `--auth-eligibility-claim`.
pub const CAMPAIGNS_CLAIM: &str = "campaigns";

/// An Ed25519 key pair.
pub struct KeyPair {
    private: EncodingKey,
    public: Jwk,
    id: String,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("id", &self.id).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Generates a new pair.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no key can be made"))?;
        let document = pair.to_pkcs8v1().map_err(|_| anyhow!("no key can be made"))?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads the pair from a private key as [`Self::to_pem`] writes it.
    ///
    /// # Errors
    /// The text is not such a key.
    pub fn from_pem(text: &str) -> anyhow::Result<Self> {
        let pem = pem::parse(text).map_err(|_| anyhow!("it holds no private key in PEM"))?;
        anyhow::ensure!(pem.tag() == PEM_TAG, "it holds a {} in place of a {PEM_TAG}", pem.tag());
        Self::from_pkcs8(pem.contents())
    }

    fn from_pkcs8(document: &[u8]) -> anyhow::Result<Self> {
        let private = EncodingKey::from_ed_der(document);
        let mut public =
            Jwk::from_encoding_key(&private, Algorithm::EdDSA).map_err(|_| anyhow!("it holds no key of Ed25519"))?;
        let id = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { private, public, id })
    }

    /// The private key, for a file that nobody else may read.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(&Pem::new(PEM_TAG, self.private.as_bytes()))
    }

    /// The `kid`: the key's thumbprint (RFC 7638).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as an issuer publishes it, as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.public] })
    }

    /// A token that is valid for this long from now on, and names an account and, if there are any, the campaigns that
    /// it is for.
    ///
    /// # Errors
    /// It cannot be signed, or the APIs would refuse it for its length.
    pub fn token(
        &self,
        account: AccountId,
        campaigns: &[CampaignId],
        issuer: &str,
        audience: &str,
        valid: Duration,
    ) -> anyhow::Result<String> {
        let now = OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
        let (sub, exp) = (account.to_string(), now.saturating_add(valid.as_secs()));
        let mut claims = json!({ "iss": issuer, "aud": audience, "sub": sub, "iat": now, "exp": exp });
        if let Some(claims) = claims.as_object_mut().filter(|_| !campaigns.is_empty()) {
            claims.insert(String::from(CAMPAIGNS_CLAIM), json!(campaigns));
        }
        let token = self.sign(&claims)?;
        let length = token.len();
        anyhow::ensure!(
            length <= TOKEN_MAX,
            "a token of {length} bytes would be refused: {TOKEN_MAX} are taken at most"
        );
        Ok(token)
    }

    /// A token with any claims.
    ///
    /// # Errors
    /// The claims cannot be written as JSON.
    pub fn sign(&self, claims: &impl Serialize) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        Ok(jsonwebtoken::encode(&header, claims, &self.private)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_the_same_when_its_file_is_read() {
        let pair = KeyPair::generate().unwrap();

        let read = KeyPair::from_pem(&pair.to_pem()).unwrap();

        assert_eq!((read.id(), read.jwks()), (pair.id(), pair.jwks()));
        assert!(!pair.jwks().to_string().contains("\"d\""), "the public key only");
        assert!(!format!("{pair:?}").contains(&pair.to_pem()[30..50]), "{pair:?}");
    }

    #[test]
    fn what_is_no_private_key_is_refused() {
        for text in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            assert!(KeyPair::from_pem(text).is_err(), "{text}");
        }
    }
}
