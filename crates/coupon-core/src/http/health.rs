//! `/livez`: the process answers. `/readyz`: the service can do its work, as far as the servers it needs can tell.
//!
//! One task for each server looks at it again and again. Invariants: whoever asks for the health waits for no server,
//! once each has been looked at; a trouble that passes between two looks changes nothing; what is wrong and what mends
//! it is logged once, and that it is over, too.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::route::get;
use crate::error::{Error, Result};

/// How often a server that can do its work is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often one that cannot: who is ready soon should be told so soon. And how soon after a first failure the second
/// look is, which decides.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A look that takes longer than this has failed.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// The health of a service. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    servers: Vec<Server>,
    stop: CancellationToken,
}

/// A server, and how it looked last.
#[derive(Clone)]
struct Server {
    name: &'static str,
    is_needed: bool,
    /// Nothing before the first look.
    is_up: watch::Receiver<Option<bool>>,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    ready: bool,
    servers: BTreeMap<&'static str, &'static str>,
}

impl Health {
    /// Of a service that is not ready any more once it was told to stop.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { servers: Vec::new(), stop }
    }

    /// Adds a server without which the service cannot do its work, and begins to look at it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn needs<T, F>(self, server: &'static str, client: &T, look: impl Fn(T) -> F + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.with(server, true, client, look)
    }

    /// Adds a server that is reported, but that the service can do without for a while: were it needed, its failure
    /// would take every instance out of service at once.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn uses<T, F>(self, server: &'static str, client: &T, look: impl Fn(T) -> F + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.with(server, false, client, look)
    }

    fn with<T, F>(
        mut self,
        name: &'static str,
        is_needed: bool,
        client: &T,
        look: impl Fn(T) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (found, is_up) = watch::channel(None);
        let (client, stop) = (client.clone(), self.stop.clone());
        let watching = watch_server(name, found, move || look(client.clone()));
        tokio::spawn(async move { stop.run_until_cancelled(watching).await });
        self.servers.push(Server { name, is_needed, is_up });
        self
    }

    /// The routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        let health = self.clone();
        config.service(get("/livez", async || HttpResponse::Ok().body("alive\n"))).service(get("/readyz", move || {
            let health = health.clone();
            async move { health.ready().await }
        }));
    }

    async fn ready(&self) -> HttpResponse {
        let mut report = Report { ready: !self.stop.is_cancelled(), servers: BTreeMap::new() };
        for server in &self.servers {
            let is_up = server.is_up().await;
            report.ready &= is_up || !server.is_needed;
            report.servers.insert(server.name, if is_up { "up" } else { "down" });
        }
        if report.ready { HttpResponse::Ok().json(report) } else { HttpResponse::ServiceUnavailable().json(report) }
    }
}

impl Server {
    async fn is_up(&self) -> bool {
        // Only the first looks are waited for, and each has its deadline. None comes any more after a stop.
        let mut is_up = self.is_up.clone();
        let looked = tokio::time::timeout(LOOK_DEADLINE * 2, is_up.wait_for(Option::is_some)).await;
        looked.is_ok_and(|looked| looked.is_ok_and(|is_up| *is_up == Some(true)))
    }
}

/// Looks at a server for ever, and says how it is and, in the log, when that changes.
async fn watch_server<F>(name: &'static str, found: watch::Sender<Option<bool>>, look: impl Fn() -> F)
where
    F: Future<Output = Result<()>>,
{
    let look = async || {
        let deadline = Error::Deadline { what: "a look at it", limit: LOOK_DEADLINE };
        tokio::time::timeout(LOOK_DEADLINE, look()).await.unwrap_or(Err(deadline))
    };
    loop {
        let mut looked = look().await;
        if looked.is_err() && *found.borrow() != Some(false) {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            looked = look().await;
        }
        let before = found.send_replace(Some(looked.is_ok()));
        match &looked {
            Err(error) if before != Some(false) && error.is_retryable() => {
                tracing::warn!(server = name, "cannot do its work: {error}; {}", error.remedy());
            }
            // It does not pass by itself.
            Err(error) if before != Some(false) => {
                tracing::error!(server = name, "cannot do its work: {error}; {}", error.remedy());
            }
            Ok(()) if before == Some(false) => tracing::info!(server = name, "can do its work again"),
            Ok(()) | Err(_) => {}
        }
        tokio::time::sleep(if looked.is_ok() { LOOK_EVERY } else { LOOK_AGAIN_AFTER }).await;
    }
}
