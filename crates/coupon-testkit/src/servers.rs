//! The real servers that tests run against: those of `scripts/services up`, unless the services' own variables name
//! others.

use std::ffi::OsString;

use clap::Parser;
use coupon_core::rabbitmq;
use coupon_core::settings::{AmqpSettings, MysqlSettings, RedisSettings, ServerUrl, try_parse_from};
use deadpool_redis::redis::AsyncCommands;

/// The addresses of the servers.
#[derive(Clone, Debug, Parser)]
pub struct Servers {
    /// MySQL or MariaDB.
    #[command(flatten)]
    pub mysql: MysqlSettings,
    /// Redis.
    #[command(flatten)]
    pub redis: RedisSettings,
    /// RabbitMQ.
    #[command(flatten)]
    pub amqp: AmqpSettings,
}

impl Servers {
    /// Reads the addresses of the servers from the environment.
    ///
    /// # Panics
    /// The environment names no servers.
    #[must_use]
    pub fn from_environment() -> Self {
        try_parse_from(&["test", "--mysql-connections=8"].map(OsString::from))
            .unwrap_or_else(|refusal| panic!("the environment names no servers: {refusal:?}"))
    }

    /// Checks that all servers answer. If one is missing, fails with a message that says what to do.
    ///
    /// # Panics
    /// A server does not answer.
    pub async fn check(&self) {
        self.must_answer("").await;
    }

    /// Like [`Self::check`], but for the spare servers.
    ///
    /// # Panics
    /// A server does not answer.
    pub async fn check_spare(&self) {
        self.must_answer("--spare ").await;
    }

    async fn must_answer(&self, which: &str) {
        let (mysql, redis, amqp) = (&self.mysql.mysql_url, &self.redis.redis_url, &self.amqp.amqp_url);
        // Without its database, because each test creates its own.
        let url = mysql.with_path("");
        let connected = async { mysql_async::Conn::from_url(url.reveal()).await?.disconnect().await };
        must_answer(which, "mysql", mysql, connected.await);

        let connected =
            async { coupon_core::redis::connect(&self.redis)?.ping::<()>().await.map_err(coupon_core::Error::from) };
        must_answer(which, "redis", redis, connected.await);

        let connected = async {
            let connection = rabbitmq::connect(&self.amqp, "coupon-testkit").await?;
            connection.close(200, "checked".into()).await.map_err(coupon_core::Error::from)
        };
        must_answer(which, "rabbitmq", amqp, connected.await);
    }
}

fn must_answer<E: std::fmt::Display>(which: &str, server: &str, url: &ServerUrl, answer: Result<(), E>) {
    if let Err(error) = answer {
        panic!("{server} does not answer at {url} ({error}); start it with: scripts/services up {which}{server}");
    }
}
