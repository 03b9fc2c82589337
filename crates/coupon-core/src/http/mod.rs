//! HTTP as both APIs speak it, so that a client or a load tool swaps one for the other: the same routes, limits,
//! problem documents, health and telemetry. Only what `POST …/claims` does is a service's own.

pub mod claims;
pub mod docs;
pub mod extract;
pub mod health;
pub mod metrics;
pub mod problem;
pub mod rate_limit;
mod trace;

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::process::Running;
use crate::settings;

/// Limits of the HTTP side of a service.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// Threads that serve HTTP; each has connections, requests and (in producer-api) an AMQP channel of its own.
    #[arg(long, env = "HTTP_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = default_workers())]
    pub http_workers: u16,

    /// Connections open at once; further ones wait in the backlog.
    #[arg(long, env = "HTTP_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 25_000)]
    pub http_connections: u32,

    /// How long new requests are still taken after SIGTERM or SIGINT, while /readyz says that it stops: for load
    /// balancers to notice. At most 5min; 0s = not at all.
    #[arg(long, env = "DRAIN_DELAY", value_name = "TIME", value_parser = drain_delay, default_value = "3s")]
    pub drain_delay: Duration,
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

/// A client has this long to send the head of a request.
const REQUEST_HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// Connections to the listener for health and metrics: a few who look, never the crowd.
const ADMIN_CONNECTIONS: usize = 64;

/// A connection of that listener has this long to end when its service has.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// A listener that serves.
pub struct Listening {
    /// Where; tells the port that the system chose when the setting was port 0.
    pub address: SocketAddr,
    /// Ends when the last request is answered.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// Serves an API: `routes` to the crowd, and `admin_routes` both there and on a listener that the crowd cannot fill.
///
/// After `stop` the crowd is served for the drain delay as before. Then its listener closes and requests in hand finish
/// within `drain`; the other listener answers until they have.
///
/// # Errors
/// An address cannot be bound.
pub fn serve_api(
    listen: SocketAddr,
    admin_listen: SocketAddr,
    settings: &HttpSettings,
    stop: CancellationToken,
    drain: Duration,
    admin_routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Running> {
    let drained = CancellationToken::new();
    let admin = serve_admin(admin_listen, drained.clone(), admin_routes.clone())?;
    let limits = Limits {
        workers: usize::from(settings.http_workers),
        connections: settings.http_connections as usize,
        // Ends before the process's own deadline, so that a client who waits for an outcome is no failed drain.
        drain: drain.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1)),
    };
    let delay = settings.drain_delay;
    let delayed = async move {
        stop.cancelled().await;
        tokio::time::sleep(delay).await;
    };
    let public = serve(listen, "--listen (LISTEN)", &limits, delayed, move |config| {
        routes(config);
        admin_routes(config);
    })?;
    let task = tokio::spawn(async move {
        let ended = public.task.await?;
        drained.cancel();
        admin.task.await??;
        ended
    });
    Ok(Running { address: public.address, admin: admin.address, stops_within: delay + drain, task })
}

/// Serves `routes` to operators and orchestrators until `stop`: health and metrics.
///
/// # Errors
/// The address cannot be bound.
pub fn serve_admin(
    listen: SocketAddr,
    stop: CancellationToken,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Listening> {
    let limits = Limits { workers: 1, connections: ADMIN_CONNECTIONS, drain: ADMIN_DRAIN };
    serve(listen, "--admin-listen (ADMIN_LISTEN)", &limits, stop.cancelled_owned(), routes)
}

struct Limits {
    workers: usize,
    connections: usize,
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
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(problem::answer_with_problems))
            // Around everything: what goes on further in belongs to the request's trace.
            .wrap(from_fn(trace::trace))
            .configure(routes.clone())
            .default_service(actix_web::web::to(problem::no_such_route))
    })
    .workers(limits.workers)
    // Shared out, because actix counts for each worker.
    .max_connections(limits.connections.div_ceil(limits.workers))
    .backlog(BACKLOG)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_HEAD_DEADLINE)
    .shutdown_timeout(limits.drain.as_secs())
    .disable_signals()
    .bind(listen)
    .map_err(|error| anyhow::anyhow!("cannot listen on {listen}: {error}; {setting} chooses another address"))?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(async move {
        stop.await;
        handle.stop(true).await;
    });
    let task = tokio::spawn(async move { Ok(server.await?) });
    Ok(Listening { address, task })
}
