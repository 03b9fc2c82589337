//! The issuer's keys, kept up to date: fetched every few minutes, and when a token names an unknown key.
//!
//! Invariants: a token with a known key never waits for the issuer. However many tokens name unknown keys, they cause
//! one request at a time, and at most one in [`ASK_AGAIN_AFTER`]. Keys stay in use until others replace them, because
//! the issuer may be away.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::{Client, Url, redirect};
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::keys::{KeySet, SET_MAX};
use super::rules::Rules;
use super::settings::KeySource;
use crate::error::words;
use crate::settings::TlsSettings;

/// How often the keys are fetched, so that a key that the issuer has withdrawn is not accepted for much longer.
const ASK_EVERY: Duration = Duration::from_mins(5);

/// How often the keys are fetched while none are known.
const ASK_FIRST_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two requests that tokens with unknown keys cause.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The longest that the issuer may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a starting service waits for the keys before it listens; it then goes on fetching them in the background.
const FIRST_ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// The keys of an issuer.
pub(super) struct Issuer {
    source: Source,
    rules: Rules,
    known: RwLock<Option<Arc<KeySet>>>,
    /// Why the last request gave no usable answer, if it gave none.
    failure: RwLock<Option<String>>,
    /// When a token last caused a request; held while such a request runs.
    asked: Mutex<Option<Instant>>,
}

enum Source {
    File(std::path::PathBuf),
    Url(Client, Url),
}

impl Issuer {
    /// Reads the keys, and keeps them up to date until the last reference is dropped.
    ///
    /// # Errors
    /// The file cannot be used. An issuer that does not answer is not an error: it is asked again and again.
    pub async fn start(source: KeySource, rules: Rules) -> anyhow::Result<Arc<Self>> {
        let source = match source {
            KeySource::File(file) => Source::File(file),
            KeySource::Url(url, tls) => Source::Url(client(&url, &tls)?, url),
        };
        let issuer = Arc::new(Self {
            source,
            rules,
            known: RwLock::default(),
            failure: RwLock::default(),
            asked: Mutex::default(),
        });
        match &issuer.source {
            Source::File(_) => issuer.known_is(issuer.load().await?),
            Source::Url(_, url) => {
                if timeout(FIRST_ANSWER_DEADLINE, issuer.ask()).await.is_err() {
                    tracing::warn!(
                        "no keys yet from {}, which is slow to answer; until there are, no token is accepted",
                        shown(url)
                    );
                }
            }
        }
        tokio::spawn(keep_asking(Arc::downgrade(&issuer)));
        Ok(issuer)
    }

    /// The known keys; `None` before the issuer has answered once. It is the same `Arc` until a key changes.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the issuer gave no keys when it was last asked, if it gave none.
    pub fn failure(&self) -> Option<String> {
        self.failure.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys because a token names an unknown one, unless another token caused that within
    /// [`ASK_AGAIN_AFTER`].
    pub async fn ask_for_unknown(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN_AFTER) {
            self.ask().await;
            *asked = Some(Instant::now());
        }
    }

    async fn ask(&self) {
        match self.load().await {
            Ok(keys) => {
                self.known_is(keys);
                if self.fails(None).is_some() {
                    tracing::info!("the issuer provides keys again");
                }
            }
            Err(error) => {
                if self.fails(Some(format!("{error:#}"))).is_some() {
                    return;
                }
                let until =
                    if self.keys().is_some() { "the keys known before stay in use" } else { "no token is accepted" };
                tracing::warn!("no keys from the issuer; until there are, {until}: {error:#}");
            }
        }
    }

    /// Records why there was no answer, and returns what was recorded before.
    fn fails(&self, failure: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.write().unwrap_or_else(PoisonError::into_inner), failure)
    }

    fn known_is(&self, keys: KeySet) {
        tracing::debug!(keys = keys.len(), "keys of the issuer");
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| !known.is_read_from_the_same(&keys)) {
            for reason in keys.left_out() {
                tracing::warn!("a key of the issuer is left out: {reason}");
            }
            *known = Some(Arc::new(keys));
        }
    }

    async fn load(&self) -> anyhow::Result<KeySet> {
        let (client, url) = match &self.source {
            Source::File(file) => return KeySet::from_file(file, &self.rules).map_err(anyhow::Error::msg),
            Source::Url(client, url) => (client, url),
        };
        let answer = timeout(ANSWER_DEADLINE, fetch(client, url)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ANSWER_DEADLINE:?}")));
        let text = answer.with_context(|| shown(url))?;
        let keys = KeySet::read(&text, &self.rules).map_err(anyhow::Error::msg);
        keys.with_context(|| format!("the keys of {}", shown(url)))
    }
}

async fn keep_asking(issuer: Weak<Issuer>) {
    loop {
        let Some(is_known) = issuer.upgrade().map(|issuer| issuer.keys().is_some()) else { return };
        sleep(if is_known { ASK_EVERY } else { ASK_FIRST_EVERY }).await;
        let Some(issuer) = issuer.upgrade() else { return };
        issuer.ask().await;
    }
}

/// The address without the parts that may hold a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Creates a client that follows no redirects, which might lead from https to http, for instance.
fn client(url: &Url, tls: &TlsSettings) -> anyhow::Result<Client> {
    let client = Client::builder().redirect(redirect::Policy::none()).no_proxy();
    // Over http no certificate authorities are needed, and a machine may have none.
    let client = if url.scheme() == "http" {
        client.tls_certs_only([])
    } else {
        client.tls_backend_preconfigured(ClientConfig::clone(&tls.0.config()))
    };
    Ok(client.build()?)
}

/// What went wrong, without the address, which may hold a secret.
fn reason(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::msg(words::http(&error.without_url()))
}

async fn fetch(client: &Client, url: &Url) -> anyhow::Result<String> {
    let mut answer = client.get(url.clone()).send().await.map_err(reason)?;
    ensure!(answer.status().is_success(), "it answered {}", answer.status());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reason)? {
        body.extend_from_slice(&chunk);
        ensure!(body.len() <= SET_MAX, "the answer has more than {SET_MAX} bytes");
    }
    Ok(String::from_utf8(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_of_an_address_is_not_shown() {
        let url = Url::parse("https://issuer.example/keys?api_key=secret#secret").unwrap();

        assert_eq!(shown(&url), "https://issuer.example/keys");
    }
}
