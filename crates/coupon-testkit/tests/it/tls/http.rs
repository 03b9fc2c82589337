//! The APIs over TLS. Goal: clients get the same answers as without it, a connection without a proper handshake is
//! closed, and a new certificate is used without a restart. Method: certificates that the test makes, and sockets that
//! it writes to by hand.

use std::net::SocketAddr;
use std::sync::Arc;

use coupon_testkit::program::{Running, run};
use coupon_testkit::{DEADLINE, Issued, TestAuthority, TestSpace, eventually};
use reqwest::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::HERE;
use crate::programs;
use crate::system::{System, claims_are_accepted, claims_are_issued, each_gets_a_coupon};

both_ways![claims_go_over_tls, connections_without_tls_are_closed_without_harm, the_load_tool_claims_over_tls];

audited![a_new_certificate_is_shown_after_sighup, a_certificate_or_key_that_cannot_be_used_is_refused,];

/// The settings of an API with this certificate.
fn certificate_settings(issued: &Issued) -> [(&'static str, String); 2] {
    [("tls-cert", issued.certificate_file()), ("tls-key", issued.key_file())]
}

async fn claims_go_over_tls(system: &System) {
    let authority = TestAuthority::new();
    let [cert, key] = certificate_settings(&authority.issue(&HERE));
    let service = system.another_service(&[(cert.0, &cert.1), (key.0, &key.1)]).await;
    let api = system.api_of(&service).over_tls(&authority);
    let campaign = system.space.campaign(3).await;

    if system.is_queue() {
        claims_are_accepted(&api, campaign, 1..=3).await;
        claims_are_issued(&api, campaign, 1..=3).await;
    } else {
        each_gets_a_coupon(&api, campaign, 1..=3).await;
    }

    let answer = api.request(Method::GET, &format!("/v1/campaigns/{campaign}/claims/1")).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_11);
    // The listener for health and metrics stays in the clear.
    assert_eq!(system.space.api(service.admin()).get("/livez").await.status, 200);
}

async fn connections_without_tls_are_closed_without_harm(system: &System) {
    let authority = TestAuthority::new();
    let [cert, key] = certificate_settings(&authority.issue(&HERE));
    let service = system.another_service(&[(cert.0, &cert.1), (key.0, &key.1)]).await;

    // HTTP in the clear, a handshake that stops after its first byte, and a client that sends nothing.
    let closed = ["GET /livez HTTP/1.1\r\nhost: coupons\r\n\r\n", "\u{16}", ""].map(async |sent| {
        let mut connection = TcpStream::connect(service.address()).await.unwrap();
        connection.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection is closed");
        answer
    });
    for answer in futures_util::future::join_all(closed).await {
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }

    assert_eq!(system.api_of(&service).over_tls(&authority).get("/livez").await.status, 200);
}

async fn the_load_tool_claims_over_tls(system: &System) {
    let authority = TestAuthority::new();
    let [cert, key] = certificate_settings(&authority.issue(&HERE));
    let service = system.another_service(&[(cert.0, &cert.1), (key.0, &key.1)]).await;
    let campaign = system.space.campaign(3).await;
    let url = format!("https://localhost:{}", service.address().port());
    let line = format!("--json load --url {url} --campaign {campaign} --accounts 5 --clients 2 --followers 2");

    // Without `TLS_CA`, the authority of the API's certificate is unknown.
    let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let ran = run(&programs::path("coupon-bench"), &arguments, &system.space.environment()).await;
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:?}");
    let is_named = |words: &[&str]| words.iter().all(|word| ran.stderr.contains(word));
    assert!(is_named(&["--url", &url, "--tls-ca (TLS_CA)", "UnknownIssuer"]), "{ran:?}");
    assert_eq!(system.space.issued(campaign).await, 0, "nothing was claimed");

    let load = programs::bench(&system.space, &line, &[("TLS_CA", &authority.file())]).await;
    let counts = ["issued", "sold_out", "errors"].map(|name| load[0][name].as_u64());
    assert_eq!(counts, [Some(3), Some(2), Some(0)], "{load}");
}

/// The certificate that a service shows to a client that trusts this authority.
async fn shown(address: SocketAddr, authority: &TestAuthority) -> Option<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let host = ServerName::try_from("localhost").unwrap();
    let connection = TlsConnector::from(Arc::new(config)).connect(host, stream).await.unwrap();
    connection.get_ref().1.peer_certificates()?.first().cloned()
}

async fn a_new_certificate_is_shown_after_sighup(space: &TestSpace) {
    let authority = TestAuthority::new();
    let (first, second) = (authority.issue(&HERE), authority.issue(&HERE));
    let [cert, key] = certificate_settings(&first);
    let service = programs::skiplock_with(space, &[(cert.0, &cert.1), (key.0, &key.1)]).await;
    let is_shown =
        async |issued: &Issued| shown(service.address(), &authority).await == issued.parts().0.first().cloned();
    assert!(is_shown(&first).await);

    // While the key belongs to another certificate, the previous pair stays in use.
    std::fs::copy(second.key_file(), &key.1).unwrap();
    reload(&service, "the old one stays: --tls-key (TLS_KEY) = ").await;
    assert!(is_shown(&first).await);
    // Once the certificate of that key follows, both are used.
    std::fs::copy(second.certificate_file(), &cert.1).unwrap();
    reload(&service, "the certificate was read again\n").await;

    assert!(is_shown(&second).await);
    let api = space.api(service.address()).over_tls(&authority);
    assert_eq!(api.get("/livez").await.status, 200);
}

/// Sends SIGHUP and waits until the service logs these words.
async fn reload(service: &Running, words: &str) {
    service.send("HUP").await;
    eventually("it reads the certificate again", async || service.log().contains(words)).await;
}

async fn a_certificate_or_key_that_cannot_be_used_is_refused(space: &TestSpace) {
    let authority = TestAuthority::new();
    let (own, other) = (authority.issue(&HERE), authority.issue(&HERE));
    let (cert, key, other_key) = (own.certificate_file(), own.key_file(), other.key_file());
    for (own, line) in [
        (&[("tls-cert", &*cert), ("tls-key", &*other_key)][..], "--tls-key (TLS_KEY) = "),
        (&[("tls-cert", &*cert)], "--tls-cert (TLS_CERT) is given without --tls-key (TLS_KEY)"),
        (&[("tls-key", &*key)], "--tls-key (TLS_KEY) is given without --tls-cert (TLS_CERT)"),
        (&[("tls-cert", &*key), ("tls-key", &*key)], "--tls-cert (TLS_CERT) = "),
        (&[("tls-cert", "/no/such/file"), ("tls-key", &*key)], "there is no such file"),
    ] {
        for ran in [
            run(&programs::path("producer-api"), &space.arguments::<producer_api::Settings>(own), &[]).await,
            run(&programs::path("skiplock-api"), &space.arguments::<skiplock_api::Settings>(own), &[]).await,
        ] {
            assert_eq!((ran.code, ran.stderr.lines().count()), (Some(2), 1), "{ran:?}");
            assert!(ran.stderr.starts_with("error: --tls-") && ran.stderr.contains(line), "{ran:?}");
        }
    }
}
