//! The life of a service: log, start, run until told to stop, drain within a deadline.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::ProcessSettings;
use crate::{shutdown, telemetry};

/// A service that has started.
pub struct Running {
    /// Where it listens; tells the port that the system chose when the setting was port 0.
    pub address: SocketAddr,
    /// Ends when the service has drained, or failed.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// The whole of a service's `main` after its settings are read. Exit codes: 0 after a stop that was asked for, 1 after
/// a failure, which is told in one line.
#[must_use]
pub fn main<F>(settings: &ProcessSettings, start: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<Running>>,
{
    telemetry::start(settings);
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from).and_then(
            |runtime| {
                let outcome = runtime.block_on(run(settings, start));
                // Whatever still runs after the drain has had its time.
                runtime.shutdown_background();
                outcome
            },
        );
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run<F>(settings: &ProcessSettings, start: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Running>>,
{
    let stop = shutdown::on_signal()?;
    let Running { address, mut task } = tokio::select! {
        started = start(stop.clone()) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "listening on http://{address}");
    tokio::select! {
        ended = &mut task => return ended?,
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(settings.drain_deadline, task).await {
        Ok(ended) => ended?,
        Err(_) => anyhow::bail!("work in hand did not finish within {:?}", settings.drain_deadline),
    }
}
