//! Where the servers are, and the names that we keep on them.

use clap::Args;
use coupon_core::settings::{AmqpSettings, MysqlSettings, NamespaceSettings, RedisSettings};

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
