//! HTTP as both APIs speak it, so that a client or a load tool can switch between them: the same routes, limits,
//! problem documents, health and telemetry. Only what `POST …/claims` does is a service's own.

pub(crate) mod connection;
mod cors;
pub(crate) mod headers;
pub mod health;
mod lines;
pub mod metrics;
pub mod problem;
pub(crate) mod receive;
mod refusal;
pub(crate) mod route;
mod tls;
mod trace;

pub use receive::Body;
pub use tls::CertificateSettings;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use actix_http::{Extensions, HttpService};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server, fn_service};
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use crate::service::{Running, ensure_open_files};
use crate::settings;

/// Limits of the HTTP side of a service.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// Threads that serve HTTP; each has connections, requests and (in producer-api) an AMQP channel of its own.
    #[arg(long, env = "HTTP_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = default_workers())]
    pub http_workers: u16,

    /// Connections open at once; further ones wait in the backlog. Fewer where the limit of open files does not allow so
    /// many.
    #[arg(long, env = "HTTP_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 25_000)]
    pub http_connections: u32,

    /// Origins of pages that may call this API from a browser, separated by commas; none unless given.
    #[arg(long, env = "CORS_ORIGINS", value_name = "LIST", value_parser = cors::origin, value_delimiter = ',')]
    pub cors_origins: Vec<String>,

    /// What --listen serves in addition to /v1 and /livez: `all`, `docs` (/openapi.json and /docs/) or `none`. By default
    /// all of it on a loopback address, and none on any other. --admin-listen serves all of it.
    #[arg(long, env = "PUBLIC_PAGES", value_name = "WHICH")]
    pub public_pages: Option<PublicPages>,

    /// Https.
    #[command(flatten)]
    pub certificate: CertificateSettings,

    /// How long new requests are still taken after SIGTERM or SIGINT, while /readyz says that it stops: for load
    /// balancers to notice. At most 5min; 0s = not at all.
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
    /// What is served there, unless the settings say: all where nobody else can reach it.
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

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A connection without a request is closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Open files that are not clients of the public listener: connections to servers (512 to MySQL at most), those of the
/// other listener, logs. Half of a small limit.
const RESERVED_FILES: u64 = 640;

/// Open files of each worker, before it has a client: actix panics where they are not to be had.
const WORKER_FILES: u64 = 4;

/// Connections to the listener for health and metrics: a few operators and probes, never the crowd.
const ADMIN_CONNECTIONS: usize = 64;

