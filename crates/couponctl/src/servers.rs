//! Where the servers are, and the names that we keep on them.

use anyhow::Context as _;
use clap::Args;
use coupon_core::redis::connect;
use coupon_core::settings::{AmqpSettings, MysqlSettings, NamespaceSettings, RedisSettings};
use deadpool_redis::redis;

#[derive(Args, Debug)]
pub struct Servers {
    #[command(flatten)]
    pub mysql: MysqlSettings,

    #[command(flatten)]
    pub redis: RedisSettings,

    #[command(flatten)]
    pub amqp: AmqpSettings,

    #[command(flatten)]
    pub namespace: NamespaceSettings,
}

impl Servers {
    /// Fails where Redis is away, for commands that could not go on without it halfway.
    pub async fn reach_redis(&self) -> anyhow::Result<()> {
        let asked =
            async { Ok::<_, coupon_core::Error>(redis::cmd("PING").exec_async(&mut connect(&self.redis)?).await?) };
        asked.await.with_context(|| self.redis.redis_url.to_string())
    }
}
