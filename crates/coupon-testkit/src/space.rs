//! A space for each test on the shared servers: a database, a prefix for Redis keys and one for queues, all under one
//! name and all deleted when the test ends.
//!
//! Invariants: nothing of a test is visible to another; a test that fails or panics cleans up too; whatever a killed
//! run leaves is recognized by its name, which contains the time it was made, and is removed by a run at least an hour
//! later.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{CommandFactory, FromArgMatches};
use coupon_core::audit::{self, Broker, Report};
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::mysql::{self, Mysql, campaigns};
use coupon_core::redis::keys;
use coupon_core::service::Running;
use coupon_core::settings::{MysqlSettings, Namespace, try_parse_from};
use coupon_core::{Campaign, CampaignId, Installation, InstallationId};
use deadpool_redis::redis::aio::ConnectionManager;
use deadpool_redis::redis::{AsyncCommands, ScanOptions};
use futures_util::{FutureExt, StreamExt};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::{Api, Reported};
use crate::broker::TestQueues;
use crate::servers::Servers;
use crate::service::Service;
use crate::users::Users;

/// Every test's database begins with this.
const PREFIX: &str = "coupon_test_";

/// A space older than this belongs to a run that was killed.
const LEFTOVER_AFTER_SECONDS: u64 = 60 * 60;

/// Runs a test in a space of its own and cleans up, however the test ends.
///
/// # Panics
/// The test panics, or a server is missing.
pub async fn run(test: impl AsyncFnOnce(Arc<TestSpace>)) {
    let space = Arc::new(TestSpace::new().await);
    let outcome = AssertUnwindSafe(Box::pin(test(Arc::clone(&space)))).catch_unwind().await;
    let cleaned = AssertUnwindSafe(space.clean()).catch_unwind().await;
    // The test's own failure is the one to report.
    if let Err(panic) = outcome.and(cleaned) {
        resume_unwind(panic);
    }
}

/// A test's space.
pub struct TestSpace {
    name: String,
    servers: Servers,
    users: &'static Users,
    mysql: Mysql,
    redis: ConnectionManager,
    installation: Installation,
    /// The queues of this space.
    pub queues: TestQueues,
    services: Mutex<Vec<Arc<Service>>>,
    reported: Reported,
    restocked: Mutex<bool>,
    last_campaign: AtomicU64,
}

impl TestSpace {
    async fn new() -> Self {
        static SWEPT: OnceCell<()> = OnceCell::const_new();

        let mut servers = Servers::from_environment();
        SWEPT.get_or_init(async || sweep(&servers).await).await;
        let name = format!("{PREFIX}{:x}_{}", now(), &Uuid::new_v4().simple().to_string()[..12]);
        servers.mysql.mysql_url = servers.mysql.mysql_url.with_path(&name);
        mysql::migrate(&servers.mysql).await.expect("a schema");
        let users = Users::on(&servers).await;
        let mysql = Mysql::new(&servers.mysql);
        users.grant(&mut mysql.connection().await.expect("a connection"), &name).await;
        let installation = Installation::of(&mysql, &namespace(&name)).await.expect("an installation");
        Self {
            users,
            mysql,
            redis: coupon_core::redis::connect(&servers.redis).expect("an address of Redis"),
            queues: TestQueues::new(servers.amqp.clone(), &installation),
            installation,
            services: Mutex::default(),
            reported: Reported::default(),
            restocked: Mutex::new(false),
            last_campaign: AtomicU64::new(0),
            servers,
            name,
        }
    }

    /// The name of the space's database, and the prefix of its keys and queues.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The installation that the space's keys and messages belong to.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The servers, with the database of this space.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The same servers with the user of a program, which has only the rights of that program.
    #[must_use]
    pub fn servers_of(&self, program: &str) -> Servers {
        let mut servers = self.servers.clone();
        servers.mysql.mysql_url = self.users.mysql(program, &servers.mysql.mysql_url);
        servers.redis.redis_url = self.users.redis(program, &servers.redis.redis_url);
        servers.amqp.amqp_url = self.users.amqp(program, &servers.amqp.amqp_url);
        servers
    }

