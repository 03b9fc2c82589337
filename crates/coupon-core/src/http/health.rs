//! `/livez`: the process answers. `/readyz`: the service can do its work, judging by the servers that it needs.
//!
//! One task for each server checks it again and again. Invariants: once each server has been checked, a health request
//! waits for none of them; a server that refuses until somebody fixes it counts as down at once ([`Error::stays`]),
//! while any other trouble counts when two checks in a row meet it; what is wrong and how to fix it is logged once, and
//! so is the recovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::route::get;
use crate::error::{Error, Result};

/// How often a server that can do its work is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How often a server that cannot do its work is checked, so that its recovery is noticed soon. Also how soon after a
/// first failure the second check follows, which decides.
const CHECK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A check that takes longer than this has failed.
const CHECK_DEADLINE: Duration = Duration::from_secs(3);

/// The health of a service. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    servers: Vec<Server>,
    stop: CancellationToken,
}

/// A server, and the result of its last check.
#[derive(Clone)]
struct Server {
    name: &'static str,
    need: Need,
    was_up: Arc<AtomicBool>,
    /// `None` before the first check.
    found: watch::Receiver<Option<Found>>,
}

/// How much a service needs a server.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Without it the service cannot do its work.
    Always,
    /// The service can do without it for a while, with what it has learnt from it, if it has been up before and its
    /// trouble may pass by itself.
    AtFirst,
    /// It is reported, but the service can do without it for a while: if it were needed, its failure would take every
    /// instance out of service at the same time.
    Never,
}

/// Whether a server can do its work, or why not.
type Found = Result<(), Reason>;

/// Why a server cannot do its work.
#[derive(Clone, Debug)]
struct Reason {
    text: String,
    stays: bool,
}

impl From<&Error> for Reason {
    fn from(error: &Error) -> Self {
        let stays = error.stays();
        let again = if stays { "" } else { "; it is retried automatically" };
        Self { text: format!("{error}; {}{again}", error.remedy()), stays }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    ready: bool,
    servers: BTreeMap<&'static str, &'static str>,
    /// Why the service is not ready, and why servers are down. They are for operators only: the crowd learns no
    /// internals.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<BTreeMap<&'static str, String>>,
}

/// Marks, in its application data, a listener whose `/readyz` gives reasons.
pub(super) struct GivesReasons;

/// Adds the route that says no more than that the process answers.
pub(crate) fn alive(config: &mut web::ServiceConfig) {
    config
        .service(get("/livez", async || HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("alive\n")));
}

impl Health {
    /// Creates the health of a service, which is no longer ready once it is asked to stop.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { servers: Vec::new(), stop }
    }

    /// Adds a server, and begins to check it.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn watch<T, F>(
        mut self,
        name: &'static str,
        need: Need,
        client: &T,
        check: impl Fn(T) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (reported, found) = watch::channel(None);
        let (client, stop) = (client.clone(), self.stop.clone());
        let was_up = Arc::new(AtomicBool::new(false));
        let is_up = Arc::clone(&was_up);
        let watching = watch_server(name, reported, move || {
            let (checked, is_up) = (check(client.clone()), Arc::clone(&is_up));
            async move { checked.await.inspect(|()| is_up.store(true, Ordering::Relaxed)) }
        });
        tokio::spawn(async move { stop.run_until_cancelled(watching).await });
        self.servers.push(Server { name, need, was_up, found });
        self
    }

    /// Adds the routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        let health = self.clone();
        alive(config);
        config.service(get("/readyz", move |request: HttpRequest| {
            let health = health.clone();
            async move { health.ready(request.app_data::<GivesReasons>().is_some()).await }
        }));
    }

    async fn ready(&self, gives_reasons: bool) -> HttpResponse {
        let mut report = Report { ready: !self.stop.is_cancelled(), servers: BTreeMap::new(), reasons: None };
        if !report.ready && gives_reasons {
            report
                .reasons
                .get_or_insert_default()
                .insert("service", String::from("it was asked to stop and is draining"));
        }
        for server in &self.servers {
            let found = server.found().await;
            report.ready &= !found.as_ref().is_err_and(|reason| server.is_missed(reason));
            report.servers.insert(server.name, if found.is_ok() { "up" } else { "down" });
            if let Err(reason) = found
                && gives_reasons
            {
                report.reasons.get_or_insert_default().insert(server.name, reason.text);
            }
        }
        if report.ready { HttpResponse::Ok().json(report) } else { HttpResponse::ServiceUnavailable().json(report) }
    }
}

