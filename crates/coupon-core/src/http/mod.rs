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
use tokio_util::sync::CancellationToken;

use crate::process::Running;

/// Limits of the HTTP side of a service.
#[derive(Args, Clone, Debug)]
pub struct HttpSettings {
    /// Threads that serve HTTP; each has connections, requests and (in producer-api) an AMQP channel of its own.
    #[arg(long, env = "HTTP_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = default_workers())]
    pub http_workers: u16,

    /// Connections open at once; further ones wait in the backlog.
    #[arg(long, env = "HTTP_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), default_value_t = 25_000)]
    pub http_connections: u32,
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

/// Serves `routes` on `listen` until `stop`, then lets requests in hand finish within `drain`.
///
/// # Errors
/// The address cannot be bound.
pub fn serve(
    listen: SocketAddr,
    settings: &HttpSettings,
    stop: CancellationToken,
    drain: Duration,
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> anyhow::Result<Running> {
    let server = HttpServer::new(move || {
        App::new()
            .wrap(from_fn(problem::answer_with_problems))
            // Around everything: what goes on further in belongs to the request's trace.
            .wrap(from_fn(trace::trace))
            .configure(routes.clone())
            .default_service(actix_web::web::to(problem::no_such_route))
    })
    .workers(usize::from(settings.http_workers))
    // Shared out, because actix counts for each worker.
    .max_connections((settings.http_connections as usize).div_ceil(usize::from(settings.http_workers)))
    .backlog(BACKLOG)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_HEAD_DEADLINE)
    // Ends before the process's own deadline, so that a client who waits for an outcome is no failed drain.
    .shutdown_timeout(drain.as_secs().saturating_sub(2).max(1))
    .disable_signals()
    .bind(listen)
    .map_err(|error| {
        anyhow::anyhow!("cannot listen on {listen}: {error}; --listen (LISTEN) chooses another address")
    })?;
    let address = server.addrs().first().copied().unwrap_or(listen);
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(async move {
        stop.cancelled().await;
        handle.stop(true).await;
    });
    let task = tokio::spawn(async move { Ok(server.await?) });
    Ok(Running { address, task })
}
