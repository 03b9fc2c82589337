//! The public keys of an issuer, each with the rules for the tokens that it has signed.
//!
//! Invariant: a key verifies tokens only of the algorithms that are meant for it, whatever a token says of itself (RFC
//! 8725, 3.1). No algorithm with a shared secret is among them.

use std::collections::HashSet;
use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;

use super::algorithms::can_check;
use super::rules::Rules;
use crate::settings::small_file;
use crate::terminal::shortened;

/// The most bytes read of a key set; real ones have a few thousand.
pub(super) const SET_MAX: usize = 256 * 1024;

/// The most keys in a set; real ones have fewer than ten.
const KEYS_MAX: usize = 64;

/// Characters of a key's id that are shown.
const ID_SHOWN: usize = 80;

/// All usable keys of an issuer.
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// What is wrong with each key that was meant to be used and cannot be.
    left_out: Vec<String>,
    /// The text that they were read from.
    text: String,
}

/// A key, with the rules for its tokens.
pub(super) struct Key {
    id: Option<String>,
    pub verifying: DecodingKey,
    pub validation: Validation,
}

impl Key {
    /// Creates a key for those of the fitting algorithms that are accepted; `None` if none of them is.
    ///
    /// # Errors
    /// Why the key would refuse every token that it has signed.
    fn new(
        id: Option<String>,
        verifying: DecodingKey,
        fitting: &[Algorithm],
        rules: &Rules,
    ) -> Result<Option<Self>, String> {
        let taken = rules.algorithms.iter().copied().filter(|taken| fitting.contains(taken));
        let mut algorithms: Vec<Algorithm> = taken.collect();
        let mut wrong = None;
        algorithms.retain(|algorithm| can_check(&verifying, *algorithm).map_err(|reason| wrong = Some(reason)).is_ok());
        let Some(&first) = algorithms.first() else { return wrong.map_or(Ok(None), Err) };
        let mut validation = Validation::new(first);
        validation.algorithms = algorithms;
        validation.leeway = rules.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&rules.issuer]);
        validation.set_audience(&[&rules.audience]);
        validation.required_spec_claims = ["exp", "iss", "aud"].map(String::from).into_iter().collect::<HashSet<_>>();
        Ok(Some(Self { id, verifying, validation }))
    }

    /// Whether no token can name one of the two without fitting the other as well. The first of them is kept.
    fn clashes_with(&self, other: &Self) -> bool {
        let by_id = self.id.is_none() || other.id.is_none() || self.id == other.id;
        by_id && self.validation.algorithms.iter().any(|algorithm| other.validation.algorithms.contains(algorithm))
    }

    fn fits(&self, header: &Header) -> bool {
        let is_named = self.id.is_none() || header.kid.is_none() || self.id == header.kid;
        is_named && self.validation.algorithms.contains(&header.alg)
    }
}

