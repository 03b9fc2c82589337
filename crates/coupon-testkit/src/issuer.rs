//! An issuer of tokens, with keys of its own and a small real HTTP server that publishes them: it can go away, change
//! its keys, and count how often it was asked.

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

/// Its name in the tokens.
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
    /// What it publishes; nothing while it is away.
    published: Option<String>,
    asked: u64,
}

impl TestIssuer {
    /// Starts with one key.
    ///
    /// # Panics
    /// There is no port.
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

    /// The settings of a service that trusts it.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("auth", String::from("jwt")),
            ("auth-jwks-url", format!("http://{}/jwks.json", self.address)),
            ("auth-issuer", String::from(ISSUER)),
            ("auth-audience", String::from(AUDIENCE)),
        ])
    }

    /// The key that signs now.
    #[must_use]
    pub fn key(&self) -> Arc<KeyPair> {
        Arc::clone(&self.state().signing)
    }

    /// A token for an account, for longer than a test takes.
    ///
    /// # Panics
    /// It cannot be signed.
    #[must_use]
    pub fn token(&self, account: u64) -> String {
        self.key().token(AccountId(account), &[], ISSUER, AUDIENCE, Duration::from_hours(1)).expect("a token")
    }

    /// What a token for an account says, to be changed.
    #[must_use]
    pub fn claims(&self, account: u64) -> Value {
        let exp = OffsetDateTime::now_utc().unix_timestamp() + 3600;
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": account.to_string(), "exp": exp })
    }

    /// Signs with a new key from now on, and publishes that one only.
    ///
    /// # Panics
    /// There is no key.
    pub fn change_key(&self) {
        let key = Arc::new(KeyPair::generate().expect("a key"));
        let mut state = self.state();
        state.published = Some(key.jwks().to_string());
        state.signing = key;
    }

    /// Publishes this from now on; nothing: it closes connections without an answer.
    pub fn publish(&self, text: Option<String>) {
        self.state().published = text;
    }

    /// How often it was asked.
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

/// A client that has gone away misses its answer.
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
