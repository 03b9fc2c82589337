//! HTTP as both APIs speak it, so that a client or a load tool can switch between them: the same routes, limits,
//! problem documents, health and telemetry. Only what `POST …/claims` does is a service's own.

pub(crate) mod connection;
pub(crate) mod cors;
pub(crate) mod headers;
pub mod health;
mod limits;
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
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::{Extensions, HttpService};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server, fn_service};
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A connection without a request is closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Connections to the listener for health and metrics: a few operators and probes, never the crowd.
const ADMIN_CONNECTIONS: usize = 64;

/// How long a connection to that listener may take to end once its service has ended.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// A running listener.
pub struct Listening {
    /// Where it listens, with the port that the system chose if the setting was port 0.
    pub address: SocketAddr,
    /// Ends when the last request is answered.
    pub task: JoinHandle<anyhow::Result<()>>,
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
    // Without TLS: probes and scrapers are on the inside, and learn of no account.
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

/// What a listener accepts, and for how long.
pub(crate) struct Limits {
    /// Threads.
    pub workers: usize,
    pub connections: usize,
    /// The origins of pages that may call it.
    pub origins: Vec<String>,
    /// Without it, the listener speaks plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Once this is cancelled, each answer is the last of its connection.
    pub stopping: CancellationToken,
    pub drain: Duration,
}

/// Serves `routes` on an address that `setting` chose, until `stop`; then requests in flight finish.
pub(crate) fn serve(
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
        // Divided among the workers, because actix counts for each of them: together no more than the setting says.
        .max_concurrent_connections(limits.connections / limits.workers)
        .shutdown_timeout(limits.drain.as_secs())
        .disable_signals();
    let draining = server.graceful_shutdown_signal();
    let ending = CancellationToken::new();
    let ended = ending.clone();
    let (origins, tls, stopping) = (limits.origins.clone(), limits.tls.clone(), limits.stopping.clone());
    // Like actix's HttpServer, but over connections that have deadlines.
    let server = server.listen("http", listener, move || {
        let app = App::new()
            .wrap(from_fn(receive::refuse))
            // Inside `receive`, because the answer to a preflight request is an answer of the connection. Around
            // `refuse`, because a page may read refusals too.
            .wrap(cors::cors(&origins))
            .wrap(from_fn(receive::receive))
            .wrap(from_fn(problem::answer_with_problems))
            // Around everything, so that what happens further in belongs to the request's trace.
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
            .client_request_timeout(limits::RECEIVE_DEADLINE)
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

/// Suggests another address only if this one is the trouble.
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
