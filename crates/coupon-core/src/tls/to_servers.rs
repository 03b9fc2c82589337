//! What connections to servers are made with: the authorities that may vouch for a server, and the certificate that
//! this program shows of itself. Each driver takes both in a form of its own.

use std::io;
use std::sync::{Arc, LazyLock, OnceLock};

use deadpool_redis::redis::{ClientTlsConfig, TlsCertificates};
use mysql_async::{ClientIdentity, SslOpts};
use opentelemetry_otlp::tonic_types::transport::{ClientTlsConfig as CollectorTls, Identity};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Authorities, Pair};

/// The system's authorities, read when a connection first needs them. A machine may have none, and then no server is
/// trusted.
static OF_THE_SYSTEM: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let mut certificates = rustls_native_certs::load_native_certs().certs;
    certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    certificates
});

/// The authorities, by default those of the system, and this program's own certificate, by default none. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct ToServers(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// These are trusted in place of the system's.
    authorities: Option<Authorities>,
    own: Option<Own>,
    config: OnceLock<Arc<ClientConfig>>,
}

#[derive(Debug)]
struct Own {
    pair: Pair,
    certified: Arc<CertifiedKey>,
}

impl Own {
    fn of(pair: Pair) -> Result<Self, String> {
        let certified = Arc::new(pair.certified()?);
        Ok(Self { pair, certified })
    }
}

impl ToServers {
    /// Takes these authorities in place of the system's, and this certificate.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn new(authorities: Option<Authorities>, own: Option<Pair>) -> Result<Self, String> {
        let own = own.map(Own::of).transpose()?;
        Ok(Self(Arc::new(Parts { authorities, own, config: OnceLock::new() })))
    }

    /// The configuration for clients that use rustls itself.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.0.config.get_or_init(|| {
            let config = ClientConfig::builder().with_root_certificates(self.roots());
            Arc::new(match &self.0.own {
                Some(own) => {
                    config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own.certified))))
                }
                None => config.with_no_client_auth(),
            })
        }))
    }

    /// Speaks TLS over an existing connection.
    ///
    /// # Errors
    /// One side does not trust the other, or the connection breaks.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(self.config()).connect(host, stream).await
    }

    /// The options for the driver of MySQL.
    #[must_use]
    pub fn mysql(&self) -> SslOpts {
        let roots = match &self.0.authorities {
            Some(authorities) => vec![authorities.pem.clone().into_bytes().into()],
            None => OF_THE_SYSTEM.iter().map(|certificate| certificate.to_vec().into()).collect(),
        };
        let identity = self.0.own.as_ref().map(|Own { pair, .. }| {
            let key = pair.key.expose_secret().as_bytes().to_vec();
            ClientIdentity::new(pair.certificates.clone().into_bytes().into(), key.into())
        });
        SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots).with_client_identity(identity)
    }

    /// The certificates for the driver of Redis, which reads the system's authorities itself.
    #[must_use]
    pub fn redis(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: self.0.own.as_ref().map(|Own { pair, .. }| ClientTlsConfig {
                client_cert: pair.certificates.clone().into_bytes(),
                client_key: pair.key.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: self.0.authorities.as_ref().map(|authorities| authorities.pem.clone().into_bytes()),
        }
    }

    /// The configuration for sending spans to a collector on this host.
    #[must_use]
    pub fn collector(&self, host: &str) -> CollectorTls {
        let tls = CollectorTls::new().domain_name(host).trust_anchors(self.roots().roots);
        match &self.0.own {
            Some(Own { pair, .. }) => tls.identity(Identity::from_pem(&pair.certificates, pair.key.expose_secret())),
            None => tls,
        }
    }

    fn roots(&self) -> RootCertStore {
        if let Some(authorities) = &self.0.authorities {
            return authorities.roots.clone();
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(OF_THE_SYSTEM.iter().cloned());
        roots
    }
}
