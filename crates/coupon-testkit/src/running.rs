//! A service that runs in its own process until a test stops it with a signal.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use coupon_core::service::Listening;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::wait::{DEADLINE, eventually};

/// A command with only the variables that a test gives it.
pub(crate) fn command(program: &str, arguments: &[String], environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A service in its own process, which is killed when this is dropped.
pub struct Running {
    process: Child,
    listening: Listening,
    log: Log,
    reading: JoinHandle<()>,
}

/// The log that a program has written so far; it grows while the program runs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn add(&self, line: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(line);
        text.push('\n');
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Running {
    /// Starts a service and waits until it listens.
    ///
    /// # Panics
    /// The service does not start.
    pub async fn start(program: &str, arguments: &[String], environment: &[(&str, String)]) -> Self {
        // The tests may run under nohup, and so would the service.
        let arguments = [&["--default-signal=HUP", program].map(String::from)[..], arguments].concat();
        let mut process = command("/usr/bin/env", &arguments, environment).spawn().expect("a program");
        let mut lines = BufReader::new(process.stderr.take().expect("standard error")).lines();
        let log = Log::default();
        let written = log.clone();
        let reading = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                written.add(&line);
            }
        });
        let listening = || log.text().lines().find_map(Listening::in_line);
        eventually("the service listens", async || {
            assert!(!reading.is_finished(), "it ended: {}", log.text());
            listening().is_some()
        })
        .await;
        let listening = listening().expect("the line");
        Self { process, listening, log, reading }
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// The address at which it reports its health and metrics.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.listening.admin
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for the line of its log that contains all these words, and returns it. Waits because a line is read a
    /// little after the event that it reports.
    ///
    /// # Panics
    /// No line contains the words, or more than one does.
    pub async fn says_once(&self, words: &[&str]) -> String {
        let lines = || -> Vec<String> {
            let says_it = |line: &&str| words.iter().all(|words| line.contains(words));
            self.log().lines().filter(says_it).map(str::to_owned).collect()
        };
        eventually(&format!("its log has {words:?}"), async || !lines().is_empty()).await;
        let mut lines = lines();
        assert_eq!(lines.len(), 1, "it says it once: {lines:?}");
        lines.remove(0)
    }

    /// Stops it with a signal, such as `TERM`, and returns its exit code.
    ///
    /// # Panics
    /// The service does not end.
    pub async fn stop(&mut self, signal: &str) -> Option<i32> {
        self.stop_by(&[signal]).await
    }

    /// Stops it with several signals in quick succession, and returns its exit code.
    ///
    /// # Panics
    /// The service does not end.
    pub async fn stop_by(&mut self, signals: &[&str]) -> Option<i32> {
        self.send_all(signals).await;
        let ended = tokio::time::timeout(DEADLINE, self.process.wait()).await.expect("it does not end");
        if !self.reading.is_finished() {
            let _ = (&mut self.reading).await;
        }
        ended.expect("its end").code()
    }

    /// Sends it a signal that does not end it, such as `STOP`.
    ///
    /// # Panics
    /// The service has ended.
    pub async fn send(&self, signal: &str) {
        self.send_all(&[signal]).await;
    }

    async fn send_all(&self, signals: &[&str]) {
        let pid = self.process.id().expect("a running program");
        let kills: Vec<String> = signals.iter().map(|signal| format!("kill -{signal} {pid}")).collect();
        let sent = Command::new("sh").args(["-c", &kills.join(" && ")]).status().await;
        assert!(sent.expect("a shell").success());
    }

    /// Closes its log, like a log collector that dies.
    pub async fn close_log(&mut self) {
        self.reading.abort();
        let _ = (&mut self.reading).await;
    }
}