impl KeySet {
    /// Reads the keys from the file that the setting names.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(file: &Path, rules: &Rules) -> Result<Self, String> {
        let read = |text: String| {
            let keys = Self::read(&text, rules).and_then(Self::complete);
            keys.map_err(|reason| format!("the keys in it: {reason}"))
        };
        small_file(file).and_then(read).map_err(|reason| {
            format!("--auth-keys (AUTH_KEYS) = '{}': {reason}; it takes a file such as jwks.json", file.display())
        })
    }

    /// Reads a JSON Web Key Set, or one public key in PEM. Keys in a set that serve another purpose are skipped, and
    /// those that cannot be used are left out.
    ///
    /// # Errors
    /// What is wrong, if no key can be used.
    pub fn read(text: &str, rules: &Rules) -> Result<Self, String> {
        let (keys, left_out) = if text.contains("-----BEGIN") {
            (vec![from_pem(text, rules)?], Vec::new())
        } else {
            from_set(text, rules)?
        };
        match (keys.is_empty(), left_out.is_empty()) {
            (false, _) => Ok(Self { keys, left_out, text: text.to_owned() }),
            (true, false) => Err(left_out.join("; ")),
            (true, true) => Err(format!("they hold no public key for an algorithm of {:?}", rules.algorithms)),
        }
    }

    /// Returns the keys if none was left out: whoever supplies a file can fix it.
    fn complete(self) -> Result<Self, String> {
        if self.left_out.is_empty() { Ok(self) } else { Err(self.left_out.join("; ")) }
    }

    /// The one key that a token with this header may have been signed with.
    pub fn find(&self, header: &Header) -> Option<&Key> {
        let mut fitting = self.keys.iter().filter(|key| key.fits(header));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What is wrong with each key that was left out.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    pub fn is_read_from_the_same(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn from_pem(text: &str, rules: &Rules) -> Result<Key, String> {
    if text.contains("PRIVATE KEY") {
        return Err(String::from("they hold a private key, which belongs with the issuer only: give the public one"));
    }
    if text.matches("-----BEGIN").count() > 1 {
        return Err(String::from(
            "it holds several keys in PEM, and only one is accepted: give them as a JSON Web Key Set",
        ));
    }
    let pem = text.as_bytes();
    let key = DecodingKey::from_ed_pem(pem).or_else(|_| DecodingKey::from_ec_pem(pem));
    let key = key.or_else(|_| DecodingKey::from_rsa_pem(pem)).map_err(|_| "it holds no public key in PEM")?;
    let family = key.family();
    Key::new(None, key, family.algorithms(), rules)?
        .ok_or_else(|| format!("the key is for {:?}, and none of them is accepted", family.algorithms()))
}

/// The keys of a set, and what is wrong with those that are left out.
fn from_set(text: &str, rules: &Rules) -> Result<(Vec<Key>, Vec<String>), String> {
    const CLASH: &str =
        "tokens cannot say that it signed them: another key has the same kid, or one of the two has none";

    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }

    let set: Set = serde_json::from_str(text).map_err(|_| "they are neither a JSON Web Key Set nor PEM")?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("there are {}, and at most {KEYS_MAX} are accepted", set.keys.len()));
    }
    let (mut keys, mut left_out, mut seen) = (Vec::<Key>::new(), Vec::new(), HashSet::new());
    for (n, key) in (1..).zip(set.keys) {
        // A key that is listed twice would fit a token twice, and `find` requires that only one fits.
        if !seen.insert(key.to_string()) {
            continue;
        }
        let id = key.get("kid").and_then(Value::as_str).map(|id| format!(" {:?}", shortened(id, ID_SHOWN)));
        match from_jwk(key, rules) {
            Ok(Some(key)) if keys.iter().any(|earlier| earlier.clashes_with(&key)) => {
                left_out.push(format!("key {n}{}: {CLASH}", id.unwrap_or_default()));
            }
            Ok(key) => keys.extend(key),
            Err(reason) => left_out.push(format!("key {n}{}: {reason}", id.unwrap_or_default())),
        }
    }
    Ok((keys, left_out))
}

