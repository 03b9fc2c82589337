//! The addresses of the servers, and the names that we use on them.

use anyhow::Context as _;
use clap::Args;
use coupon_core::Result;
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::redis::connect;
use coupon_core::settings::{AmqpSettings, MysqlSettings, NamespaceSettings, RedisSettings};
use deadpool_redis::redis;
use lapin::types::ShortString;

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
    /// Fails if Redis is away, for commands that could not continue without it halfway through.
    pub async fn reach_redis(&self) -> anyhow::Result<()> {
        let asked =
            async { Ok::<_, coupon_core::Error>(redis::cmd("PING").exec_async(&mut connect(&self.redis)?).await?) };
        asked.await.with_context(|| self.redis.redis_url.to_string())
    }

    /// How many messages wait in one of the queues, if it exists.
    pub async fn message_count(&self, of: impl Fn(Queues) -> ShortString) -> Result<Option<u32>> {
        let connection = rabbitmq::connect(&self.amqp, "couponctl").await?;
        let queue = of(Queues::new(&self.namespace.namespace, &self.amqp));
        let count = rabbitmq::message_count(&connection, &queue).await?;
        let _ = connection.close(200, "done".into()).await;
        Ok(count)
    }
}
