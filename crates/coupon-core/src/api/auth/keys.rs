//! The public keys of an issuer, each with all that a token which it has signed must be like.
//!
//! Invariant: a key checks tokens of the algorithms that are meant for it and no others, whatever a token says of itself
//! (RFC 8725, 3.1). It takes part in no algorithm with a shared secret.

use std::collections::HashSet;
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::settings::Rules;
use crate::settings::small_file;

/// Bytes of a set of keys that are read; real ones have a few thousand.
pub(super) const SET_MAX: usize = 256 * 1024;

/// Keys of a set; real ones have fewer than ten.
const KEYS_MAX: usize = 64;

/// All keys of an issuer that can be used.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// What they were read from.
    text: String,
}

/// A key.
pub(super) struct Key {
    id: Option<String>,
    pub verifying: DecodingKey,
    pub validation: Validation,
}

impl Key {
    fn new(id: Option<String>, verifying: DecodingKey, fitting: &[Algorithm], rules: &Rules) -> Option<Self> {
        let algorithms: Vec<_> = rules.algorithms.iter().copied().filter(|taken| fitting.contains(taken)).collect();
        let first = *algorithms.first()?;
        let mut validation = Validation::new(first);
        validation.algorithms = algorithms;
        validation.leeway = rules.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&rules.issuer]);
        validation.set_audience(&[&rules.audience]);
        validation.required_spec_claims = ["exp", "iss", "aud"].map(String::from).into_iter().collect::<HashSet<_>>();
        Some(Self { id, verifying, validation })
    }

    fn fits(&self, header: &Header) -> bool {
        let is_named = self.id.is_none() || header.kid.is_none() || self.id == header.kid;
        is_named && self.validation.algorithms.contains(&header.alg)
    }
}

impl KeySet {
    /// Reads the keys of the setting for them.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(file: &Path, rules: &Rules) -> Result<Self, String> {
        let read = |text: String| Self::read(&text, rules).map_err(|reason| format!("the keys in it: {reason}"));
        small_file(file).and_then(read).map_err(|reason| {
            format!("--auth-keys (AUTH_KEYS) = '{}': {reason}; it takes a file such as jwks.json", file.display())
        })
    }

    /// Reads a JSON Web Key Set, or one public key in PEM. Keys of a set that cannot be used are skipped.
    ///
    /// # Errors
    /// What is wrong, when no key can be used.
    pub fn read(text: &str, rules: &Rules) -> Result<Self, String> {
        let keys = if text.contains("-----BEGIN") { vec![from_pem(text, rules)?] } else { from_set(text, rules)? };
        if keys.is_empty() {
            return Err(format!("they hold no public key for an algorithm of {:?}", rules.algorithms));
        }
        Ok(Self { keys, text: text.to_owned() })
    }

    /// The one key that a token with this header may have been signed with.
    pub fn find(&self, header: &Header) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(header));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_read_from_the_same(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn from_pem(text: &str, rules: &Rules) -> Result<Key, String> {
    if text.contains("PRIVATE KEY") {
        return Err(String::from("they hold a private key, which belongs with the issuer only: give the public one"));
    }
    let pem = text.as_bytes();
    let key = DecodingKey::from_ed_pem(pem).or_else(|_| DecodingKey::from_ec_pem(pem));
    let key = key.or_else(|_| DecodingKey::from_rsa_pem(pem)).map_err(|_| "they are no public key in PEM")?;
    let family = key.family();
    Key::new(None, key, family.algorithms(), rules)
        .ok_or_else(|| format!("the key is for {:?}, and none of them is taken", family.algorithms()))
}

fn from_set(text: &str, rules: &Rules) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }

    let set: Set = serde_json::from_str(text).map_err(|_| "they are no JSON Web Key Set, and no PEM")?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("they are {}, and {KEYS_MAX} at most are taken", set.keys.len()));
    }
    Ok(set.keys.into_iter().filter_map(|key| from_jwk(key, rules)).collect())
}

