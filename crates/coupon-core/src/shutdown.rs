//! Stopping: SIGTERM and SIGINT alike ask the process to drain; a second signal ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled when the process is asked to stop.
///
/// # Errors
/// The operating system refuses to install a signal handler.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        either(&mut signals).await;
        tracing::info!("asked to stop: draining");
        asked.cancel();
        either(&mut signals).await;
        tracing::warn!("asked to stop twice: ending at once");
        std::process::exit(130);
    });
    Ok(stop)
}

async fn either([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
