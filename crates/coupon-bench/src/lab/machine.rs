//! What the figures were measured on: the machine and the servers.

use anyhow::Context;
use coupon_core::mysql::Mysql;
use coupon_core::settings::RedisSettings;
use deadpool_redis::redis::{self, InfoDict};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;

/// The servers' versions.
#[derive(Debug, Serialize)]
pub struct Servers {
    mysql: String,
    redis: String,
    rabbitmq: String,
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
#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    system: &'static str,
    architecture: &'static str,
}

impl Machine {
    pub fn this() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
        }
    }
}
