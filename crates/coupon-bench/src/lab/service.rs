//! A service under measurement: a program from this program's folder, started with settings of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coupon_core::service::Listening;
use coupon_core::terminal;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use url::Url;

use crate::crowd::client::{Client, Target};

/// A service must be ready within this time.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often a service is asked whether it is ready. It caches a "not ready" for 100 ms.
const ASK_EVERY: Duration = Duration::from_millis(20);

type Log = Lines<BufReader<ChildStderr>>;

/// A service that runs until this is dropped.
pub struct Service {
    process: Child,
    pub program: String,
    /// The time from its start until it first reports ready.
    pub ready_in: Duration,
    /// Where it listens for clients.
    pub url: Url,
    /// Where it reports its health and metrics.
    admin: Target,
}

impl Service {
    /// Starts a program of this workspace on free ports, with these variables added to the environment, and waits until
    /// it is ready.
    pub async fn start(program: &str, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut process = spawn(program, environment)?;
        let log = process.stderr.take().context("the log of a service")?;
        let mut log = BufReader::new(log).lines();
        let listening = tokio::time::timeout(START_DEADLINE, listening(program, &mut log)).await;
        let Listening { address, admin } = listening.with_context(|| format!("{program} does not listen"))??;
        tokio::spawn(pass_on_errors(program.to_owned(), log));
        let url = Url::parse(&format!("http://{address}"))?;
        let admin = Target::new(&Url::parse(&format!("http://{admin}"))?)?;
        let mut service = Self { process, program: program.to_owned(), ready_in: Duration::ZERO, url, admin };
        while service.get("/readyz").await?.0 != StatusCode::OK {
            anyhow::ensure!(began.elapsed() < START_DEADLINE, "{program} does not get ready");
            tokio::time::sleep(ASK_EVERY).await;
        }
        service.ready_in = began.elapsed();
        Ok(service)
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// A metric of the service, summed over the lines that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let (_, body) = self.get("/metrics").await?;
        let text = String::from_utf8_lossy(&body);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        Client::new(self.admin.clone()).send(Method::GET, path, String::new(), []).await
    }
}

fn spawn(program: &str, environment: &[(&str, String)]) -> anyhow::Result<Child> {
    let path = std::env::current_exe()?.with_file_name(program);
    Command::new(&path)
        .envs([("LISTEN", "127.0.0.1:0"), ("ADMIN_LISTEN", "127.0.0.1:0"), ("LOG", "info"), ("LOG_FORMAT", "text")])
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}: build it with cargo build --release --bins", path.display()))
}

/// Reads the log of a starting service until it says where it listens.
async fn listening(program: &str, log: &mut Log) -> anyhow::Result<Listening> {
    let mut last = String::new();
    while let Some(line) = log.next_line().await? {
        if let Some(listening) = Listening::in_line(&line) {
            return Ok(listening);
        }
        last = line;
    }
    bail!("{program} did not start: {last}")
}

/// Drains the pipe of a log, because a full pipe would block the service. Passes errors on.
async fn pass_on_errors(program: String, mut log: Log) {
    while let Ok(Some(line)) = log.next_line().await {
        if line.contains(" ERROR ") {
            terminal::note(&format!("{program}: {line}"));
        }
    }
}
