//! The machine and the servers that the figures were measured on.

use anyhow::Context;
use coupon_core::mysql::Mysql;
use coupon_core::settings::RedisSettings;
use deadpool_redis::redis::{self, InfoDict};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The servers' versions.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Servers {
    pub mysql: String,
    pub redis: String,
    pub rabbitmq: String,
}

impl Servers {
    /// Asks the servers for their versions, except RabbitMQ, which does not report its own to clients.
    pub async fn ask(mysql: &Mysql, settings: &RedisSettings, rabbitmq: &str) -> anyhow::Result<Self> {
        let version = mysql.run(async |mut conn: Conn| Ok(conn.query_first("SELECT VERSION()").await?)).await?;
        let mut connection = coupon_core::redis::connect(settings)?;
        let info = redis::cmd("INFO").arg("server").query_async::<InfoDict>(&mut connection).await;
        let info = info.map_err(coupon_core::Error::from).with_context(|| settings.redis_url.to_string())?;
        Ok(Self {
            mysql: version.unwrap_or_default(),
            redis: info.get("redis_version").unwrap_or_default(),
            rabbitmq: rabbitmq.to_owned(),
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
