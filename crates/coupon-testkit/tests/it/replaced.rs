//! A server is replaced under its name, as in every planned switch-over, while connections to the old one stay up; or
//! it starts to refuse a service. Goal: the services recover by themselves and keep what they promised; one that is
//! refused is not ready until then, and says why. Method: a proxy is pointed first at a spare server and then at the
//! one that all tests share; the spare server is demoted, misconfigured or frozen.

use std::sync::Arc;

use coupon_core::Outcome;
use coupon_core::mysql;
use coupon_testkit::{Api, Proxy, Service, Spare, TestSpace, eventually, with_spare};

use crate::programs;
use crate::system::{
    claims_are_accepted, claims_are_issued, each_gets_a_coupon, start_consumer, start_producer, start_skiplock,
};

audited![
    skiplock_continues_after_mysql_was_demoted,
    queue_continues_after_mysql_was_demoted,
    skiplock_continues_after_mysql_has_fallen_silent,
    queue_continues_after_mysql_has_fallen_silent,
    connections_move_to_the_server_that_their_name_now_means,
    a_coupon_is_committed_where_autocommit_is_off_by_default,
    accepted_claims_are_settled_after_redis_was_demoted,
    accepted_claims_are_settled_after_redis_has_fallen_silent,
    claims_go_to_the_next_broker_after_one_has_fallen_silent,
    a_consumer_that_cannot_issue_is_not_ready_and_says_why_once,
    a_service_that_mysql_refuses_names_the_remedy_and_recovers_by_itself,
    a_service_with_a_single_connection_to_mysql_is_not_ready,
    a_consumer_that_may_not_run_one_command_is_not_ready_even_without_claims,
    a_consumer_that_redis_refuses_names_the_remedy_and_recovers_by_itself,
];

/// The services of one approach, which reach one of their servers through a proxy.
struct Proxied {
    api: Api,
    services: Vec<Arc<Service>>,
}

async fn skiplock_through(space: &TestSpace, mysql: &Proxy) -> Proxied {
    let service = start_skiplock(space, &[("mysql-url", mysql.url())]).await;
    Proxied { api: space.api(service.address()), services: vec![service] }
}

async fn queue(space: &TestSpace, own: &[(&str, &str)]) -> Proxied {
    let producer = start_producer(space, own).await;
    // One id at a time, so that each claim needs Redis.
    let consumer = start_consumer(space, &[own, &[("refill-max", "1")]].concat()).await;
    Proxied { api: space.api(producer.address()), services: vec![producer, consumer] }
}

impl Proxied {
    async fn is_ready(&self, space: &TestSpace) -> bool {
        for service in &self.services {
            if space.api(service.admin()).get("/readyz").await.status != 200 {
                return false;
            }
        }
        true
    }
}

/// The state of the old server when another one takes its place. Connections to it stay up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OldServer {
    /// A replica that takes no writes.
    Demoted,
    /// It accepts bytes and never answers.
    Silent,
}

async fn queue_through(space: &TestSpace, mysql: &Proxy) -> Proxied {
    queue(space, &[("mysql-url", mysql.url())]).await
}

/// Replaces a spare MySQL server with the shared one, under the same name and with a copy of its data.
async fn mysql_is_replaced(space: &TestSpace, old: OldServer, start: impl AsyncFn(&TestSpace, &Proxy) -> Proxied) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(40).await;
        spare.take_over(space).await;
        let proxy = Proxy::start(&spare.mysql_settings().mysql_url).await;
        let proxied = start(space, &proxy).await;
        for account in 1..=10 {
            let outcome = proxied.api.claim(campaign, account).await;
            assert!(matches!(outcome, Outcome::Issued { .. }), "account {account}: {outcome:?}");
        }

        if old == OldServer::Demoted {
            spare.sql("SET GLOBAL super_read_only = ON").await;
            eventually("it is not ready while nothing can be written", async || !proxied.is_ready(space).await).await;
        }
        spare.hand_over(space).await;
        proxy.lead_to(&space.servers().mysql.mysql_url);
        if old == OldServer::Silent {
            proxy.freeze_those_before();
        }

        each_gets_a_coupon(&proxied.api, campaign, 1..=20).await;
        eventually("it is ready", async || proxied.is_ready(space).await).await;
        assert_eq!(space.issued(campaign).await, 20);
    })
    .await;
}

