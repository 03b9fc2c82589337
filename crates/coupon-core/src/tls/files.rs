//! Certificates and keys in PEM, read whole and checked before they are used.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret as _, SecretString};

use crate::settings::small_file;

/// Authorities that may vouch for a server.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Their certificates in PEM.
    pub pem: String,
    /// The same certificates, parsed.
    pub roots: RootCertStore,
}

impl Authorities {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn in_file(file: &Path) -> Result<Self, String> {
        let pem = small_file(file)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&pem)? {
            roots
                .add(certificate)
                .map_err(|error| format!("it holds a certificate that is not an authority's: {error}"))?;
        }
        Ok(Self { pem, roots })
    }
}

/// A certificate with those between it and its authority, and its private key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificates in PEM, the owner's first.
    pub certificates: String,
    /// The private key in PEM.
    pub key: SecretString,
}

impl Pair {
    /// Reads a file with certificates.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn certificates_in_file(file: &Path) -> Result<String, String> {
        let pem = small_file(file)?;
        certificates(&pem).map(|_| pem)
    }

    /// Reads a file with a private key.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn key_in_file(file: &Path) -> Result<SecretString, String> {
        let pem = SecretString::from(small_file(file)?);
        private_key(&pem).map(|_| pem)
    }

    /// Both in the form in which rustls shows the certificates and signs with the key.
    ///
    /// # Errors
    /// Why they do not fit together.
    pub fn certified(&self) -> Result<CertifiedKey, String> {
        let (certificates, key) = (certificates(&self.certificates)?, private_key(&self.key)?);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(certificates, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => String::from("it is the key of another certificate"),
            error => format!("it cannot be used with the certificate: {error}"),
        })
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| String::from("it holds no certificate in PEM"))
}

fn private_key(pem: &SecretString) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
        .map_err(|_| String::from("it holds no unencrypted private key in PEM"))
}
