//! The settings of queue-consumer.

use std::net::SocketAddr;

use clap::Parser;
use coupon_core::settings::{
    AmqpSettings, MysqlSettings, NamespaceSettings, ProcessSettings, RedisSettings, listen_address,
};

/// Takes claims from RabbitMQ and issues coupons. Any number of consumers share the work.
///
/// Every setting is a flag or an environment variable. The defaults connect to the servers that `scripts/services up`
/// or `docker compose up -d mysql redis rabbitmq` start.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = "Example:\n  queue-consumer --batch-max 500 --admin-listen 127.0.0.1:0")]
pub struct Settings {
    /// Address and port of /livez, /readyz and /metrics; port 0 takes a free one, for several consumers on one machine.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,

    /// Messages are taken together until they hold this many claims; 1 = one message at a time. A batch takes the
    /// messages that have arrived and never waits to fill up.
    #[arg(long, env = "BATCH_MAX", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000), default_value_t = 500)]
    pub batch_max: u16,

    /// Messages the broker sends ahead. While a consumer is stalled, later claims that other consumers take overtake
    /// the claims in them.
    #[arg(long, env = "PREFETCH", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000), default_value_t = 20)]
    pub prefetch: u16,

    /// Ids of free coupons put into Redis in one refill.
    #[arg(long, env = "REFILL_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value_t = 10_000)]
    pub refill_max: u32,

    /// MySQL.
    #[command(flatten)]
    pub mysql: MysqlSettings,

    /// Redis.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// RabbitMQ.
    #[command(flatten)]
    pub amqp: AmqpSettings,

    /// Several installations on the same servers.
    #[command(flatten)]
    pub namespace: NamespaceSettings,

    /// Logs and stopping.
    #[command(flatten)]
    pub process: ProcessSettings,
}
