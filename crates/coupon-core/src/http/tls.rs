//! TLS on the listener for clients: the certificate that it shows, read again on SIGHUP.
//!
//! Invariant: there is always a certificate to show. A new one that cannot be used is logged, and the one before stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use clap::Args;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::tls::Pair;

const CERT: &str = "--tls-cert (TLS_CERT)";
const KEY: &str = "--tls-key (TLS_KEY)";

/// The certificate of an API.
#[derive(Args, Clone, Debug)]
pub struct CertificateSettings {
    /// File with the certificate of this API, in PEM, and those between it and its authority: the API then speaks https
    /// only. Read again on SIGHUP.
    #[arg(long, env = "TLS_CERT", value_name = "FILE", value_parser = certificates)]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key of that certificate, in PEM. Read again on SIGHUP.
    #[arg(long, env = "TLS_KEY", value_name = "FILE", value_parser = key)]
    pub tls_key: Option<PathBuf>,
}

fn certificates(file: &str) -> Result<PathBuf, String> {
    Pair::certificates_in_file(Path::new(file)).map(|_| PathBuf::from(file))
}

fn key(file: &str) -> Result<PathBuf, String> {
    Pair::key_in_file(Path::new(file)).map(|_| PathBuf::from(file))
}

impl CertificateSettings {
    /// Checks that settings which are valid one by one fit together.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.files()?.map_or(Ok(()), |files| files.read().map(drop))
    }

    /// Creates the acceptor of clients over TLS, if the settings say so. It must be called in the runtime of the
    /// service.
    ///
    /// # Errors
    /// The files cannot be used, or the operating system refuses a signal handler.
    pub(crate) fn acceptor(&self) -> anyhow::Result<Option<TlsAcceptor>> {
        let Some(files) = self.files().map_err(anyhow::Error::msg)? else { return Ok(None) };
        let now = RwLock::new(Arc::new(files.read().map_err(anyhow::Error::msg)?));
        let shown = Arc::new(Shown { files, now });
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut hangups = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                shown.read_again();
            }
        });
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn files(&self) -> Result<Option<Files>, String> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Ok(Some(Files { certificates: certificates.clone(), key: key.clone() })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{CERT} is given without {KEY}: it takes both, or neither")),
            (None, Some(_)) => Err(format!("{KEY} is given without {CERT}: it takes both, or neither")),
        }
    }
}

#[derive(Clone, Debug)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<CertifiedKey, String> {
        let named = |setting: &str, file: &Path, reason: &str| format!("{setting} = '{}': {reason}", file.display());
        let certificates = Pair::certificates_in_file(&self.certificates);
        let certificates = certificates.map_err(|reason| named(CERT, &self.certificates, &reason))?;
        let pair = Pair::key_in_file(&self.key).map(|key| Pair { certificates, key });
        pair.and_then(|pair| pair.certified()).map_err(|reason| named(KEY, &self.key, &reason))
    }
}

/// The certificate that clients are shown now.
#[derive(Debug)]
struct Shown {
    files: Files,
    now: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Shown {
    fn read_again(&self) {
        match self.files.read() {
            Ok(certified) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                tracing::info!("the certificate was read again");
            }
            Err(line) => {
                tracing::error!("the certificate was read again and cannot be used; the old one stays: {line}");
            }
        }
    }
}
