//! The servers of a run: those of `scripts/services --failures`, which nobody else uses, so they can be killed.
//!
//! Invariants: only the process that the script has recorded is signalled; the log of a server survives its restarts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use crate::programs::signal;

/// How long a killed process may take to disappear.
const GONE_DEADLINE: Duration = Duration::from_secs(10);

/// One server.
pub struct Server {
    /// The server's name, as the script knows it.
    pub name: &'static str,
    /// The checkout.
    root: PathBuf,
    /// Where the logs of a run are kept.
    logs: PathBuf,
    starts: AtomicU32,
}

impl Server {
    /// Prepares to handle a server that is up.
    #[must_use]
    pub fn new(name: &'static str, root: PathBuf, logs: PathBuf) -> Self {
        Self { name, root, logs, starts: AtomicU32::new(0) }
    }

    /// The server's folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(".services/failures").join(self.name)
    }

    /// The id of the server's process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let file = self.folder().with_extension("pid");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{}: did you run `scripts/services --failures up`?", file.display()))?;
        let pid = text.split_whitespace().next().context("a pid")?;
        Ok(pid.parse()?)
    }

    /// Sends the server a signal that does not end it.
    pub async fn send(&self, name: &str) -> anyhow::Result<()> {
        signal(self.pid()?, name).await
    }

    /// Ends the server with SIGKILL, and waits until its process is gone.
    pub async fn kill(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        signal(pid, "KILL").await?;
        let end = Instant::now() + GONE_DEADLINE;
        while std::fs::exists(format!("/proc/{pid}"))? {
            ensure!(Instant::now() < end, "{} is still there {GONE_DEADLINE:?} after SIGKILL", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Starts the server, and waits until it answers.
    pub async fn start(&self) -> anyhow::Result<()> {
        self.keep_log()?;
        let script = self.root.join("scripts/services");
        let ran = Command::new(script).args(["--failures", "up", self.name]).output().await?;
        ensure!(ran.status.success(), "{} does not start: {}", self.name, String::from_utf8_lossy(&ran.stderr));
        Ok(())
    }

    /// Copies the server's log to the logs of the run, because the next start begins a new one.
    pub fn keep_log(&self) -> anyhow::Result<()> {
        let log = self.root.join(".services/failures/log").join(format!("{}.log", self.name));
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        std::fs::copy(log, self.logs.join(format!("{}-{start}.log", self.name)))?;
        Ok(())
    }

    /// Runs `rabbitmqctl` on the server, with the broker's own environment.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.pid()?))?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let variable = |name: &str| environment.split('\0').find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
        let libraries = variable("ERL_LIBS").context("ERL_LIBS of the broker")?;
        let home = libraries.split("/lib/rabbitmq_server").next().unwrap_or_default();
        // The script's own `erl` must come first in the path; the broker's process has another order.
        let path = format!("{}:{}", self.folder().join("bin").display(), variable("PATH").unwrap_or_default());
        let mut command = Command::new(format!("{home}/bin/rabbitmqctl"));
        let variables = environment.split('\0').filter_map(|text| text.split_once('='));
        command.args(arguments).env_clear().envs(variables).env("PATH", path);
        let ran = command.output().await.context("rabbitmqctl")?;
        ensure!(ran.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}