/// The key, unless it is of a kind that is not taken, or not for signatures.
fn from_jwk(key: Value, rules: &Rules) -> Option<Key> {
    if key.get("d").is_some() {
        tracing::warn!("a key of the issuer is skipped: it is a private one, which everybody can read now");
        return None;
    }
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let (usage, operations) = (&jwk.common.public_key_use, &jwk.common.key_operations);
    let is_to_verify = usage.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let of_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::RSA(_) => jsonwebtoken::AlgorithmFamily::Rsa.algorithms(),
        _ => &[],
    };
    let mut fitting = of_kind.to_vec();
    if let Some(only) = jwk.common.key_algorithm {
        let only = Algorithm::try_from(only).ok()?;
        fitting.retain(|algorithm| *algorithm == only);
    }
    let verifying = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_to_verify)?;
    Key::new(jwk.common.key_id, verifying, &fitting, rules)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::tokens::KeyPair;

    fn rules() -> Rules {
        let algorithms = vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];
        let (issuer, audience) = (String::from("issuer"), String::from("coupons"));
        Rules { algorithms, issuer, audience, leeway: Duration::ZERO }
    }

    fn header(algorithm: Algorithm, id: Option<&str>) -> Header {
        let mut header = Header::new(algorithm);
        header.kid = id.map(String::from);
        header
    }

    /// A set of one key, with these members changed; null takes one away.
    fn set_with(changed: &[(&str, Value)]) -> String {
        let mut set = KeyPair::generate().unwrap().jwks();
        let key = set["keys"][0].as_object_mut().unwrap();
        for (name, value) in changed {
            key.insert(String::from(*name), value.clone());
        }
        key.retain(|_, value| !value.is_null());
        set.to_string()
    }

    #[test]
    fn a_key_is_found_by_its_id_and_algorithm() {
        let (one, two) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let keys = json!({"keys": [one.jwks()["keys"][0], two.jwks()["keys"][0]]}).to_string();
        let keys = KeySet::read(&keys, &rules()).unwrap();

        assert!(keys.find(&header(Algorithm::EdDSA, Some(one.id()))).is_some());
        assert!(keys.find(&header(Algorithm::EdDSA, Some(two.id()))).is_some());
        assert!(keys.find(&header(Algorithm::EdDSA, Some("another"))).is_none());
        assert!(keys.find(&header(Algorithm::EdDSA, None)).is_none(), "it might be either");
        assert!(keys.find(&header(Algorithm::HS256, Some(one.id()))).is_none());
    }

    #[test]
    fn keys_that_are_not_for_this_are_passed_over() {
        assert_eq!(KeySet::read(&set_with(&[]), &rules()).unwrap().len(), 1);
        for changed in [
            ("use", json!("enc")),
            ("key_ops", json!(["sign"])),
            ("alg", json!("ES256")),
            ("alg", json!("something")),
            ("crv", json!("Ed448")),
            ("kty", json!("oct")),
            ("d", json!("secret")),
            ("x", json!("%")),
            ("kid", json!(7)),
        ] {
            let set = set_with(std::slice::from_ref(&changed));
            assert!(KeySet::read(&set, &rules()).is_err(), "{changed:?} was taken");
        }
    }

    #[test]
    fn a_set_has_a_limit() {
        let key = KeyPair::generate().unwrap().jwks()["keys"][0].clone();
        let set = |keys: usize| json!({ "keys": vec![key.clone(); keys] }).to_string();

        assert!(KeySet::read(&set(KEYS_MAX), &rules()).is_ok());
        assert!(KeySet::read(&set(KEYS_MAX + 1), &rules()).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused_in_words() {
        let private = KeyPair::generate().unwrap().to_pem();
        for (text, words) in [
            ("", "no JSON Web Key Set"),
            ("<html>", "no JSON Web Key Set"),
            ("{}", "no JSON Web Key Set"),
            (r#"{"keys":[]}"#, "no public key for"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key in PEM"),
            (&private, "a private key"),
        ] {
            let error = KeySet::read(text, &rules()).err().unwrap();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