async fn skiplock_continues_after_mysql_was_demoted(space: &TestSpace) {
    mysql_is_replaced(space, OldServer::Demoted, skiplock_through).await;
}

async fn queue_continues_after_mysql_was_demoted(space: &TestSpace) {
    mysql_is_replaced(space, OldServer::Demoted, queue_through).await;
}

async fn skiplock_continues_after_mysql_has_fallen_silent(space: &TestSpace) {
    mysql_is_replaced(space, OldServer::Silent, skiplock_through).await;
}

async fn queue_continues_after_mysql_has_fallen_silent(space: &TestSpace) {
    mysql_is_replaced(space, OldServer::Silent, queue_through).await;
}

async fn connections_move_to_the_server_that_their_name_now_means(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(5).await;
        spare.take_over(space).await;
        let proxy = Proxy::start(&spare.mysql_settings().mysql_url).await;
        let own = [("mysql-url", proxy.url()), ("mysql-connection-age", "1s")];
        let api = space.api(start_skiplock(space, &own).await.address());
        assert!(matches!(api.claim(campaign, 1).await, Outcome::Issued { .. }));

        spare.hand_over(space).await;
        proxy.lead_to(&space.servers().mysql.mysql_url);

        // Nothing fails at the old server, so connections to it end only because of their age.
        eventually("no connection to the old server is left", async || spare.connections().await == 0).await;
        assert!(matches!(api.claim(campaign, 2).await, Outcome::Issued { .. }));
        assert_eq!(space.issued(campaign).await, 2);
    })
    .await;
}

/// Whatever MySQL's defaults are, a coupon is committed before a client is given it.
async fn a_coupon_is_committed_where_autocommit_is_off_by_default(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(40).await;
        spare.sql("SET GLOBAL autocommit = OFF").await;
        spare.sql("SET GLOBAL transaction_read_only = ON").await;
        // The schema must be created under these defaults, too.
        spare.sql(&format!("DROP DATABASE `{}`", space.name())).await;
        mysql::migrate(spare.mysql_settings()).await.unwrap();
        spare.sql(&format!("USE `{}`", space.name())).await;
        spare.take_over(space).await;
        let url = spare.mysql_settings().mysql_url.reveal();
        let queue = queue(space, &[("mysql-url", url)]).await.api;
        let mut account = 0;
        for strategy in ["coalesced", "single-statement", "select-update"] {
            let own = [("mysql-url", url), ("strategy", strategy)];
            let skiplock = space.api(start_skiplock(space, &own).await.address());
            for api in [&queue, &skiplock] {
                account += 1;
                let outcome = api.claim(campaign, account).await;
                assert!(matches!(outcome, Outcome::Issued { .. }), "{strategy}: {outcome:?}");
            }
        }
        // Only committed rows are copied, and the audit compares them with what clients were given.
        spare.sql("SET GLOBAL transaction_read_only = OFF").await;
        spare.hand_over(space).await;
        assert_eq!(space.issued(campaign).await, account);
    })
    .await;
}

/// Redis is demoted to a replica, and another, empty one takes its place.
async fn accepted_claims_are_settled_after_redis_was_demoted(space: &TestSpace) {
    redis_is_replaced(space, OldServer::Demoted).await;
}

async fn accepted_claims_are_settled_after_redis_has_fallen_silent(space: &TestSpace) {
    redis_is_replaced(space, OldServer::Silent).await;
}

async fn redis_is_replaced(space: &TestSpace, old: OldServer) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(40).await;
        let proxy = Proxy::start(&spare.redis_settings().redis_url).await;
        let proxied = queue(space, &[("redis-url", proxy.url())]).await;
        for account in 1..=5 {
            assert!(matches!(proxied.api.claim(campaign, account).await, Outcome::Issued { .. }), "account {account}");
        }

        if old == OldServer::Demoted {
            spare.redis("REPLICAOF 127.0.0.1 1").await;
            eventually("it is not ready at a replica", async || !proxied.is_ready(space).await).await;
            proxy.lead_to(&space.servers().redis.redis_url);
        } else {
            proxy.lead_to(&space.servers().redis.redis_url);
            proxy.freeze_those_before();
        }
        claims_are_accepted(&proxied.api, campaign, 6..=20).await;

        claims_are_issued(&proxied.api, campaign, 6..=20).await;
        eventually("it is ready again", async || proxied.is_ready(space).await).await;
    })
    .await;
}

