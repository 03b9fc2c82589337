//! The settings of redis-api.

use std::net::SocketAddr;

use clap::Parser;
use coupon_core::api::auth::AuthSettings;
use coupon_core::api::rate_limit::RateSettings;
use coupon_core::api::serve::HttpSettings;
use coupon_core::settings::{MysqlSettings, NamespaceSettings, ProcessSettings, RedisSettings, listen_address};

/// Takes claims for coupons over HTTP, reserves their ids in Redis and issues them in MySQL, as queue-consumer does but
/// with no broker in between. It exists only to be compared with the queue.
///
/// Every setting is a flag or an environment variable. The defaults connect to the servers that `scripts/services up`
/// starts.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = "Example:\n  redis-api --batches 4 --batch-max 200")]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8082")]
    pub listen: SocketAddr,

    /// Address and port of a second listener for /livez, /readyz and /metrics, which claims cannot fill; port 0 takes a
    /// free one.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8092")]
    pub admin_listen: SocketAddr,

    /// Batches of claims that are settled at the same time. A consumer settles one.
    #[arg(long, env = "BATCHES", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = 1)]
    pub batches: u16,

    /// Most claims in a batch. A batch takes the waiting claims and never waits to fill up.
    #[arg(long, env = "BATCH_MAX", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2000), default_value_t = 500)]
    pub batch_max: u16,

    /// Ids of free coupons put into Redis in one refill.
    #[arg(long, env = "REFILL_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value_t = 10_000)]
    pub refill_max: u32,

    /// HTTP.
    #[command(flatten)]
    pub http: HttpSettings,

    /// Who may claim and read.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// Limits against bots.
    #[command(flatten)]
    pub rate: RateSettings,

    /// MySQL.
    #[command(flatten)]
    pub mysql: MysqlSettings,

    /// Redis.
    #[command(flatten)]
    pub redis: RedisSettings,

    /// Several installations on the same servers.
    #[command(flatten)]
    pub namespace: NamespaceSettings,

    /// Logs and stopping.
    #[command(flatten)]
    pub process: ProcessSettings,
}
