//! How fast the HTTP server and the load generator are, with no database or broker at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::task::JoinSet;
use url::Url;

use crate::crowd::client::{Client, Target};
use crate::lab::service::Service;

/// Requests per second to an endpoint that does nothing, which measures only the HTTP server and this load generator.
pub async fn empty(clients: u32, time: Duration) -> anyhow::Result<f64> {
    let service = Service::start("skiplock-api", &[("OTEL_SDK_DISABLED", String::from("true"))]).await?;
    requests(&service.url, "/livez", Method::GET, |_| String::new(), clients, time).await
}

/// Requests per second, whatever the answers; `body` makes the body of the n-th request.
pub async fn requests(
    url: &Url,
    path: &str,
    method: Method,
    body: impl Fn(u64) -> String + Clone + Send + 'static,
    clients: u32,
    time: Duration,
) -> anyhow::Result<f64> {
    let target = Target::new(url)?;
    let sent = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (mut client, sent, path) = (Client::new(target.clone()), Arc::clone(&sent), path.to_owned());
        let (method, body) = (method.clone(), body.clone());
        running.spawn(async move {
            while began.elapsed() < time {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                client.send(method.clone(), &path, body(n), None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64())
}
