//! `/livez`: the process answers. `/readyz`: the servers it needs answer too, asked at most once a second.

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

/// A server that takes longer than this is not ready.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Asks the servers that a service needs. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    checks: Vec<(&'static str, Check)>,
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
    pub fn needs<T, F>(mut self, name: &'static str, server: &T, ask: impl Fn(T) -> F + Send + Sync + 'static) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let server = server.clone();
        self.checks.push((name, Arc::new(move || Box::pin(ask(server.clone())))));
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
            && at.elapsed() < CACHED_FOR
        {
            return report.clone();
        }
        let servers = join_all(self.checks.iter().map(async |(name, check)| (*name, ask(name, check).await))).await;
        let servers: BTreeMap<_, _> = servers.into_iter().collect();
        let report = Report { ready: servers.values().all(|state| *state == "up"), servers };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

async fn ask(name: &str, check: &Check) -> &'static str {
    let deadline = Error::Deadline { what: "a health check", limit: CHECK_DEADLINE };
    match tokio::time::timeout(CHECK_DEADLINE, check()).await.unwrap_or(Err(deadline)) {
        Ok(()) => "up",
        Err(error) => {
            tracing::warn!(%error, server = name, "not ready");
            "down"
        }
    }
}
