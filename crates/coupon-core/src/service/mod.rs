//! The life of a service: log, start, run until asked to stop, drain within a deadline, send the last spans. And the
//! health check of a running service, which the program makes itself, because the image it is shipped in holds no other
//! program.

mod runtime;
pub mod shutdown;

pub use runtime::ensure_open_files;

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::{ProcessCommand, ProcessSettings, Refusal, TlsSettings, end, try_parse};
use crate::telemetry::{self, SpanSettings};
use crate::terminal;

/// How long a service may take to accept a health check, and again to answer it. It answers at once, except before its
/// first checks of its servers have ended.
const HEALTH_DEADLINE: Duration = Duration::from_secs(3);

/// The most bytes read of the answer to a health check.
const HEALTH_ANSWER_MAX: u64 = 16 * 1024;

/// Characters that are shown of an answer that is not HTTP.
const ANSWER_SHOWN: usize = 80;

/// The words before its address in the line that a service logs once it listens.
///
/// They are a contract with anyone who starts a service on port 0, because only this line shows the port that the
/// system chose. Three readers rely on it: `coupon-bench` and the tests through [`Listening::in_line`], and
/// `scripts/demo` by these very words.
pub const LISTENING: &str = "listening on http://";

/// The same for a service whose clients speak TLS.
const LISTENING_OVER_TLS: &str = "listening on https://";

/// Where a service listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The address for clients.
    pub address: SocketAddr,
    /// The address for health and metrics.
    pub admin: SocketAddr,
}

impl Listening {
    /// Reads the log line that says so, in text or JSON; `None` if the line says anything else.
    #[must_use]
    pub fn in_line(line: &str) -> Option<Self> {
        let (_, address) = [LISTENING, LISTENING_OVER_TLS].iter().find_map(|words| line.split_once(words))?;
        let (_, admin) = line.split_once("admin")?.1.split_once("http://")?;
        let address_at = |text: &str| text.split([' ', '"']).next()?.parse().ok();
        Some(Self { address: address_at(address)?, admin: address_at(admin)? })
    }
}

