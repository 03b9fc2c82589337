//! The services under measurement, as programs beside this one: started with the settings of a run, ended with it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coupon_core::process::Listening;
use coupon_core::terminal;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use url::Url;

use crate::client::{Client, Target};

/// A service connects to its servers within this.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often a service is asked whether it is ready: it remembers that it is not for 100 ms.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A service that runs for as long as this is held.
pub struct Service {
    process: Child,
    pub program: String,
    /// From its start to its first answer that it is ready.
    pub ready_in: Duration,
    /// Where it listens.
    pub url: Url,
}

impl Service {
    /// Starts a program of this workspace with variables of its own on top of the environment, on a free port.
    pub async fn start(program: &str, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let path = std::env::current_exe()?.with_file_name(program);
        let mut process = Command::new(&path)
            .envs([("LISTEN", "127.0.0.1:0"), ("ADMIN_LISTEN", "127.0.0.1:0"), ("LOG", "info"), ("LOG_FORMAT", "text")])
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}: build it with cargo build --release --bins", path.display()))?;
        let log = process.stderr.take().context("the log of a service")?;
        let mut log = BufReader::new(log).lines();
        let listening = tokio::time::timeout(START_DEADLINE, async {
            let mut last = String::new();
            while let Some(line) = log.next_line().await? {
                if let Some(Listening { address, .. }) = Listening::in_line(&line) {
                    return Ok(Url::parse(&format!("http://{address}"))?);
                }
                last = line;
            }
            bail!("{program} did not start: {last}")
        });
        let url = listening.await.with_context(|| format!("{program} does not listen"))??;
        tokio::spawn(pass_on_errors(program.to_owned(), log));
        let mut service = Self { process, program: program.to_owned(), ready_in: Duration::ZERO, url };
        while service.get("/readyz").await?.0 != StatusCode::OK {
            anyhow::ensure!(began.elapsed() < START_DEADLINE, "{program} does not get ready");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        service.ready_in = began.elapsed();
        Ok(service)
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// One of its metrics, summed over the lines that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let (_, body) = self.get("/metrics").await?;
        let text = String::from_utf8_lossy(&body);
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        Client::new(Target::new(&self.url)?).send(Method::GET, path, String::new(), None).await
    }
}

/// Empties the pipe of a log, which would stop its service once it is full.
async fn pass_on_errors(program: String, mut log: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = log.next_line().await {
        if line.contains(" ERROR ") {
            terminal::note(&format!("{program}: {line}"));
        }
    }
}

/// All services of one way.
pub struct Stand {
    /// The API first.
    pub services: Vec<Service>,
}

impl Stand {
    /// Starts a way: its API first, then the consumers it needs.
    pub async fn start(way: &str, consumers: usize, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let api = if way == "queue" { "producer-api" } else { "skiplock-api" };
        let mut services = vec![Service::start(api, environment).await?];
        if way == "queue" {
            for _ in 0..consumers {
                services.push(Service::start("queue-consumer", environment).await?);
            }
        }
        Ok(Self { services })
    }

    /// Where its API is.
    pub fn api(&self) -> anyhow::Result<&Url> {
        Ok(&self.services.first().context("a way has an API")?.url)
    }

    /// One of the metrics of its API, summed over all labels.
    pub async fn api_metric(&self, name: &str) -> anyhow::Result<f64> {
        self.services.first().context("a way has an API")?.metric(name, "").await
    }
}
