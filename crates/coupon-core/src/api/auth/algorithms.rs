//! Whether a key can verify the signatures of an algorithm, found out before there is a token.

use std::ops::RangeInclusive;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaParameters, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

/// The bits that an RSA key may have (RFC 7518, 3.3 requires the minimum).
const RSA_BITS: RangeInclusive<u32> = 2048..=8192;

/// Checks that a key can verify signatures of an algorithm: a wrong key would refuse each of them as if it were forged.
///
/// # Errors
/// Why it cannot.
pub(super) fn can_check(verifying: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
    let of_curve: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::EdDSA => &ED25519,
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        _ => {
            let bits = rsa_bits(verifying).ok_or("it is not an RSA key")?;
            let (min, max) = (RSA_BITS.start(), RSA_BITS.end());
            let is_taken = RSA_BITS.contains(&bits);
            return if is_taken {
                Ok(())
            } else {
                Err(format!("an RSA key has {min} to {max} bits, and it has {bits}"))
            };
        }
    };
    let point = verifying.try_get_as_bytes().unwrap_or_default();
    ParsedPublicKey::new(of_curve, point).map(drop).map_err(|_| format!("it is no key for {algorithm:?}"))
}

fn rsa_bits(key: &DecodingKey) -> Option<u32> {
    let der = match key.kind() {
        DecodingKeyKind::SecretOrDer(der) => rsa::PublicKey::from_der(der),
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            rsa::PublicKey::from_der(rsa::PublicKeyComponents { n, e }.as_der().ok()?.as_ref())
        }
    };
    RsaParameters::public_modulus_len(der.ok()?.as_ref()).ok()
}