impl Server {
    /// Whether the service cannot do its work while this server is down for this reason.
    fn is_missed(&self, reason: &Reason) -> bool {
        match self.need {
            Need::Always => true,
            Need::AtFirst => reason.stays || !self.was_up.load(Ordering::Relaxed),
            Need::Never => false,
        }
    }

    async fn found(&self) -> Found {
        // Only the first result is waited for, which takes up to two checks with a deadline each. After a stop none
        // comes.
        let mut found = self.found.clone();
        let checked = tokio::time::timeout(CHECK_DEADLINE * 2, found.wait_for(Option::is_some)).await;
        let checked = checked.ok().and_then(|checked| checked.ok()?.clone());
        checked.unwrap_or_else(|| Err(Reason { text: String::from("not checked yet"), stays: false }))
    }
}

/// Checks a server forever, publishes each result, and logs changes.
async fn watch_server<F>(name: &'static str, found: watch::Sender<Option<Found>>, check: impl Fn() -> F)
where
    F: Future<Output = Result<()>>,
{
    let check = async || {
        let deadline = Error::Deadline { what: "a check of it", limit: CHECK_DEADLINE };
        let checked = tokio::time::timeout(CHECK_DEADLINE, check()).await.unwrap_or(Err(deadline));
        checked.map_err(|error| Reason::from(&error))
    };
    loop {
        let mut checked = check().await;
        let is_down = matches!(*found.borrow(), Some(Err(_)));
        if !is_down && checked.as_ref().is_err_and(|reason| !reason.stays) {
            tokio::time::sleep(CHECK_AGAIN_AFTER).await;
            checked = check().await;
        }
        let is_up = checked.is_ok();
        let before = found.send_replace(Some(checked.clone()));
        log_change(name, before.as_ref(), &checked);
        tokio::time::sleep(if is_up { CHECK_EVERY } else { CHECK_AGAIN_AFTER }).await;
    }
}

/// Logs a change. Trouble that might have passed and now stays until somebody fixes it is a change, too.
fn log_change(server: &str, before: Option<&Found>, now: &Found) {
    match (before, now) {
        (Some(Err(before)), Err(now)) if before.stays || !now.stays => {}
        (_, Err(Reason { text, stays: true })) => tracing::error!(server, "cannot do its work: {text}"),
        (_, Err(Reason { text, stays: false })) => tracing::warn!(server, "cannot do its work: {text}"),
        (Some(Err(_)), Ok(())) => tracing::info!(server, "can do its work again"),
        (_, Ok(())) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn what_passes_counts_when_it_is_met_twice_and_what_stays_at_once() {
        let away = || Err(Error::Away { what: "a server" });
        let refused = || Err(Error::Unsafe(String::from("a server refuses")));
        let checks = vec![Ok(()), away(), Ok(()), away(), away(), Ok(()), refused(), Ok(())];
        let (reported, found) = watch::channel(None);
        let (checks, seen) = (RefCell::new(checks.into_iter()), RefCell::new(Vec::new()));
        // Each check records the state that the checks before it have led to.
        let check = async || {
            seen.borrow_mut().push(found.borrow().as_ref().map(Result::is_ok));
            let checked = checks.borrow_mut().next();
            match checked {
                Some(checked) => checked,
                None => std::future::pending().await,
            }
        };

        let watching = watch_server("a server", reported, &check);
        let all_checked = async {
            while seen.borrow().len() <= 8 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = all_checked => {}
        }

        let (up, down) = (Some(true), Some(false));
        assert_eq!(*seen.borrow(), [None, up, up, up, up, down, up, down, up]);
    }
}