/// A connection of that listener has this long to end when its service has.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// A listener that serves.
pub struct Listening {
    /// Where it listens, with the port that the system chose when the setting was port 0.
    pub address: SocketAddr,
    /// Ends when the last request is answered.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// What a service serves in addition to its API.
pub struct Pages<D, H> {
    /// The documents of the API.
    pub documents: D,
    /// Its health and metrics.
    pub health: H,
}

/// Serves an API: `routes` to the crowd, and `pages` on a listener that the crowd cannot fill. Which of these the crowd gets,
/// too, the settings say.
///
/// After `stop` the crowd is served for the drain delay, each connection for one request more. Then its listener closes and
/// requests in hand finish within `drain`; the other listener answers until they have.
///
/// # Errors
/// An address cannot be bound.
pub fn serve_api(
    listen: SocketAddr,
    admin_listen: SocketAddr,
    settings: &HttpSettings,
    stop: CancellationToken,
    drain: Duration,
    pages: Pages<
        impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
        impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    >,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Running> {
    let Pages { documents, health } = pages;
    let connections = connections_that_fit(settings)?;
    let drained = CancellationToken::new();
    let admin = serve_admin(admin_listen, drained.clone(), {
        let (documents, health) = (documents.clone(), health.clone());
        move |config| {
            documents(config);
            health(config);
        }
    })?;
    let limits = Limits {
        // Each has one connection at least.
        workers: usize::from(settings.http_workers).min(connections),
        connections,
        origins: settings.cors_origins.clone(),
        tls: tls::acceptor(&settings.certificate)?,
        stopping: stop.clone(),
        // Ends before the process's own deadline, so that a client who waits for an outcome is no failed drain.
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
        if public_pages != PublicPages::None {
            documents(config);
        }
        if public_pages == PublicPages::All {
            health(config);
        } else {
            health::alive(config);
        }
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

/// Serves `routes` to operators and orchestrators until `stop`: health, metrics, documents.
///
/// # Errors
/// The address cannot be bound.
pub fn serve_admin(
    listen: SocketAddr,
    stop: CancellationToken,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Listening> {
    // In the clear: probes and scrapers are on the inside, and learn of no account.
    let limits = Limits {
        workers: 1,
        connections: ADMIN_CONNECTIONS,
        origins: Vec::new(),
        tls: None,
        stopping: stop.clone(),
        drain: ADMIN_DRAIN,
    };
    serve(listen, "--admin-listen (ADMIN_LISTEN)", &limits, stop.cancelled_owned(), move |config| {
        config.app_data(health::GivesReasons);
        routes(config);
    })
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

/// Whether both would be one port of this machine.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (port, ips) = (one.port(), [one, other].map(|address| address.ip().to_canonical()));
    // Of IPv6 it takes connections of IPv4 as well.
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

struct Limits {
    workers: usize,
    connections: usize,
    /// Of pages that may call it.
    origins: Vec<String>,
    /// In the clear without it.
    tls: Option<TlsAcceptor>,
    /// From then on an answer is the last of its connection.
    stopping: CancellationToken,
    drain: Duration,
}

/// Serves `routes` on an address that `setting` chose, until `stop`; then requests in hand finish.
fn serve(
    listen: SocketAddr,
    setting: &str,
    limits: &Limits,
    stop: impl Future<Output = ()> + Send + 'static,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Listening> {
    let listener = bind(listen).map_err(|error| cannot_listen(listen, setting, &error))?;
    let address = listener.local_addr()?;
    let server = Server::build()
        .workers(limits.workers)
        // Shared out, because actix counts for each worker: none more than the setting says.
        .max_concurrent_connections(limits.connections / limits.workers)
        .shutdown_timeout(limits.drain.as_secs())
        .disable_signals();
    let draining = server.graceful_shutdown_signal();
    let ending = CancellationToken::new();
    let ended = ending.clone();
    let (origins, tls, stopping) = (limits.origins.clone(), limits.tls.clone(), limits.stopping.clone());
    // As actix's HttpServer, but over connections that have deadlines.
    let server = server.listen("http", listener, move || {
        let app = App::new()
            .wrap(from_fn(receive::refuse))
            // Inside of what receives: an answer to a browser's question is an answer of the connection. Around what
            // refuses: a page may read that too.
            .wrap(cors::cors(&origins))
            .wrap(from_fn(receive::receive))
            .wrap(from_fn(problem::answer_with_problems))
            // Around everything: what goes on further in belongs to the request's trace.
            .wrap(from_fn(trace::trace))
            .configure(routes.clone())
            .default_service(actix_web::web::to(problem::no_such_route));
        let (draining, stopping, ending, tls) = (draining.clone(), stopping.clone(), ending.clone(), tls.clone());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(connection::RECEIVE_DEADLINE)
            .client_disconnect_timeout(connection::CLOSE_DEADLINE)
            .expect(fn_service(receive::expect))
            .on_connect_ext(|connection: &Connection, extensions: &mut Extensions| {
                extensions.insert(std::rc::Rc::clone(&connection.state));
            })
            .h1(map_config(app.into_factory(), |()| AppConfig::default()));
        fn_service(move |stream: TcpStream| {
            let (tls, stopping, ending) = (tls.clone(), stopping.clone(), ending.clone());
            async move {
                let client = stream.peer_addr().ok();
                Ok((Connection::accept(stream, tls, &stopping, &ending).await?, client))
            }
        })
        .and_then(http)
    })?;
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(async move {
        stop.await;
        ended.cancel();
        handle.stop(true).await;
    });
    let task = tokio::spawn(async move { Ok(server.await?) });
    Ok(Listening { address, task })
}

/// Another address helps only where this one is the trouble.
fn cannot_listen(listen: SocketAddr, setting: &str, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => {
            anyhow::anyhow!("cannot listen on {listen}: {error}; {setting} chooses another address")
        }
        _ => anyhow::anyhow!("cannot listen on {listen}, the address of {setting}: {error}"),
    }
}

fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A service that was just stopped leaves connections behind, which must not keep its successor from the port.
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)?.into_std()
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
