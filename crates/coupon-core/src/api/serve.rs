//! Serves an API: claims to the crowd, and documents, health and metrics to operators, on a listener that the crowd
//! cannot fill.
//!
//! Invariant: what only operators may see is on the public listener only if the settings say so, or nobody else can
//! reach it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use actix_web::web::ServiceConfig;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::campaigns::Campaigns;
use super::docs::Documents;
use crate::http::health::{self, Health};
use crate::http::{CertificateSettings, Limits, cors, metrics, serve, serve_admin};
use crate::mysql::Mysql;
use crate::service::{Running, ensure_open_files};
use crate::settings;

/// Limits of the HTTP side of an API.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// Threads that serve HTTP; each has connections, requests and (in producer-api) an AMQP channel of its own.
    #[arg(long, env = "HTTP_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = default_workers())]
    pub http_workers: u16,

    /// Connections open at the same time; further ones wait in the backlog. Fewer if the limit on open files does not
    /// allow so many.
    #[arg(long, env = "HTTP_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 25_000)]
    pub http_connections: u32,

    /// Origins of pages that may call this API from a browser, separated by commas; none unless given.
    #[arg(long, env = "CORS_ORIGINS", value_name = "LIST", value_parser = cors::origin, value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// What --listen serves in addition to /v1 and /livez: `all`, `docs` (/openapi.json and /docs/) or `none`. By
    /// default all of it on a loopback address, and none on any other. --admin-listen serves all of it.
    #[arg(long, env = "PUBLIC_PAGES", value_name = "WHICH")]
    pub public_pages: Option<PublicPages>,

    /// The certificate for https.
    #[command(flatten)]
    pub certificate: CertificateSettings,

    /// How long new requests are still accepted after SIGTERM or SIGINT, while /readyz says that the service is
    /// stopping, for load balancers to notice. At most 5min; 0s = not at all.
    #[arg(long, env = "DRAIN_DELAY", value_name = "TIME", value_parser = drain_delay, default_value = "3s")]
    pub drain_delay: Duration,
}

/// What the listener for clients serves in addition to the API itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum PublicPages {
    /// The documents, health and metrics.
    All,
    /// The documents.
    Docs,
    /// Nothing.
    None,
}

impl HttpSettings {
    /// Which pages are served at this address: those that the settings choose, or by default all of them where nobody
    /// else can reach it.
    fn pages_at(&self, listen: SocketAddr) -> PublicPages {
        let is_loopback = listen.ip().to_canonical().is_loopback();
        self.public_pages.unwrap_or(if is_loopback { PublicPages::All } else { PublicPages::None })
    }
}

fn drain_delay(text: &str) -> Result<Duration, String> {
    settings::duration_within(text, Duration::ZERO, Duration::from_mins(5))
}

fn default_workers() -> u16 {
    std::thread::available_parallelism().ok().and_then(|cores| u16::try_from(cores.get()).ok()).unwrap_or(2)
}

/// Open files kept for anything but clients of the public listener: connections to servers (512 to MySQL at most),
/// those of the other listener, and logs. If the limit is small, half of it.
const RESERVED_FILES: u64 = 640;

/// Open files of each worker before it has a client; actix panics if it cannot get them.
const WORKER_FILES: u64 = 4;

/// What an API serves in addition to the claims.
#[derive(Clone)]
pub struct Pages {
    /// Its documents.
    pub documents: Documents,
    /// Its health.
    pub health: Health,
    /// Its pool of connections, whose state the metrics show.
    pub mysql: Mysql,
    /// Its campaigns, whose stock the metrics show.
    pub campaigns: Campaigns,
}

impl Pages {
    fn routes(&self, which: PublicPages, config: &mut ServiceConfig) {
        if which != PublicPages::None {
            self.documents.routes(config);
        }
        if which == PublicPages::All {
            self.health.routes(config);
            metrics::routes(config, &self.mysql, &self.campaigns, async |campaigns: Campaigns| {
                campaigns.stocks().await
            });
        } else {
            health::alive(config);
        }
    }
}

