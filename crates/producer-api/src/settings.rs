//! The settings of producer-api.

use std::net::SocketAddr;

use clap::Parser;
use coupon_core::api::auth::AuthSettings;
use coupon_core::api::rate_limit::RateSettings;
use coupon_core::api::serve::HttpSettings;
use coupon_core::settings::{
    AmqpSettings, MysqlSettings, NamespaceSettings, ProcessSettings, RedisSettings, listen_address,
};

/// Takes claims for coupons over HTTP and puts them on RabbitMQ; queue-consumer issues the coupons.
///
/// Every setting is a flag or an environment variable. The defaults connect to the servers that `scripts/services up`
/// or `docker compose up -d mysql redis rabbitmq` start.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Example:\n  producer-api --listen 0.0.0.0:8080 --auth trusted-header --auth-header x-account-id --amqp-url amqp://coupon:secret@mq:5672/%2f\n  producer-api --auth jwt --auth-jwks-url https://issuer.example/jwks.json --auth-issuer https://issuer.example --auth-audience coupons"
)]
pub struct Settings {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Address and port of a second listener for /livez, /readyz and /metrics, which claims cannot fill; port 0 takes a
    /// free one.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS", value_parser = listen_address, default_value = "127.0.0.1:8090")]
    pub admin_listen: SocketAddr,

    /// HTTP.
    #[command(flatten)]
    pub http: HttpSettings,

    /// Who may claim and read.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// Limits against bots.
    #[command(flatten)]
    pub rate: RateSettings,

    /// Most claims in one message; 1 = a message for each claim. A message takes the waiting claims and never waits to
    /// fill up.
    #[arg(long, env = "CLAIMS_PER_MESSAGE", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500), default_value_t = 100)]
    pub claims_per_message: u16,

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
