//! Servers that a test may demote, freeze and configure oddly, which it must never do to the shared ones.
//!
//! Invariants: only one test has them at a time; each test leaves the servers as they were, even if it fails.

use std::panic::{AssertUnwindSafe, resume_unwind};

use coupon_core::mysql::{self, Mysql};
use coupon_core::settings::{AmqpSettings, MysqlSettings, RedisSettings, try_parse_from};
use deadpool_redis::redis;
use futures_util::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use tokio::sync::Mutex;

use crate::servers::Servers;
use crate::space::TestSpace;

/// Statements that restore the defaults of everything a test may change.
const RESET_MYSQL: [&str; 5] = [
    "SET GLOBAL super_read_only = OFF",
    "SET GLOBAL read_only = OFF",
    "SET GLOBAL autocommit = ON",
    "SET GLOBAL transaction_read_only = OFF",
    "SET GLOBAL binlog_format = ROW",
];

/// The command that makes Redis a server of its own again.
const NO_REPLICA: &str = "REPLICAOF NO ONE";

/// The tables of a campaign, without those that only couponctl reads.
const TABLES: [&str; 3] = ["installation", "campaign", "coupon"];

/// Servers other than the shared ones.
pub struct Spare {
    /// Their addresses, with the database of the test.
    servers: Servers,
    mysql: Mysql,
}

/// Runs a test with exclusive use of the spare servers, which have a database with the same name and schema as the
/// test's own.
///
/// # Panics
/// The test panics, or a spare server is missing.
pub async fn with_spare(space: &TestSpace, test: impl AsyncFnOnce(&Spare)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

    let _mine = ONE_AT_A_TIME.lock().await;
    let servers = Spare::new(space).await;
    let outcome = AssertUnwindSafe(Box::pin(test(&servers))).catch_unwind().await;
    let cleaned = AssertUnwindSafe(servers.clean(space.name())).catch_unwind().await;
    if let Err(panic) = outcome.and(cleaned) {
        resume_unwind(panic);
    }
}

impl Spare {
    async fn new(space: &TestSpace) -> Self {
        let address = |variable: &str, default: &str| {
            // Only tests read this variable.
            #[allow(clippy::disallowed_methods)]
            std::env::var(variable).unwrap_or_else(|_| String::from(default))
        };
        let arguments = [
            String::from("test"),
            String::from("--mysql-connections=1"),
            format!(
                "--mysql-url={}",
                address("COUPON_SPARE_MYSQL_URL", "mysql://coupon:coupon@127.0.0.1:14306/coupon")
            ),
            format!("--redis-url={}", address("COUPON_SPARE_REDIS_URL", "redis://127.0.0.1:17379/0")),
            format!("--amqp-url={}", address("COUPON_SPARE_AMQP_URL", "amqp://guest:guest@127.0.0.1:16673/%2f")),
        ];
        let mut servers: Servers = try_parse_from(&arguments.map(Into::into))
            .unwrap_or_else(|refusal| panic!("the environment names no spare servers: {refusal:?}"));
        servers.check_spare().await;
        // A test that was killed may have left settings under which no schema can be created.
        let server = Mysql::new(&servers.mysql);
        reset(&server).await;
        server.close().await;
        servers.mysql.mysql_url = servers.mysql.mysql_url.with_path(space.name());
        mysql::migrate(&servers.mysql).await.expect("a schema on the spare server");
        let mysql = Mysql::new(&servers.mysql);
        let new = Self { servers, mysql };
        new.redis(NO_REPLICA).await;
        new
    }

    /// The settings of the spare MySQL.
    #[must_use]
    pub fn mysql_settings(&self) -> &MysqlSettings {
        &self.servers.mysql
    }

    /// The settings of the spare Redis.
    #[must_use]
    pub fn redis_settings(&self) -> &RedisSettings {
        &self.servers.redis
    }

    /// The settings of the spare RabbitMQ.
    #[must_use]
    pub fn amqp_settings(&self) -> &AmqpSettings {
        &self.servers.amqp
    }

    /// Runs a statement on the spare MySQL.
    pub async fn sql(&self, statement: &str) {
        run(&self.mysql, statement).await;
    }

    /// Runs a command on the spare Redis.
    pub async fn redis(&self, command: &str) {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        command.arg(words.collect::<Vec<_>>());
        let mut connection = coupon_core::redis::connect(&self.servers.redis).expect("an address of Redis");
        command.exec_async(&mut connection).await.expect("a command");
    }

    /// Copies the rows of the test's own database to the spare server, as replication would.
    pub async fn take_over(&self, space: &TestSpace) {
        copy(space.mysql(), &self.mysql).await;
    }

    /// Copies the rows from the spare server to the test's own database.
    pub async fn hand_over(&self, space: &TestSpace) {
        copy(&self.mysql, space.mysql()).await;
    }

    /// How many connections services have open to the spare database.
    pub async fn connections(&self) -> usize {
        let mut conn = connect(&self.mysql).await;
        let own: Option<u64> = conn.query_first("SELECT CONNECTION_ID()").await.expect("a number");
        let rows: Vec<Row> = conn.query("SHOW PROCESSLIST").await.expect("the list of connections");
        let name = self.servers.mysql.mysql_url.to_string();
        let is_of_service = |row: &&Row| {
            let database: Option<String> = row.get::<Option<String>, _>("db").flatten();
            database.is_some_and(|database| name.ends_with(&format!("/{database}"))) && row.get("Id") != own
        };
        rows.iter().filter(is_of_service).count()
    }

    async fn clean(&self, database: &str) {
        reset(&self.mysql).await;
        self.redis(NO_REPLICA).await;
        self.sql(&format!("DROP DATABASE IF EXISTS `{database}`")).await;
        self.mysql.clone().close().await;
    }
}

async fn connect(mysql: &Mysql) -> Conn {
    mysql.connection().await.expect("a connection to the spare server")
}

async fn run(mysql: &Mysql, statement: &str) {
    let mut conn = connect(mysql).await;
    conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn reset(mysql: &Mysql) {
    for statement in RESET_MYSQL {
        run(mysql, statement).await;
    }
}

async fn copy(from: &Mysql, to: &Mysql) {
    let (mut from, mut to) = (connect(from).await, connect(to).await);
    for table in TABLES {
        let rows: Vec<Row> = from.query(format!("SELECT * FROM {table}")).await.expect("rows");
        to.query_drop(format!("DELETE FROM {table}")).await.expect("an empty table");
        for row in rows {
            let values: Vec<Value> = row.unwrap();
            let places = vec!["?"; values.len()].join(",");
            to.exec_drop(format!("INSERT INTO {table} VALUES ({places})"), values).await.expect("a row");
        }
    }
}
