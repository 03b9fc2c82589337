//! What was measured, and the machine and the servers that it was measured on.

use anyhow::Context;
use clap::Args;
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, RedisSettings};
use deadpool_redis::redis::{self, InfoDict};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// What a report notes that this program cannot find out.
#[derive(Args, Clone, Debug)]
pub struct Notes {
    /// What is measured, as a commit or a version, to note in the report.
    #[arg(long, value_name = "TEXT", default_value = env!("CARGO_PKG_VERSION"))]
    pub revision: String,
}

/// Where the figures of a report come from.
#[derive(Debug, Serialize)]
pub struct Provenance {
    revision: String,
    servers: Servers,
    machine: Machine,
}

impl Provenance {
    pub async fn ask(mysql: &Mysql, redis: &RedisSettings, amqp: &AmqpSettings, notes: &Notes) -> anyhow::Result<Self> {
        let servers = Servers::ask(mysql, redis, amqp).await?;
        Ok(Self { revision: notes.revision.clone(), servers, machine: Machine::this() })
    }
}

/// The servers' versions.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Servers {
    pub mysql: String,
    pub redis: String,
    pub rabbitmq: String,
}

impl Servers {
    /// Asks the servers for their versions. Not all that is measured needs RabbitMQ, so it may be away.
    pub async fn ask(mysql: &Mysql, settings: &RedisSettings, amqp: &AmqpSettings) -> anyhow::Result<Self> {
        let version = mysql.run(async |mut conn: Conn| Ok(conn.query_first("SELECT VERSION()").await?)).await?;
        let mut connection = coupon_core::redis::connect(settings)?;
        let info = redis::cmd("INFO").arg("server").query_async::<InfoDict>(&mut connection).await;
        let info = info.map_err(coupon_core::Error::from).with_context(|| settings.redis_url.to_string())?;
        let rabbitmq = coupon_core::rabbitmq::version(amqp).await.ok().flatten();
        Ok(Self {
            mysql: version.unwrap_or_default(),
            redis: info.get("redis_version").unwrap_or_default(),
            rabbitmq: rabbitmq.unwrap_or_else(|| String::from("unknown")),
        })
    }
}

/// The machine that this program runs on.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Machine {
    pub cores: usize,
    /// The processor's brand name.
    pub cpu: String,
    pub memory_gib: u64,
    pub system: String,
    pub architecture: String,
}

impl Machine {
    pub fn this() -> Self {
        let kind = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(kind);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
            memory_gib: system.total_memory() >> 30,
            system: System::long_os_version().unwrap_or_else(|| String::from(std::env::consts::OS)),
            architecture: String::from(std::env::consts::ARCH),
        }
    }
}