    /// The database of this space.
    #[must_use]
    pub fn mysql(&self) -> &Mysql {
        &self.mysql
    }

    /// Redis.
    #[must_use]
    pub fn redis(&self) -> ConnectionManager {
        self.redis.clone()
    }

    /// The arguments that point a program at this space, as its own user on each server: flags that the program does
    /// not have are left out.
    #[must_use]
    pub fn arguments<T: CommandFactory>(&self, own: &[(&str, &str)]) -> Vec<String> {
        let command = T::command();
        let user = match command.get_name() {
            // It does the consumer's work.
            "redis-api" => "queue-consumer",
            program => program,
        };
        let Servers { mysql, redis, amqp } = self.servers_of(user);
        let mut values: BTreeMap<&str, String> = BTreeMap::from([
            ("listen", String::from("127.0.0.1:0")),
            ("admin-listen", String::from("127.0.0.1:0")),
            ("drain-delay", String::from("0s")),
            ("http-workers", String::from("1")),
            // No limit: tests may claim for one account as often as they like.
            ("claims-per-account", String::from("0")),
            ("mysql-connections", String::from("8")),
            ("mysql-url", mysql.mysql_url.reveal().to_owned()),
            ("redis-url", redis.redis_url.reveal().to_owned()),
            ("amqp-url", amqp.amqp_url.reveal().to_owned()),
            ("amqp-management-url", amqp.amqp_management_url.reveal().to_owned()),
            ("namespace", self.name.clone()),
        ]);
        let known = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
        values.retain(|flag, _| known(flag));
        values.extend(own.iter().map(|(flag, value)| (*flag, String::from(*value))));
        values.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect()
    }

