//! `/livez`: the process answers. `/readyz`: the servers it needs answer too, asked at most once a second while they do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// How long an answer of the servers holds.
const CACHED_FOR: Duration = Duration::from_secs(1);

/// How long it holds that one of them is away: who is ready soon should be told so soon.
const AWAY_CACHED_FOR: Duration = Duration::from_millis(100);

/// A server that takes longer than this is not ready.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// How to ask a server, and whether the service can do its work without it.
#[derive(Clone)]
struct Check {
    server: &'static str,
    is_needed: bool,
    ask: Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>,
}

/// Asks the servers that a service needs. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    checks: Vec<Check>,
    stop: CancellationToken,
    last: Arc<Mutex<Option<(Instant, Report)>>>,
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
        Self { checks: Vec::new(), stop, last: Arc::default() }
    }

    /// Adds a server that must answer `ask`.
    #[must_use]
    pub fn needs<T, F>(self, server: &'static str, client: &T, ask: impl Fn(T) -> F + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.with(server, true, client, ask)
    }

    /// Adds a server that is reported, but that the service can do without for a while: were it needed, its failure
    /// would take every instance out of service at once.
    #[must_use]
    pub fn uses<T, F>(self, server: &'static str, client: &T, ask: impl Fn(T) -> F + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.with(server, false, client, ask)
    }

    fn with<T, F>(
        mut self,
        server: &'static str,
        is_needed: bool,
        client: &T,
        ask: impl Fn(T) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let client = client.clone();
        self.checks.push(Check { server, is_needed, ask: Arc::new(move || Box::pin(ask(client.clone()))) });
        self
    }

    /// The routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        let health = self.clone();
        config.route("/livez", web::get().to(async || HttpResponse::Ok().body("alive\n"))).route(
            "/readyz",
            web::get().to(move || {
                let health = health.clone();
                async move { health.ready().await }
            }),
        );
    }

    async fn ready(&self) -> HttpResponse {
        let report = self.report().await;
        if report.ready && !self.stop.is_cancelled() {
            HttpResponse::Ok().json(report)
        } else {
            HttpResponse::ServiceUnavailable().json(Report { ready: false, ..report })
        }
    }

    async fn report(&self) -> Report {
        // Whoever comes while the servers are asked waits for the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < if report.ready { CACHED_FOR } else { AWAY_CACHED_FOR }
        {
            return report.clone();
        }
        let states = join_all(self.checks.iter().map(ask)).await;
        let ready = self.checks.iter().zip(&states).all(|(check, is_up)| *is_up || !check.is_needed);
        let state = |(check, is_up): (&Check, bool)| (check.server, if is_up { "up" } else { "down" });
        let report = Report { ready, servers: self.checks.iter().zip(states).map(state).collect() };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// Whether a server answers in time.
async fn ask(check: &Check) -> bool {
    let deadline = Error::Deadline { what: "a health check", limit: CHECK_DEADLINE };
    match tokio::time::timeout(CHECK_DEADLINE, (check.ask)()).await.unwrap_or(Err(deadline)) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, server = check.server, "a server does not answer");
            false
        }
    }
}
