//! The programs of the system, each in a process of its own, started the way an operator does.
//!
//! Invariants: a program has the same address after each start; a program that ends on its own is recorded, and
//! restarted so that the run can continue.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::Client;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a program may take to listen, even on a busy machine with a server away.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// How long a program may take to stop: its own limit is 20 seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// SIGKILL, which the operating system sends when memory runs out.
const KILLED: i32 = 9;

/// One program.
pub struct Program {
    /// The program's name with its number, as in the schedule.
    pub name: &'static str,
    /// Where clients reach it; consumers have none.
    pub address: SocketAddr,
    admin: SocketAddr,
    path: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    http: Client,
    /// How many starts failed because a server was away, and were repeated.
    pub repeated_starts: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Child>,
    /// Additional settings, changed by a rolling restart.
    own: Vec<String>,
}

/// How a program ended on its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// It ended by itself.
    Itself(String),
    /// The operating system killed it, most likely because memory ran out: the run then proves nothing about the
    /// programs.
    Memory(String),
}

impl Program {
    /// Prepares a program; nothing is started yet.
    #[must_use]
    pub fn new(name: &'static str, path: PathBuf, log: PathBuf, http: Client, arguments: Vec<String>) -> Self {
        let (address, admin) = (free_address(), free_address());
        let has_listener = !name.starts_with("queue-consumer");
        let listen = has_listener.then(|| format!("--listen={address}"));
        let arguments = listen.into_iter().chain([format!("--admin-listen={admin}")]).chain(arguments).collect();
        let (repeated_starts, state) = (AtomicU32::new(0), Mutex::default());
        Self { name, address, admin, path, arguments, log, http, repeated_starts, state }
    }

    /// Starts the program and waits until it listens. While a server is away, a program may refuse to start; it is then
    /// started again, as an orchestrator would.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.start_in(&mut *self.state.lock().await).await
    }

    async fn start_in(&self, state: &mut State) -> anyhow::Result<()> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            let mut process = self.spawn(&state.own)?;
            let ended = loop {
                if let Some(status) = process.try_wait()? {
                    break status;
                }
                if self.get("livez").await.is_ok() {
                    state.process = Some(process);
                    return Ok(());
                }
                ensure!(Instant::now() < end, "{} does not listen within {START_DEADLINE:?}", self.name);
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            ensure!(Instant::now() < end, "{} does not start: {ended}; see {}", self.name, self.log.display());
            self.repeated_starts.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    fn spawn(&self, own: &[String]) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).args(own).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = command.kill_on_drop(true).spawn();
        started.with_context(|| format!("cannot start {}: build it with cargo build --bins", self.path.display()))
    }

    /// Ends the program with SIGKILL.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let mut process = self.state.lock().await.process.take().context("it does not run")?;
        Ok(process.kill().await?)
    }

    /// Ends the program with SIGTERM. It must end in time and with exit code 0.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let mut process = self.state.lock().await.process.take().context("it does not run")?;
        signal(process.id().context("it has ended")?, "TERM").await?;
        let Ok(ended) = tokio::time::timeout(STOP_DEADLINE, process.wait()).await else {
            bail!("{} does not end within {STOP_DEADLINE:?} after SIGTERM", self.name);
        };
        let ended = ended?;
        ensure!(ended.success(), "{} ended after SIGTERM with {ended}", self.name);
        Ok(())
    }

    /// Sends the program a signal that does not end it.
    pub async fn send(&self, name: &str) -> anyhow::Result<()> {
        let state = self.state.lock().await;
        let process = state.process.as_ref().context("it does not run")?;
        signal(process.id().context("it has ended")?, name).await
    }

    /// Stops the program and starts it with other additional settings.
    pub async fn restart_with(&self, own: Vec<String>) -> anyhow::Result<()> {
        self.stop().await?;
        let mut state = self.state.lock().await;
        state.own = own;
        self.start_in(&mut state).await
    }

    /// Checks whether the program has ended on its own; if so, starts it again.
    pub async fn look(&self) -> anyhow::Result<Option<End>> {
        // Another task is starting or ending it right now.
        let Ok(mut state) = self.state.try_lock() else { return Ok(None) };
        let Some(process) = &mut state.process else { return Ok(None) };
        let Some(ended) = process.try_wait()? else { return Ok(None) };
        self.start_in(&mut state).await?;
        Ok(Some(self.end(ended)))
    }

    fn end(&self, ended: ExitStatus) -> End {
        let text = format!("{} ended by itself with {ended}; see {}", self.name, self.log.display());
        if ended.signal() == Some(KILLED) { End::Memory(text) } else { End::Itself(text) }
    }

    /// The program's counters since its start, each summed over its labels; none if it does not answer.
    pub async fn counters(&self, names: [&str; 3]) -> Option<[f64; 3]> {
        let text = self.get("metrics").await.ok()?;
        Some(names.map(|name| {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        }))
    }

    async fn get(&self, path: &str) -> reqwest::Result<String> {
        let url = format!("http://{}/{path}", self.admin);
        self.http.get(url).timeout(Duration::from_secs(1)).send().await?.text().await
    }
}

/// A port that is free now and will be for a while, because the system hands ports out in turn.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Sends a signal to a process.
pub async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await?;
    ensure!(sent.success(), "process {pid} is not there to get SIG{name}");
    Ok(())
}