    /// The variables that point couponctl at this space, as its own user on each server.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Servers { mysql, redis, amqp } = self.servers_of("couponctl");
        vec![
            ("COUPON_MYSQL_URL", mysql.mysql_url.reveal().to_owned()),
            ("COUPON_REDIS_URL", redis.redis_url.reveal().to_owned()),
            ("COUPON_AMQP_URL", amqp.amqp_url.reveal().to_owned()),
            ("COUPON_AMQP_MANAGEMENT_URL", amqp.amqp_management_url.reveal().to_owned()),
            ("COUPON_NAMESPACE", self.name.clone()),
        ]
    }

    /// A program's settings, pointed at this space, with some changed by the test.
    ///
    /// # Panics
    /// The program refuses the settings.
    #[must_use]
    pub fn settings<T: CommandFactory + FromArgMatches>(&self, own: &[(&str, &str)]) -> T {
        let arguments = std::iter::once(String::from("test")).chain(self.arguments::<T>(own));
        try_parse_from(&arguments.map(OsString::from).collect::<Vec<_>>())
            .unwrap_or_else(|refusal| panic!("settings refused: {refusal:?}"))
    }

    /// Starts a service that is stopped when the test ends.
    pub async fn start<F>(&self, start: impl FnOnce(CancellationToken) -> F) -> Arc<Service>
    where
        F: Future<Output = anyhow::Result<Running>> + Send + 'static,
    {
        let service = Service::start(start).await;
        self.services.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&service));
        service
    }

    /// A client of a service. The audit checks every outcome that it is given.
    #[must_use]
    pub fn api(&self, address: SocketAddr) -> Api {
        Api::new(address, self.reported.clone())
    }

    /// Creates a campaign that is always open.
    pub async fn campaign(&self, coupons: usize) -> CampaignId {
        self.campaign_between(None, None, coupons).await
    }

    /// Creates a campaign with a window.
    pub async fn campaign_between(
        &self,
        opens_at: Option<OffsetDateTime>,
        closes_at: Option<OffsetDateTime>,
        coupons: usize,
    ) -> CampaignId {
        let id = CampaignId(self.last_campaign.fetch_add(1, Ordering::Relaxed) + 1);
        let name = format!("campaign {id}");
        let campaign = Campaign { id, name, opens_at, closes_at, coupons: 0, paused: false };
        let mut conn = self.mysql.connection().await.expect("a connection");
        campaigns::insert(&mut conn, &campaign).await.expect("a campaign");
        self.add_coupons(id, coupons).await;
        id
    }

    /// Adds new coupons to a campaign.
    pub async fn add_coupons(&self, campaign: CampaignId, coupons: usize) {
        let mut conn = self.mysql.connection().await.expect("a connection");
        let mut transaction = conn.start_transaction(TxOpts::default()).await.expect("a transaction");
        let (coupons, limit) = (loads::new_coupons(coupons), Limit::Stock(u64::MAX));
        loads::add(&mut transaction, campaign, &coupons, &limit).await.expect("coupons");
        transaction.commit().await.expect("a commit");
    }

    /// Audits, forgets every "sold out" answered so far, because it was correct before the restock, and adds coupons.
    pub async fn restock(&self, campaign: CampaignId, coupons: usize) {
        self.audit().await;
        self.reported.forget_sold_out();
        *self.restocked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.add_coupons(campaign, coupons).await;
    }

    /// How many coupons of a campaign have an account.
    pub async fn issued(&self, campaign: CampaignId) -> u64 {
        let mut conn = self.mysql.connection().await.expect("a connection");
        let count = format!("SELECT COUNT(account_id) FROM coupon WHERE campaign_id = {campaign}");
        conn.query_first(count).await.expect("a count").unwrap_or(0)
    }

    /// Runs a statement of the test's own.
    pub async fn sql(&self, statement: impl Into<String>) {
        let statement = statement.into();
        let done = self.mysql.run(async move |mut conn: Conn| Ok(conn.query_drop(statement).await?)).await;
        done.expect("a statement");
    }

    /// Locks the tables against all services until this connection is closed.
    pub async fn lock_tables(&self) -> Conn {
        let mut conn = self.mysql.connection().await.expect("a connection");
        conn.query_drop("LOCK TABLES campaign WRITE, coupon WRITE").await.expect("the tables locked");
        conn
    }

    /// The ids of the services' connections on which a statement with this beginning is running now.
    pub async fn running(&self, statement: &str) -> Vec<u64> {
        let mut conn = self.mysql.connection().await.expect("a connection");
        let rows: Vec<mysql_async::Row> = conn.query("SHOW FULL PROCESSLIST").await.expect("the list of connections");
        rows.iter()
            .filter(|row| row.get::<Option<String>, _>("db").flatten().as_deref() == Some(self.name.as_str()))
            .filter(|row| {
                row.get::<Option<String>, _>("Info").flatten().is_some_and(|info| info.starts_with(statement))
            })
            .filter_map(|row| row.get("Id"))
            .collect()
    }

    /// Locks every row of a campaign, so that no coupon can be issued until this connection is closed.
    pub async fn lock_rows(&self, campaign: CampaignId) -> Conn {
        let mut conn = self.mysql.connection().await.expect("a connection");
        conn.query_drop("START TRANSACTION").await.expect("a transaction");
        let lock = format!("SELECT id FROM coupon WHERE campaign_id = {campaign} FOR UPDATE");
        conn.query_drop(lock).await.expect("the rows locked");
        conn
    }

    /// How many free ids of a campaign are in Redis.
    pub async fn ids_in_redis(&self, campaign: CampaignId) -> usize {
        self.redis().llen(keys::free_coupons(&self.installation, campaign)).await.expect("a length")
    }

    /// Deletes everything that this space has in Redis.
    pub async fn empty_redis(&self) {
        delete_keys(&mut self.redis(), &self.name).await;
    }

    /// Checks every invariant against all answers to clients and the dead letters in the broker.
    ///
    /// # Panics
    /// An invariant is broken; the message contains the report.
    pub async fn audit(&self) -> Report {
        let report = self.report().await;
        assert!(report.clean, "the audit found broken invariants: {:#?}", report.invariants);
        report
    }

    /// Like [`Self::audit`], but returns broken invariants instead of panicking.
    pub async fn report(&self) -> Report {
        let no_restock = !*self.restocked.lock().unwrap_or_else(PoisonError::into_inner);
        let reported = audit::Answers { outcomes: self.reported.all(), no_restock };
        let broker = Broker { dead_letters: u64::from(self.queues.dead_letters().await) };
        audit::audit(&self.mysql, None, reported, Some(broker)).await.expect("an audit")
    }

    async fn clean(&self) {
        let services = std::mem::take(&mut *self.services.lock().unwrap_or_else(PoisonError::into_inner));
        let stopped = services.iter().map(|service| AssertUnwindSafe(service.stop()).catch_unwind());
        let stopped = futures_util::future::join_all(stopped).await;
        self.queues.delete().await;
        self.empty_redis().await;
        self.users.revoke(&mut self.mysql.connection().await.expect("a connection"), &self.name).await;
        self.sql(format!("DROP DATABASE IF EXISTS `{}`", self.name)).await;
        self.mysql.clone().close().await;
        if let Some(Err(panic)) = stopped.into_iter().find(Result::is_err) {
            resume_unwind(panic);
        }
    }
}