/// Reads a key; `None` if its kind is not accepted, or if it is not for signatures.
///
/// # Errors
/// Why it must not or cannot be used, though it was meant to be.
fn from_jwk(key: Value, rules: &Rules) -> Result<Option<Key>, String> {
    if key.get("d").is_some() {
        return Err(String::from("it is a private key, which everybody can now read"));
    }
    let Ok(jwk) = serde_json::from_value::<Jwk>(key) else { return Ok(None) };
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
        let only = Algorithm::try_from(only).ok();
        fitting.retain(|algorithm| Some(*algorithm) == only);
    }
    match DecodingKey::from_jwk(&jwk) {
        Ok(verifying) if is_to_verify => Key::new(jwk.common.key_id, verifying, &fitting, rules),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::tokens::KeyPair;

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDRK2Ww3sW1ROOiU59CezPP6JFn
VPxD/qmjNRQQmMKYscEb0H34EPaVK7vVpJwNOH3WJ3Kb6CbfkI3TNyTPtnBTLHR+
GGzC94V7woiQQahftdbU/LL4k21SxpcEcBmYTI42M/VuvzyrOGflqpK2oFAXoCCn
VerEAeErnKa4ZtXnQQIDAQAB
-----END PUBLIC KEY-----";

    const P_521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBQo+dhLzE+pAK8J2t48SXqG+LfGsi
7QEtfxHSIKXxxVXk6b/Jy8G93rRqdlWFSKsljlqDQTCWx2u3oNze+nQDCfoBKpOy
L6544JRG8+8dMRGB9TwCveAZfcNrD7dKVJInQdKbF5T0g2JKLeLTVbFx4F9hmx2j
FTYFAKAMs9MKzJSq44E=
-----END PUBLIC KEY-----";

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

    /// A set of one key, with these members changed; null removes one.
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
    fn a_key_that_tokens_cannot_name_is_left_out() {
        let [one, two] = [(); 2].map(|()| KeyPair::generate().unwrap().jwks()["keys"][0].clone());
        for (kid, other_kid) in
            [(json!("same"), json!("same")), (json!("one"), Value::Null), (Value::Null, Value::Null)]
        {
            let (mut one, mut two) = (one.clone(), two.clone());
            (one["kid"], two["kid"]) = (kid, other_kid);
            let keys = KeySet::read(&json!({"keys": [one, two]}).to_string(), &rules()).unwrap();

            assert!(keys.len() == 1 && keys.left_out()[0].contains("same kid"), "{:?}", keys.left_out());
            assert!(keys.find(&header(Algorithm::EdDSA, one["kid"].as_str())).is_some());
        }
    }

    #[test]
    fn a_key_that_is_listed_twice_is_one() {
        let pair = KeyPair::generate().unwrap();
        let key = &pair.jwks()["keys"][0];
        let keys = KeySet::read(&json!({"keys": [key, key]}).to_string(), &rules()).unwrap();

        assert!(keys.find(&header(Algorithm::EdDSA, Some(pair.id()))).is_some());
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
    fn a_key_that_would_refuse_each_of_its_tokens_is_left_out_by_name() {
        let rsa = |bytes: usize, id: &str| {
            let n = "____".repeat(bytes / 3) + ["", "_w", "__8"][bytes % 3];
            json!({"kty": "RSA", "kid": id, "n": n, "e": "AQAB"})
        };
        let no_point = json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
        let ours = KeyPair::generate().unwrap().jwks()["keys"][0].clone();
        let all =
            json!({"keys": [ours, rsa(128, "short"), rsa(256, "right"), rsa(1025, "long"), no_point]}).to_string();

        let keys = KeySet::read(&all, &rules()).unwrap();

        assert_eq!(keys.len(), 2, "{:?}", keys.left_out());
        let words = [
            "key 2 \"short\": an RSA key has 2048 to 8192 bits, and it has 1024",
            "key 4 \"long\": an RSA key has 2048 to 8192 bits, and it has 8200",
            "key 5: it is no key for ES256",
        ];
        assert_eq!(keys.left_out(), words);
        assert_eq!(keys.complete().err().unwrap(), words.join("; "));
        let only_short = json!({"keys": [rsa(128, "short")]}).to_string();
        assert!(KeySet::read(&only_short, &rules()).err().unwrap().contains("and it has 1024"));
        assert!(KeySet::read(RSA_1024, &rules()).err().unwrap().contains("and it has 1024"));
        assert!(KeySet::read(P_521, &rules()).err().unwrap().contains("no key for ES256"));
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
            ("", "neither a JSON Web Key Set"),
            ("<html>", "neither a JSON Web Key Set"),
            ("{}", "neither a JSON Web Key Set"),
            (r#"{"keys":[]}"#, "no public key for"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key in PEM"),
            (&private, "a private key"),
            (&[RSA_1024, P_521].join("\n"), "several keys in PEM"),
        ] {
            let error = KeySet::read(text, &rules()).err().unwrap();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