/// Serves an API: `routes` to the crowd, and `pages` on a listener that the crowd cannot fill. The settings say which
/// of the pages the crowd gets as well.
///
/// After `stop` the crowd is still served for the drain delay, with one more request on each connection. Then its
/// listener closes and requests in flight finish within `drain`; the other listener answers until they have.
///
/// # Errors
/// An address cannot be bound.
pub fn serve_api(
    listen: SocketAddr,
    admin_listen: SocketAddr,
    settings: &HttpSettings,
    stop: CancellationToken,
    drain: Duration,
    pages: Pages,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Running> {
    let connections = connections_that_fit(settings)?;
    let drained = CancellationToken::new();
    let admin_pages = pages.clone();
    let admin = serve_admin(admin_listen, drained.clone(), move |config| admin_pages.routes(PublicPages::All, config))?;
    let limits = Limits {
        // Each worker needs at least one connection.
        workers: usize::from(settings.http_workers).min(connections),
        connections,
        origins: settings.cors_origins.clone(),
        tls: settings.certificate.acceptor()?,
        stopping: stop.clone(),
        // Ends before the process's own deadline, so that a client who waits for an outcome does not make the drain
        // fail.
        drain: drain.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1)),
    };
    let delay = settings.drain_delay;
    let delayed = async move {
        stop.cancelled().await;
        tokio::time::sleep(delay).await;
    };
    let public_pages = settings.pages_at(listen);
    let public = serve(listen, "--listen (LISTEN)", &limits, delayed, move |config| {
        routes(config);
        pages.routes(public_pages, config);
    })?;
    let task = tokio::spawn(async move {
        let ended = public.task.await?;
        drained.cancel();
        admin.task.await??;
        ended
    });
    let (address, over_tls) = (public.address, settings.certificate.tls_cert.is_some());
    Ok(Running { address, over_tls, admin: admin.address, stops_within: delay + drain, task })
}

/// Checks that the listeners of an API do not want the same port.
///
/// # Errors
/// A line that names both settings.
pub fn check_listeners(listen: SocketAddr, admin_listen: SocketAddr) -> Result<(), String> {
    if overlap(listen, admin_listen) {
        return Err(format!(
            "--listen (LISTEN) = {listen} and --admin-listen (ADMIN_LISTEN) = {admin_listen} are the same: each needs an \
             address of its own"
        ));
    }
    Ok(())
}

/// Whether both addresses would take the same port of this machine.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (port, ips) = (one.port(), [one, other].map(|address| address.ip().to_canonical()));
    // The unspecified address of IPv6 takes connections over IPv4 as well.
    let takes_all = |[all, other]: [IpAddr; 2]| all.is_unspecified() && (all.is_ipv6() || other.is_ipv4());
    let [ip, other_ip] = ips;
    port != 0 && port == other.port() && (ip == other_ip || takes_all(ips) || takes_all([other_ip, ip]))
}

/// The connections of the setting, or as many as there are file descriptors for.
fn connections_that_fit(settings: &HttpSettings) -> anyhow::Result<usize> {
    let workers = settings.http_workers;
    let files = ensure_open_files(u64::from(workers) * WORKER_FILES);
    let files = files.with_context(|| format!("--http-workers (HTTP_WORKERS) = {workers}"))?;
    let (wanted, fit) = (u64::from(settings.http_connections), files - RESERVED_FILES.min(files / 2));
    if wanted > fit {
        tracing::warn!(
            "--http-connections (HTTP_CONNECTIONS) = {wanted} does not fit within {files} open files: {fit} are used; \
             raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    Ok(usize::try_from(wanted.min(fit))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_listeners_need_two_ports_or_addresses() {
        let overlap = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:80", "[::]:80"),
            ("[::]:80", "192.0.2.1:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:80", "192.0.2.1:80"),
            ("0.0.0.0:80", "[::1]:80"),
        ] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }
}