fn namespace(name: &str) -> Namespace {
    name.parse().expect("a name that is a namespace")
}

fn now() -> u64 {
    OffsetDateTime::now_utc().unix_timestamp().unsigned_abs()
}

/// Checks that the servers answer, and removes what killed runs left. The database goes last, because its name is how
/// the rest is found.
async fn sweep(servers: &Servers) {
    servers.check().await;
    let settings = MysqlSettings { mysql_url: servers.mysql.mysql_url.with_path(""), ..servers.mysql.clone() };
    let mysql = Mysql::new(&settings);
    let mut conn = mysql.connection().await.expect("a connection");
    let found: Vec<String> = conn.query(format!("SHOW DATABASES LIKE '{PREFIX}%'")).await.expect("the databases");
    for name in found.iter().filter(|name| is_leftover(name, now())) {
        let installation = Installation { namespace: namespace(name), id: InstallationId(Uuid::nil()) };
        TestQueues::new(servers.amqp.clone(), &installation).delete().await;
        let mut redis = coupon_core::redis::connect(&servers.redis).expect("an address of Redis");
        delete_keys(&mut redis, name).await;
        Users::on(servers).await.revoke(&mut conn, name).await;
        conn.query_drop(format!("DROP DATABASE IF EXISTS `{name}`")).await.expect("a database dropped");
    }
    drop(conn);
    mysql.close().await;
}

/// Whether a database's name is one of ours and says that it was created long ago.
fn is_leftover(name: &str, now: u64) -> bool {
    let made = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    let made = made.and_then(|(made, _)| u64::from_str_radix(made, 16).ok());
    made.is_some_and(|made| now.saturating_sub(made) > LEFTOVER_AFTER_SECONDS)
}

async fn delete_keys(redis: &mut ConnectionManager, name: &str) {
    let options = ScanOptions::default().with_pattern(format!("{name}:*")).with_count(1_000);
    let found: Vec<_> = redis.scan_options::<String>(options).await.expect("the keys").collect().await;
    let found: Vec<String> = found.into_iter().map(|key| key.expect("a key")).collect();
    for keys in found.chunks(1_000) {
        redis.unlink::<_, ()>(keys).await.expect("keys deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_spaces_are_swept() {
        let now = 0x6000_0000;

        assert!(is_leftover("coupon_test_5fff0000_abc", now));
        assert!(!is_leftover("coupon_test_5fffffff_abc", now), "it may belong to another run");
        assert!(!is_leftover("coupon_test_shop_abc", now), "its name has no time in it");
        assert!(!is_leftover("coupon", now));
    }
}
