//! A user for each program on each server, with exactly the rights that `deploy/` gives it: a service in a test can do
//! what it can do in production, and no more. The test itself sets up and inspects as the user that the environment
//! names.
//!
//! Invariant: users that `scripts/services` has not created are created here, if the environment's user may do so;
//! otherwise the programs run as that user, and a message says so once.

use std::fmt::Display;
use std::io::Write as _;

use coupon_core::rabbitmq;
use coupon_core::settings::{AmqpSettings, MysqlSettings, RedisSettings, ServerUrl};
use deadpool_redis::redis::{self, AsyncCommands};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use crate::servers::Servers;

/// The password of each user, as `scripts/services` sets it.
const PASSWORD: &str = "for-tests-only";

const MYSQL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/mysql/rights.sql");
const REDIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/redis/users.acl");
const RABBITMQ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rabbitmq/users.json");

/// The servers that have the users.
#[derive(Debug)]
pub struct Users {
    /// The host part of the users' names in MySQL; none if MySQL lacks the users.
    mysql_host: Option<String>,
    in_redis: bool,
    in_rabbitmq: bool,
}

impl Users {
    /// The users on these servers, determined once per process.
    pub async fn on(servers: &Servers) -> &'static Self {
        static USERS: OnceCell<Users> = OnceCell::const_new();

        USERS
            .get_or_init(async || Self {
                mysql_host: known("MySQL", mysql_host(&without_database(&servers.mysql)).await),
                in_redis: known("Redis", in_redis(&servers.redis).await).is_some(),
                in_rabbitmq: known("RabbitMQ", in_rabbitmq(&servers.amqp).await).is_some(),
            })
            .await
    }

    /// Grants every program its rights in a database whose tables exist.
    pub async fn grant(&self, conn: &mut Conn, database: &str) {
        for statement in self.grants(database) {
            conn.query_drop(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// Revokes these rights, because they would outlive the database.
    pub async fn revoke(&self, conn: &mut Conn, database: &str) {
        for statement in self.grants(database) {
            let statement = statement.replacen("GRANT", "REVOKE", 1).replacen(" TO ", " FROM ", 1);
            // Ignores errors, because a killed run may not have granted all of them.
            let _ = conn.query_drop(statement).await;
        }
    }

    fn grants(&self, database: &str) -> Vec<String> {
        let Some(host) = &self.mysql_host else { return Vec::new() };
        statements(MYSQL, &[("{database}", database), ("{host}", host)])
            .into_iter()
            .filter(|statement| statement.starts_with("GRANT"))
            .collect()
    }

    /// The address of MySQL for a program.
    pub fn mysql(&self, program: &str, url: &ServerUrl) -> ServerUrl {
        as_user(self.mysql_host.is_some(), program, url)
    }

    /// The address of Redis for a program.
    pub fn redis(&self, program: &str, url: &ServerUrl) -> ServerUrl {
        as_user(self.in_redis, program, url)
    }

    /// The address of RabbitMQ for a program.
    pub fn amqp(&self, program: &str, url: &ServerUrl) -> ServerUrl {
        as_user(self.in_rabbitmq, program, url)
    }
}

fn as_user(is_known: bool, program: &str, url: &ServerUrl) -> ServerUrl {
    if is_known { url.with_user(program, PASSWORD) } else { url.clone() }
}

fn known<T, E: Display>(server: &str, users: Result<T, E>) -> Option<T> {
    if let Err(error) = &users {
        // Written without a macro, because the test harness would capture the output of one.
        let _ = writeln!(
            std::io::stderr(),
            "{server} has no user for each program, so all of them run as the user of the tests ({error}); see docs/RIGHTS.md"
        );
    }
    users.ok()
}

/// The statements in a file of `deploy/`, one per line.
fn statements(file: &str, values: &[(&str, &str)]) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let text =
        values.iter().fold(text, |text, (name, value)| text.replace(name, value)).replace("{password}", PASSWORD);
    let is_statement = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with('#');
    text.lines().filter(is_statement).map(|line| line.trim_end_matches(';').to_owned()).collect()
}

fn without_database(settings: &MysqlSettings) -> MysqlSettings {
    MysqlSettings { mysql_url: settings.mysql_url.with_path(""), ..settings.clone() }
}

async fn mysql_host(settings: &MysqlSettings) -> Result<String, mysql_async::Error> {
    let connect = async |url: &ServerUrl| Conn::new(coupon_core::mysql::reach(url, &settings.tls)).await;
    let url = &settings.mysql_url;
    let mut conn = connect(url).await?;
    let own: Vec<String> = conn.query("SHOW GRANTS").await?;
    if !own.iter().any(|grant| grant.contains(" ON *.* ") && grant.contains("GRANT OPTION")) {
        return Err(mysql_async::Error::Other("its user there may not grant rights".into()));
    }
    let program_url = url.with_user("producer-api", PASSWORD);
    if connect(&program_url).await.is_err() {
        for statement in statements(MYSQL, &[("{host}", "%")]).iter().filter(|text| text.starts_with("CREATE USER")) {
            conn.query_drop(statement).await?;
        }
    }
    let mut program = connect(&program_url).await?;
    let user: Option<String> = program.query_first("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    program.disconnect().await?;
    conn.disconnect().await?;
    Ok(user.rsplit('@').next().unwrap_or_default().to_owned())
}

async fn in_redis(settings: &RedisSettings) -> Result<(), coupon_core::Error> {
    let as_program =
        RedisSettings { redis_url: settings.redis_url.with_user("producer-api", PASSWORD), ..settings.clone() };
    if coupon_core::redis::connect(&as_program)?.ping::<()>().await.is_ok() {
        return Ok(());
    }
    let mut own = coupon_core::redis::connect(settings)?;
    for statement in statements(REDIS, &[("{namespace}", "coupon_test_*")]) {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg(statement.split_whitespace().skip(1).collect::<Vec<_>>());
        set.query_async::<()>(&mut own).await?;
    }
    Ok(())
}

async fn in_rabbitmq(settings: &AmqpSettings) -> Result<(), coupon_core::Error> {
    let as_program =
        AmqpSettings { amqp_url: settings.amqp_url.with_user("producer-api", PASSWORD), ..settings.clone() };
    let connect = async || -> Result<(), coupon_core::Error> {
        let connection = rabbitmq::connect(&as_program, "coupon-testkit").await?;
        Ok(connection.close(200, "seen".into()).await?)
    };
    if connect().await.is_ok() {
        return Ok(());
    }
    if let Some(definitions) = settings.amqp_management_url.below(&["api", "definitions"]) {
        let vhost = format!("\"{}\"", settings.amqp_url.vhost());
        let values = [("{namespace}", "coupon_test_[^.]*"), ("\"/\"", vhost.as_str())];
        let (user, password) = settings.amqp_url.credentials();
        let request = crate::api::http(None).post(definitions).basic_auth(user, Some(password.expose_secret()));
        let request = request.header("content-type", "application/json").body(statements(RABBITMQ, &values).concat());
        request.send().await?.error_for_status()?;
    }
    connect().await
}