/// The broker stops answering, and another one takes its place.
async fn claims_go_to_the_next_broker_after_one_has_fallen_silent(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(40).await;
        let proxy = Proxy::start(&spare.amqp_settings().amqp_url).await;
        let proxied = queue(space, &[("amqp-url", proxy.url()), ("amqp-management-url", "")]).await;
        each_gets_a_coupon(&proxied.api, campaign, 1..=10).await;

        proxy.lead_to(&space.servers().amqp.amqp_url);
        proxy.freeze_those_before();

        each_gets_a_coupon(&proxied.api, campaign, 1..=20).await;
        eventually("it is ready", async || proxied.is_ready(space).await).await;
    })
    .await;
}

/// An operator's trigger refuses every issue: an error of MySQL that does not go away by itself.
async fn a_consumer_that_cannot_issue_is_not_ready_and_says_why_once(space: &TestSpace) {
    let campaign = space.campaign(10).await;
    let (_producer, api) = programs::producer(space, &[]).await;
    let consumer = programs::consumer(space, &[]).await;
    let is_ready = async || space.api(consumer.address()).get("/readyz").await.status == 200;
    eventually("the consumer is ready", is_ready).await;
    space
        .sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON coupon FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no coupons today'",
        )
        .await;

    claims_are_accepted(&api, campaign, 1..=5).await;
    eventually("it is not ready", async || !is_ready().await).await;
    space.sql("DROP TRIGGER refuse").await;

    claims_are_issued(&api, campaign, 1..=5).await;
    eventually("it is ready again", is_ready).await;
    consumer.says_once(&["no coupons today"]).await;
}

/// What may make MySQL refuse a running service: the statement that does so, the statement that undoes it, and the
/// remedy that the log then names.
const LOCKED_OUT: [(&str, &str, &str); 4] = [
    ("ALTER USER limited ACCOUNT LOCK", "ALTER USER limited ACCOUNT UNLOCK", "check the user and the password"),
    (
        "REVOKE UPDATE ON `{}`.* FROM limited",
        "GRANT UPDATE ON `{}`.* TO limited",
        "grant this user the rights in docs/RIGHTS.md",
    ),
    (
        "ALTER USER limited WITH MAX_CONNECTIONS_PER_HOUR 1",
        "ALTER USER limited WITH MAX_CONNECTIONS_PER_HOUR 0",
        "raise the limit that it names for this user",
    ),
    ("SET GLOBAL binlog_format = STATEMENT", "SET GLOBAL binlog_format = ROW", "set binlog_format = ROW"),
];

async fn a_service_that_mysql_refuses_names_the_remedy_and_recovers_by_itself(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(20).await;
        spare.take_over(space).await;
        spare.sql("CREATE USER IF NOT EXISTS limited IDENTIFIED BY 'limited'").await;
        spare.sql(&format!("GRANT SELECT, UPDATE ON `{}`.* TO limited", space.name())).await;
        let url = spare.mysql_settings().mysql_url.with_user("limited", "limited");
        let own = [("mysql-url", url.reveal()), ("mysql-connection-age", "1s")];
        for (account, (refuse, allow, remedy)) in (1..).zip(LOCKED_OUT) {
            let skiplock = programs::skiplock_with(space, &own).await;
            let api = space.api(skiplock.address());
            let admin = space.api(skiplock.admin());
            let is_ready = async || admin.get("/readyz").await.status == 200;
            eventually("it is ready", is_ready).await;

            spare.sql(&refuse.replace("{}", space.name())).await;
            eventually("it is not ready", async || !is_ready().await).await;
            let refused = api.post_claim(campaign, account).await;
            spare.sql(&allow.replace("{}", space.name())).await;

            assert!(refused.is_unavailable(), "{refuse}: {refused:?}");
            assert!(matches!(api.claim_patiently(campaign, account).await, Outcome::Issued { .. }), "{refuse}");
            eventually("it is ready again", is_ready).await;
            skiplock.says_once(&[remedy]).await;
        }
        spare.sql("DROP USER limited").await;
        spare.hand_over(space).await;
    })
    .await;
}

