//! Stopping: SIGTERM and SIGINT alike ask a service to drain; another one, more than a second later, ends it at once. A
//! command has nothing to drain: the first signal ends it, also as process 1 of a container, to which the kernel would
//! not deliver a signal without a handler.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::runtime::{leave, runtime};
use crate::error::Error;
use crate::terminal;

/// The codes with which a shell reports a process that a signal has ended.
const BY_SIGHUP: u8 = 129;
const BY_SIGINT: u8 = 130;
const BY_SIGTERM: u8 = 143;

/// Signals within this time count as one: a supervisor may signal a process, and then its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Returns a token that is cancelled when the process is asked to stop.
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
        let again_from = Instant::now() + SAME_SIGNAL;
        let mut code = either(&mut signals).await;
        while Instant::now() < again_from {
            code = either(&mut signals).await;
        }
        tracing::warn!("asked to stop twice: ending at once");
        std::process::exit(i32::from(code));
    });
    Ok(stop)
}

/// Stops a service on SIGHUP, which a terminal sends when it is closed: a service with nothing to read again takes it
/// as a request to stop, unless it was started to outlive its terminal.
///
/// # Errors
/// The operating system refuses to install a signal handler.
pub fn on_hangup(stop: &CancellationToken) -> std::io::Result<()> {
    if ignores_sighup() {
        return Ok(());
    }
    let (mut hangup, stop) = (signal(SignalKind::hangup())?, stop.clone());
    tokio::spawn(async move {
        hangup.recv().await;
        tracing::info!("hung up: draining");
        stop.cancel();
    });
    Ok(())
}

/// Everything that the `main` of a command does: runs it to its end, or until the process is asked to stop. Work that a
/// server has already begun then ends on the server. A failure is reported in one line.
pub fn unless_stopped(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    match runtime() {
        Ok(runtime) => {
            let code = runtime.block_on(ended(command));
            leave(runtime);
            code
        }
        Err(error) => failed(&error),
    }
}

/// Reports a failure. If it is a server that could not be used, the line ends with what to do about it.
fn failed(error: &anyhow::Error) -> ExitCode {
    let server = error.downcast_ref::<Error>().filter(|error| error.blames_the_connection());
    let remedy = server.map(|error| format!("; {}", error.remedy())).unwrap_or_default();
    terminal::error(&format!("{error:#}{remedy}"));
    ExitCode::FAILURE
}

async fn ended(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let stopped = |by: &str, code| {
        terminal::error(&format!("stopped by {by}"));
        ExitCode::from(code)
    };
    let (interrupted, terminated) = (signalled(SignalKind::interrupt()), signalled(SignalKind::terminate()));
    let hung_up =
        async { if ignores_sighup() { std::future::pending().await } else { signalled(SignalKind::hangup()).await } };
    tokio::select! {
        ended = command => match ended {
            Ok(code) if code == ExitCode::SUCCESS && !terminal::is_complete() => ExitCode::FAILURE,
            Ok(code) => code,
            Err(error) => failed(&error),
        },
        () = hung_up => stopped("SIGHUP", BY_SIGHUP),
        () = interrupted => stopped("SIGINT", BY_SIGINT),
        () = terminated => stopped("SIGTERM", BY_SIGTERM),
    }
}

/// Whether this process was started with SIGHUP ignored, as by nohup, to outlive its terminal.
fn ignores_sighup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is that of the first signal, which is SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}

/// Waits for a signal; forever if no handler can be installed for it.
async fn signalled(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Waits for one of these signals, and returns its code.
async fn either([terminate, interrupt]: &mut [Signal; 2]) -> u8 {
    tokio::select! {
        _ = terminate.recv() => BY_SIGTERM,
        _ = interrupt.recv() => BY_SIGINT,
    }
}
