//! Stopping: SIGTERM and SIGINT alike ask a service to drain; a second signal ends it at once. A command has nothing to
//! drain: the first ends it, also as process 1 of a container, where the kernel would keep a signal without a handler to
//! itself.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::terminal;

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

/// Runs a command to its end, or until the process is asked to stop. What a server was asked to do then ends there.
pub async fn unless_stopped(command: impl Future<Output = ExitCode>) -> ExitCode {
    // As a shell tells of a process that a signal has ended.
    const BY_SIGINT: u8 = 130;
    const BY_SIGTERM: u8 = 143;

    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return command.await;
    };
    let (code, name) = tokio::select! {
        code = command => return code,
        _ = interrupt.recv() => (BY_SIGINT, "SIGINT"),
        _ = terminate.recv() => (BY_SIGTERM, "SIGTERM"),
    };
    terminal::error(&format!("stopped by {name}"));
    ExitCode::from(code)
}

async fn either([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