async fn a_service_with_a_single_connection_to_mysql_is_not_ready(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(1).await;
        spare.take_over(space).await;
        spare.sql("CREATE USER IF NOT EXISTS few IDENTIFIED BY 'few' WITH MAX_USER_CONNECTIONS 1").await;
        spare.sql(&format!("GRANT SELECT, UPDATE ON `{}`.* TO few", space.name())).await;
        let url = spare.mysql_settings().mysql_url.with_user("few", "few");
        let skiplock = programs::skiplock_with(space, &[("mysql-url", url.reveal())]).await;
        let admin = space.api(skiplock.admin());
        eventually("the log says why", async || skiplock.log().contains("max_user_connections")).await;
        assert_eq!(admin.get("/readyz").await.status, 503, "its one connection is for checks");

        spare.sql("ALTER USER few WITH MAX_USER_CONNECTIONS 0").await;

        eventually("it is ready", async || admin.get("/readyz").await.status == 200).await;
        assert!(matches!(space.api(skiplock.address()).claim(campaign, 1).await, Outcome::Issued { .. }));
        spare.sql("DROP USER few").await;
        spare.hand_over(space).await;
    })
    .await;
}

async fn a_consumer_that_may_not_run_one_command_is_not_ready_even_without_claims(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        spare.redis("ACL SETUSER limited on >limited ~* +@all").await;
        let url = spare.redis_settings().redis_url.with_user("limited", "limited");
        let consumer = start_consumer(space, &[("redis-url", url.reveal())]).await;
        let admin = space.api(consumer.admin());
        let is_ready = async || admin.get("/readyz").await.status == 200;
        for command in ["set", "get", "lpop", "rpush", "lpushx", "llen", "expire", "setex", "unlink", "eval"] {
            eventually("it is ready", is_ready).await;

            spare.redis(&format!("ACL SETUSER limited -{command}")).await;

            eventually(&format!("the right to {command} is reported missing"), async || {
                let answer = admin.get("/readyz").await;
                let reason = answer.json["reasons"]["redis"].as_str().unwrap_or_default().to_lowercase();
                answer.status == 503 && reason.contains(&format!("'{command}'")) && reason.contains("docs/rights.md")
            })
            .await;
            spare.redis("ACL SETUSER limited +@all").await;
        }
        spare.redis("ACL DELUSER limited").await;
    })
    .await;
}

async fn a_consumer_that_redis_refuses_names_the_remedy_and_recovers_by_itself(space: &TestSpace) {
    with_spare(space, async |spare: &Spare| {
        let campaign = space.campaign(20).await;
        spare.redis("ACL SETUSER limited on >limited ~* +@all").await;
        let url = spare.redis_settings().redis_url.with_user("limited", "limited");
        let consumer = programs::consumer_with(space, &[("redis-url", url.reveal())]).await;
        let api = space.api(start_producer(space, &[("redis-url", url.reveal())]).await.address());
        let is_ready = async || space.api(consumer.address()).get("/readyz").await.status == 200;
        for (account, refuse, allow, remedy) in [
            (1, "ACL SETUSER limited -set -lpop", "ACL SETUSER limited +@all", "grant this user the rights"),
            (
                2,
                "ACL SETUSER limited >other <limited",
                "ACL SETUSER limited >limited",
                "check the user and the password",
            ),
            (3, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "raise maxmemory"),
        ] {
            eventually("it is ready", is_ready).await;

            spare.redis(refuse).await;
            // Redis goes on serving connections that are already authenticated.
            spare.redis("CLIENT KILL USER limited").await;
            assert_eq!(api.post_claim(campaign, account).await.status, 202);
            eventually("it is not ready", async || !is_ready().await).await;
            spare.redis(allow).await;

            assert!(matches!(api.settled(campaign, account).await, Outcome::Issued { .. }), "{refuse}");
            eventually("it is ready again", is_ready).await;
            eventually("its log names the remedy", async || consumer.log().contains(remedy)).await;
        }
        spare.redis("ACL DELUSER limited").await;
    })
    .await;
}
