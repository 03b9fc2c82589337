//! An issuer of tokens, with keys of its own and a small real HTTP server that publishes them: it can go away, change
//! its keys, and count its requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coupon_core::AccountId;
use coupon_core::tokens::KeyPair;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The issuer's name in the tokens.
const ISSUER: &str = "https://issuer.test";

/// The audience of its tokens.
const AUDIENCE: &str = "coupons";

/// An issuer that publishes its keys until it is dropped.
pub struct TestIssuer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

struct State {
    signing: Arc<KeyPair>,
    /// The keys it publishes; none while it is away.
    published: Option<String>,
    asked: u64,
}

impl TestIssuer {
    /// Starts an issuer with one key.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let signing = Arc::new(KeyPair::generate().expect("a key"));
        let published = Some(signing.jwks().to_string());
        let state = Arc::new(Mutex::new(State { signing, published, asked: 0 }));
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Arc::new(Self { address, state, serving })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of a service that trusts this issuer.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("auth", String::from("jwt")),
            ("auth-jwks-url", format!("http://{}/jwks.json", self.address)),
            ("auth-issuer", String::from(ISSUER)),
            ("auth-audience", String::from(AUDIENCE)),
        ])
    }

    /// The current signing key.
    #[must_use]
    pub fn key(&self) -> Arc<KeyPair> {
        Arc::clone(&self.state().signing)
    }

    /// A token for an account, valid for longer than a test takes.
    ///
    /// # Panics
    /// The token cannot be signed.
    #[must_use]
    pub fn token(&self, account: u64) -> String {
        self.key().token(AccountId(account), &[], ISSUER, AUDIENCE, Duration::from_hours(1)).expect("a token")
    }

    /// The claims of a token for an account, for a test to modify.
    #[must_use]
    pub fn claims(&self, account: u64) -> Value {
        let exp = OffsetDateTime::now_utc().unix_timestamp() + 3600;
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": account.to_string(), "exp": exp })
    }

    /// Signs with a new key from now on, and publishes only that one.
    ///
    /// # Panics
    /// No key can be generated.
    pub fn change_key(&self) {
        let key = Arc::new(KeyPair::generate().expect("a key"));
        let mut state = self.state();
        state.published = Some(key.jwks().to_string());
        state.signing = key;
    }

    /// Publishes this text from now on. With `None`, closes connections without an answer.
    pub fn publish(&self, text: Option<String>) {
        self.state().published = text;
    }

    /// How many requests it has received.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.state().asked
    }
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((client, _)) = listener.accept().await {
        let published = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked += 1;
            state.published.clone()
        };
        tokio::spawn(answer(client, published));
    }
}

/// Answers a request with the published keys. Fails if the client has gone away.
async fn answer(mut client: TcpStream, published: Option<String>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let Some(body) = published else { return Ok(()) };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}
