//! A test's own certificate authority, which writes everything it makes to files.

use std::path::PathBuf;
use std::sync::Arc;

use pem::Pem;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

/// Makes certificates, whose files are deleted when this is dropped.
pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: PathBuf,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
    folder: PathBuf,
}

impl TestAuthority {
    /// Creates an authority that nobody trusts yet.
    ///
    /// # Panics
    /// No file can be written.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let folder = std::env::temp_dir().join(Uuid::new_v4().to_string());
        std::fs::create_dir(&folder).expect("a folder");
        Self { issuer: Issuer::new(params, key), certificate, folder }
    }

    /// Issues a certificate for these hosts, valid for an hour.
    ///
    /// # Panics
    /// The names are not host names.
    #[must_use]
    pub fn issue(&self, hosts: &[&str]) -> Issued {
        self.issue_until(hosts, OffsetDateTime::now_utc() + Duration::HOUR)
    }

    /// Issues a certificate that has expired.
    ///
    /// # Panics
    /// The names are not host names.
    #[must_use]
    pub fn issue_expired(&self, hosts: &[&str]) -> Issued {
        self.issue_until(hosts, OffsetDateTime::now_utc() - Duration::HOUR)
    }

    fn issue_until(&self, hosts: &[&str], end: OffsetDateTime) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|host| String::from(*host)).collect();
        let mut params = CertificateParams::new(hosts).expect("names of hosts");
        (params.not_before, params.not_after) = (end - Duration::DAY, end);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        Issued { certificate, key: Arc::new(key.into()), folder: self.folder.clone() }
    }

    /// Writes the authority's own certificate to a file, and returns its path.
    ///
    /// # Panics
    /// The file cannot be written.
    #[must_use]
    pub fn file(&self) -> String {
        write(&self.folder, "CERTIFICATE", &self.certificate)
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }
}

impl Drop for TestAuthority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Issued {
    /// Writes the certificate to a file, and returns its path.
    ///
    /// # Panics
    /// The file cannot be written.
    #[must_use]
    pub fn certificate_file(&self) -> String {
        write(&self.folder, "CERTIFICATE", &self.certificate)
    }

    /// Writes the key to a file, and returns its path.
    ///
    /// # Panics
    /// The file cannot be written.
    #[must_use]
    pub fn key_file(&self) -> String {
        write(&self.folder, "PRIVATE KEY", self.key.secret_der())
    }

    /// The certificate and the key, as a server needs them.
    #[must_use]
    pub fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![self.certificate.clone()], self.key.clone_key())
    }
}

fn write(folder: &std::path::Path, kind: &str, content: &[u8]) -> String {
    let path = folder.join(format!("{}.pem", Uuid::new_v4()));
    std::fs::write(&path, pem::encode(&Pem::new(kind, content))).expect("a file");
    path.to_str().expect("a path in UTF-8").to_owned()
}
