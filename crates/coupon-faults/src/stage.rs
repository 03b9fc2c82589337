//! Everything that a run can break: the servers, the programs, and a proxy on every link between two of them.
//!
//! Invariant: programs and clients reach everything through the proxies; the run itself prepares, restocks and checks
//! without them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use coupon_core::mysql::connect;
use coupon_core::redis::keys;
use coupon_testkit::{Proxy, Servers, TestSpace};
use deadpool_redis::redis::Cmd;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use reqwest::Client;
use tokio::time::Duration;

use crate::programs::Program;
use crate::schedule::{INSTANCES, SERVERS};
use crate::servers::Server;

/// The deadline of the run's own statements.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(3);

/// How often a command to Redis is tried, and the pause in between.
const COMMAND_ATTEMPTS: u32 = 20;
const COMMAND_PAUSE: Duration = Duration::from_millis(50);

/// The folders that a run uses.
#[derive(Clone, Debug)]
pub struct Places {
    /// The checkout.
    pub root: PathBuf,
    /// The folder of the programs.
    pub programs: PathBuf,
    /// Where the run writes its logs.
    pub logs: PathBuf,
}

/// Everything that a run can break.
pub struct Stage {
    /// The run's own database, queues and keys.
    pub space: Arc<TestSpace>,
    /// The programs, in the order of [`INSTANCES`].
    pub programs: Vec<Program>,
    servers: Vec<Server>,
    /// The proxies of each link, by the link's name.
    links: BTreeMap<String, Vec<Proxy>>,
    /// Where clients reach each program; empty for consumers.
    pub addresses: Vec<String>,
}

impl Stage {
    /// Starts the programs on servers that are up.
    pub async fn set(space: Arc<TestSpace>, places: &Places) -> anyhow::Result<Self> {
        let http = Client::builder().tls_certs_only([]).build()?;
        let mut links = BTreeMap::new();
        let mut programs = Vec::new();
        for name in INSTANCES {
            let program = program_of(name);
            let arguments = arguments(&space, program, &mut links).await;
            let log = places.logs.join(format!("{name}.log"));
            programs.push(Program::new(name, places.programs.join(program), log, http.clone(), arguments));
        }
        let mut addresses = Vec::new();
        for program in &programs {
            if program.name.starts_with("queue-consumer") {
                addresses.push(String::new());
                continue;
            }
            let proxy = Proxy::before(&format!("http://{}", program.address)).await;
            addresses.push(proxy.url().trim_end_matches('/').to_owned());
            links.entry(format!("client/{}", program_of(program.name))).or_insert_with(Vec::new).push(proxy);
        }
        let servers = SERVERS.iter().map(|name| Server::new(name, places.root.clone(), places.logs.clone())).collect();
        for program in &programs {
            program.start().await?;
        }
        Ok(Self { space, programs, servers, links, addresses })
    }

    /// A program by its name.
    pub fn program(&self, name: &str) -> anyhow::Result<&Program> {
        self.programs.iter().find(|program| program.name == name).with_context(|| format!("no program {name}"))
    }

    /// A server by its name.
    pub fn server(&self, name: &str) -> anyhow::Result<&Server> {
        self.servers.iter().find(|server| server.name == name).with_context(|| format!("no server {name}"))
    }

    /// All servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The proxies of a link by its name.
    pub fn link(&self, name: &str) -> anyhow::Result<&[Proxy]> {
        Ok(self.links.get(name).with_context(|| format!("no link {name}"))?)
    }

    /// Opens a connection for the run's own statements, as a user for whom MySQL always keeps a connection free.
    pub async fn mysql(&self) -> anyhow::Result<Conn> {
        let mysql = &self.space.servers().mysql;
        let options = coupon_core::mysql::reach(&mysql.mysql_url, &mysql.tls);
        Ok(connect(options, STATEMENT_DEADLINE).await?)
    }

    /// Runs the run's own statements.
    pub async fn sql(&self, statements: &[&str]) -> anyhow::Result<()> {
        let mut conn = self.mysql().await?;
        for statement in statements {
            tokio::time::timeout(STATEMENT_DEADLINE, conn.query_drop(*statement)).await??;
        }
        Ok(conn.disconnect().await?)
    }

    /// Sends a command to Redis. Retries, because the first command after a restart may find its connection closed.
    pub async fn redis(&self, command: &Cmd) -> anyhow::Result<()> {
        let mut left = COMMAND_ATTEMPTS;
        loop {
            left -= 1;
            match command.exec_async(&mut self.space.redis()).await {
                Err(_) if left > 0 => tokio::time::sleep(COMMAND_PAUSE).await,
                told => return told.context("a command to Redis"),
            }
        }
    }

    /// The names in Redis of every lock on refills, or of every list of free ids.
    pub fn keys_of(&self, campaigns: impl Iterator<Item = u64>, what: Names) -> Vec<String> {
        let installation = self.space.installation();
        let name = |campaign| match what {
            Names::Locks => keys::refill_lock(installation, coupon_core::CampaignId(campaign)),
            Names::Lists => keys::free_coupons(installation, coupon_core::CampaignId(campaign)),
        };
        campaigns.map(name).collect()
    }
}

/// The kinds of names in Redis.
#[derive(Clone, Copy, Debug)]
pub enum Names {
    /// Locks on refills.
    Locks,
    /// Lists of free ids.
    Lists,
}

/// The program of an instance: its name without the number.
#[must_use]
pub fn program_of(instance: &str) -> &str {
    instance.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')
}

/// The settings of a program: its servers through the proxies, as its own user, and nothing that depends on the machine.
async fn arguments(space: &TestSpace, program: &str, links: &mut BTreeMap<String, Vec<Proxy>>) -> Vec<String> {
    let Servers { mysql, redis, amqp } = space.servers_of(program);
    let mut arguments = vec![String::from("--mysql-connections=8")];
    let mut servers = vec![("mysql", mysql.mysql_url.reveal().to_owned())];
    if program != "skiplock-api" {
        servers.push(("redis", redis.redis_url.reveal().to_owned()));
        servers.push(("rabbitmq", amqp.amqp_url.reveal().to_owned()));
        arguments.push(format!("--amqp-management-url={}", amqp.amqp_management_url.reveal()));
        arguments.push(format!("--namespace={}", space.name()));
    }
    for (server, url) in servers {
        let link = format!("{program}/{server}");
        // Both instances of a program share its proxies: a network failure hits all of them.
        if !links.contains_key(&link) {
            links.insert(link.clone(), vec![Proxy::before(&url).await]);
        }
        let url = links.get(&link).and_then(|proxies| proxies.first()).map(Proxy::url).unwrap_or_default();
        let flag = if server == "rabbitmq" { "amqp" } else { server };
        arguments.push(format!("--{flag}-url={url}"));
    }
    if program != "queue-consumer" {
        // Clients may claim for one account as often as they like, and no load balancer needs time to notice a stop.
        arguments.extend(["--http-workers=1", "--claims-per-account=0", "--drain-delay=0s"].map(String::from));
    }
    arguments
}

/// Creates the folder of the logs, empty.
pub fn empty_folder(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
