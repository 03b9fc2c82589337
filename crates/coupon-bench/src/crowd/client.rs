//! One HTTP connection, kept open, with one request at a time, like one person's browser.

use std::time::Duration;

use anyhow::{Context, bail};
use coupon_core::settings::TlsSettings;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

/// Longer than any API takes to answer, long polls included.
const DEADLINE: Duration = Duration::from_mins(1);

/// Longer than an API takes to answer when it need not wait for anything.
const IMPATIENT_DEADLINE: Duration = Duration::from_secs(10);

/// The form of an address.
const LIKE: &str = "must be like http://127.0.0.1:8080 or https://api.example";

/// The address of an API, and the authorities trusted to identify it.
#[derive(Clone, Debug)]
pub struct Target {
    authority: String,
    host: HeaderValue,
    /// The name in its certificate, if it speaks https.
    over_tls: Option<String>,
    tls: TlsSettings,
}

impl Target {
    /// Parses an address like `http://127.0.0.1:8080`. An https address is verified against the system's authorities.
    ///
    /// # Errors
    /// The address is anything but a scheme, a host and a port.
    pub fn new(url: &Url) -> anyhow::Result<Self> {
        let is_bare =
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !["http", "https"].contains(&url.scheme()) || !is_bare {
            bail!(LIKE);
        }
        let host = url.host_str().context("the address has no host")?;
        let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
        // An IPv6 address has no brackets in a certificate.
        let over_tls = (url.scheme() == "https").then(|| host.trim_matches(['[', ']']).to_owned());
        Ok(Self { host: HeaderValue::from_str(&authority)?, authority, over_tls, tls: TlsSettings::default() })
    }

    /// The same address, verified as these settings say.
    #[must_use]
    pub fn trusting(self, tls: &TlsSettings) -> Self {
        Self { tls: tls.clone(), ..self }
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.over_tls {
            None => speak_http(stream).await?,
            Some(name) => {
                let stream = self.tls.0.connect(name, stream).await;
                speak_http(stream.context("over TLS, with its certificate checked by --tls-ca (TLS_CA)")?).await?
            }
        })
    }
}

/// Parses the address of an API given as an option.
///
/// # Errors
/// A line that says how to write it.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| LIKE)?;
    Target::new(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

/// A client with its connection.
pub struct Client {
    target: Target,
    deadline: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Creates a client that connects on first use.
    pub fn new(target: Target) -> Self {
        Self { target, deadline: DEADLINE, connection: None }
    }

    /// Creates a client that waits only as long as an immediate answer takes.
    pub fn impatient(target: Target) -> Self {
        Self { deadline: IMPATIENT_DEADLINE, ..Self::new(target) }
    }

    /// Sends a request and reads the whole answer. After a failure, which names the address, the next request
    /// reconnects.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body)))?;
        request.headers_mut().insert(HOST, self.target.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().extend(headers);
        let deadline = self.deadline;
        let answer = tokio::time::timeout(deadline, self.exchange(request))
            .await
            .unwrap_or_else(|_| bail!("no answer within {deadline:?}"));
        if answer.is_err() {
            self.connection = None;
        }
        answer.with_context(|| format!("no HTTP answer from {}", self.target.authority))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let connection = self.connect().await?;
        connection.ready().await?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    async fn connect(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            // Boxed, because it is rare and large, and a future is as large as its largest branch.
            self.connection = Some(Box::pin(self.target.connect()).await?);
        }
        self.connection.as_mut().context("a connection was just made")
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
