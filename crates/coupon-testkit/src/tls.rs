//! A proxy that speaks TLS to clients, whatever the server behind it speaks.
//!
//! MySQL begins in the clear, and each end then says whether it speaks TLS. The proxy tells the client that the server
//! does. The rest goes over TLS to both, or in the clear to a server without a certificate, as MariaDB may be.

use std::io;
use std::sync::Arc;

use coupon_core::settings::ServerUrl;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use url::Url;

use crate::authority::{Issued, TestAuthority};

/// The header of a MySQL packet: three bytes for its length, one for its number.
const HEADER: usize = 4;

/// The flag for TLS in the second byte of the capabilities in MySQL's protocol.
const CLIENT_SSL: u8 = 0x08;

/// A proxy that gives a server an address with TLS. It ends with the test's runtime.
pub struct TlsProxy {
    url: String,
    port: u16,
}

impl TlsProxy {
    /// Starts a proxy in front of a server, with this certificate. If `asks_for` is given, clients must have a
    /// certificate of that authority.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(server: &ServerUrl, shown: &Issued, asks_for: Option<&TestAuthority>) -> Self {
        Self::before(server.reveal(), shown, asks_for).await
    }

    /// Like [`Self::start`], but for any address.
    ///
    /// # Panics
    /// No port is free.
    pub async fn before(url: &str, shown: &Issued, asks_for: Option<&TestAuthority>) -> Self {
        let server = Url::parse(url).expect("a server's address");
        let acceptor = acceptor(shown, asks_for);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let place = (server.host_str().expect("a host").to_owned(), server.port().expect("a port"));
        let begins_in_the_clear = server.scheme() == "mysql";
        let url = over_tls(server, port);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(place.clone()).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let acceptor = acceptor.clone();
                if begins_in_the_clear {
                    tokio::spawn(forward_mysql(client, server, acceptor));
                } else {
                    tokio::spawn(forward(client, server, acceptor));
                }
            }
        });
        Self { url, port }
    }

    /// The server's address through the proxy, by the name `localhost`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same address, by its number.
    #[must_use]
    pub fn url_by_number(&self) -> String {
        self.url.replacen(&format!("localhost:{}", self.port), &format!("127.0.0.1:{}", self.port), 1)
    }
}

fn over_tls(mut url: Url, port: u16) -> String {
    url.set_host(Some("localhost")).expect("a host");
    url.set_port(Some(port)).expect("a port");
    if url.scheme() == "mysql" {
        url.query_pairs_mut().append_pair("ssl-mode", "VERIFY_IDENTITY");
        return url.to_string();
    }
    url.as_str().replacen("://", "s://", 1)
}

fn acceptor(shown: &Issued, asks_for: Option<&TestAuthority>) -> TlsAcceptor {
    let config = ServerConfig::builder();
    let config = match asks_for {
        None => config.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate()).expect("an authority");
            config.with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build().expect("a verifier"))
        }
    };
    let (certificates, key) = shown.parts();
    let mut config = config.with_single_cert(certificates, key).expect("a certificate and its key");
    // Collectors of spans speak only HTTP/2.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn forward(client: TcpStream, mut server: TcpStream, acceptor: TlsAcceptor) {
    if let Some(mut client) = accept(client, &acceptor).await {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Forwards the part that both ends send in the clear: the server's greeting, and the client's request for TLS. Then
/// forwards the rest, over TLS to the client.
async fn forward_mysql(mut client: TcpStream, mut server: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let mut greeting = read_packet(&mut server).await?;
    let version = greeting.iter().skip(HEADER + 1).position(|byte| *byte == 0).unwrap_or_default();
    // The version is followed by the connection's id and the first part of a challenge.
    let capabilities = greeting.get_mut(HEADER + 1 + version + 15).ok_or(io::ErrorKind::InvalidData)?;
    let speaks_tls = *capabilities & CLIENT_SSL != 0;
    *capabilities |= CLIENT_SSL;
    client.write_all(&greeting).await?;
    let wish = read_packet(&mut client).await?;
    if !speaks_tls {
        let Some(mut client) = accept(client, &acceptor).await else { return Ok(()) };
        log_in(&mut client, &mut server).await?;
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    }
    server.write_all(&wish).await?;
    let host = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(trusting()));
    let (client, server) = tokio::join!(accept(client, &acceptor), connector.connect(host, server));
    let (Some(mut client), mut server) = (client, server?) else { return Ok(()) };
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Forwards a login to a server that has not seen the request for TLS, and so numbers packets differently.
async fn log_in(client: &mut TlsStream<TcpStream>, server: &mut TcpStream) -> io::Result<()> {
    const NUMBER: usize = 3;
    const END: [Option<u8>; 2] = [Some(0), Some(0xff)];

    let mut is_first = true;
    loop {
        let mut said = read_packet(client).await?;
        for (place, byte) in said.iter_mut().enumerate() {
            match place {
                NUMBER => *byte -= 1,
                place if is_first && place == HEADER + 1 => *byte &= !CLIENT_SSL,
                _ => {}
            }
        }
        is_first = false;
        server.write_all(&said).await?;
        let mut answer = read_packet(server).await?;
        answer.iter_mut().skip(NUMBER).take(1).for_each(|number| *number += 1);
        client.write_all(&answer).await?;
        if END.contains(&answer.get(HEADER).copied()) {
            return Ok(());
        }
    }
}

async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; HEADER];
    from.read_exact(&mut packet).await?;
    let length = packet.iter().take(3).rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    packet.resize(HEADER + length, 0);
    from.read_exact(packet.split_at_mut(HEADER).1).await?;
    Ok(packet)
}

/// Accepts a client. A refused client is told why, and has time to read it.
async fn accept(client: TcpStream, acceptor: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    match acceptor.accept(client).into_fallible().await {
        Ok(client) => Some(client),
        Err((_, client)) => {
            say_goodbye(client).await;
            None
        }
    }
}

async fn say_goodbye(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = client.shutdown().await;
    let _ = tokio::io::copy(&mut client, &mut sink()).await;
}

/// Trusts any certificate, for the link between the proxy and its server, which is on this machine.
fn trusting() -> ClientConfig {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Trust)).with_no_client_auth()
}

#[derive(Debug)]
struct Trust;

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