/// A service that has started.
pub struct Running {
    /// Where it listens, with the port that the system chose if the setting was port 0.
    pub address: SocketAddr,
    /// Whether clients speak TLS there.
    pub over_tls: bool,
    /// Where it serves its health and metrics.
    pub admin: SocketAddr,
    /// How long it may take to stop.
    pub stops_within: Duration,
    /// Ends when the service has drained, or failed.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// Reads a program's settings and those of its spans, or ends the program as [`end`] does. `check` finds values that
/// are valid one by one but do not fit together.
#[must_use]
pub fn settings<T: CommandFactory + FromArgMatches>(
    check: impl FnOnce(&T) -> Result<(), String>,
) -> (T, Option<SpanSettings>) {
    let read = match (try_parse(check), telemetry::span_settings()) {
        (Ok(settings), Ok(spans)) => return (settings, spans),
        (Err(Refusal::Wrong(lines)), Err(more)) => Refusal::Wrong([lines, more].concat()),
        (Err(refusal), _) => refusal,
        (Ok(_), Err(lines)) => Refusal::Wrong(lines),
    };
    end(&read)
}

/// Everything that the `main` of a service of this name does after its settings are read. Exit codes: 0 after a
/// requested stop, 1 after a failure, which is reported in one line.
#[must_use]
pub fn main<F>(
    service: &'static str,
    settings: &ProcessSettings,
    admin_listen: SocketAddr,
    spans: Option<SpanSettings>,
    start: impl FnOnce(CancellationToken) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<Running>>,
{
    telemetry::logs::start(settings);
    let outcome = match settings.command {
        Some(ProcessCommand::CheckHealth) => check_health(admin_listen),
        None => serve(service, spans, &settings.tls, start),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve<F>(
    service: &'static str,
    spans: Option<SpanSettings>,
    tls: &TlsSettings,
    start: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Running>>,
{
    let runtime = runtime::runtime()?;
    let telemetry = {
        let _inside = runtime.enter();
        telemetry::start(service, spans, tls)
    };
    let outcome = runtime.block_on(run(start));
    telemetry.stop();
    // Whatever still runs after the drain has had its time.
    runtime::leave(runtime);
    outcome
}

async fn run<F>(start: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Running>>,
{
    let stop = shutdown::on_signal()?;
    let Running { address, over_tls, admin, stops_within, mut task } = tokio::select! {
        started = start(stop.clone()) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    if !over_tls {
        shutdown::on_hangup(&stop)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let listening = if over_tls { LISTENING_OVER_TLS } else { LISTENING };
    tracing::info!(version, admin = format_args!("http://{admin}"), "{listening}{address}");
    tokio::select! {
        ended = &mut task => return ended?,
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(stops_within, task).await {
        Ok(ended) => ended?,
        Err(_) => anyhow::bail!("work in hand did not finish within {stops_within:?}"),
    }
}

/// Asks the service at this address for its health. Linux takes the address 0.0.0.0 for this machine.
fn check_health(admin: SocketAddr) -> anyhow::Result<()> {
    anyhow::ensure!(
        admin.port() != 0,
        "--admin-listen (ADMIN_LISTEN) has the port 0, for which the service took a free one: give the address that its \
         log names after admin="
    );
    let answer = ask_health(admin).with_context(|| format!("no answer from http://{admin}/readyz"))?;
    let answer = String::from_utf8_lossy(&answer);
    anyhow::ensure!(
        !answer.is_empty(),
        "what listens on {admin} does not speak HTTP: it closed the connection without an answer"
    );
    let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/1.")) else {
        let answer = terminal::printable(&terminal::shortened(&answer, ANSWER_SHOWN));
        anyhow::bail!("what listens on {admin} does not speak HTTP: it answered \"{answer}\"");
    };
    let status_line = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status_line.split(' ').nth(1) == Some("200"), "not ready: {status_line}: {body}");
    Ok(())
}

fn ask_health(admin: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&admin, HEALTH_DEADLINE)?;
    stream.set_read_timeout(Some(HEALTH_DEADLINE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    match stream.take(HEALTH_ANSWER_MAX).read_to_end(&mut answer) {
        // A server of another kind may greet and then wait.
        Err(_) if !answer.is_empty() => Ok(answer),
        // This is how the system reports that a read has timed out.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(std::io::Error::new(ErrorKind::TimedOut, format!("it said nothing within {HEALTH_DEADLINE:?}")))
        }
        read => read.map(|_| answer),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn where_a_service_listens_is_read_from_text_and_json() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let admin = SocketAddr::from(([0; 16], 9000));
        let text = format!(r#"2026-11-28T12:00:00Z  INFO {LISTENING}{address} version="0.1.0" admin=http://{admin}"#);
        let json = format!(r#"{{"level":"INFO","message":"{LISTENING}{address}","admin":"http://{admin}"}}"#);

        assert_eq!(Listening::in_line(&text), Some(Listening { address, admin }));
        assert_eq!(Listening::in_line(&json), Some(Listening { address, admin }));
        let over_tls = text.replace(LISTENING, LISTENING_OVER_TLS);
        assert_eq!(Listening::in_line(&over_tls), Some(Listening { address, admin }));
        assert_eq!(Listening::in_line("2026-11-28T12:00:00Z  INFO connected"), None);
    }

    #[test]
    fn the_demo_reads_the_line_that_a_service_logs() {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/demo");

        assert!(std::fs::read_to_string(demo).unwrap().contains(LISTENING));
    }

    /// Answers one health check with these words.
    fn answering(words: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(words.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn health_is_what_the_service_says() {
        assert!(check_health(answering("HTTP/1.1 200 OK\r\n\r\n{}")).is_ok());

        let error = check_health(answering("HTTP/1.1 503 Service Unavailable\r\n\r\nmysql is down")).unwrap_err();
        assert_eq!(error.to_string(), "not ready: HTTP/1.1 503 Service Unavailable: mysql is down");
    }

    #[test]
    fn what_is_no_http_is_told_with_what_it_said() {
        let error = check_health(answering("\0J\0\0\u{1}Host is not allowed\r\n\r\n")).unwrap_err().to_string();

        assert!(error.contains("does not speak HTTP") && error.contains("Host is not allowed"), "{error}");
        let error = check_health(answering("")).unwrap_err().to_string();
        assert!(error.contains("does not speak HTTP") && error.contains("without an answer"), "{error}");
    }

    #[test]
    fn a_port_that_the_system_chose_must_be_named() {
        let error = check_health(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap_err().to_string();

        assert!(error.contains("--admin-listen (ADMIN_LISTEN) has the port 0"), "{error}");
    }

    #[test]
    fn a_service_that_is_not_there_is_not_ready() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

        let error = check_health(free).unwrap_err();

        assert!(error.to_string().contains(&free.to_string()), "{error:#}");
    }
}
