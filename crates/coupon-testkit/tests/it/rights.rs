//! The users that `deploy/` defines. Goal: a password that leaks from one program allows nothing but that program's
//! work. Method: every other test runs the programs as these users; here they try what they must not do, and lack
//! rights that they need.

use coupon_core::settings::AmqpSettings;
use coupon_core::{Error, Outcome, Result, rabbitmq};
use coupon_testkit::program::Running;
use coupon_testkit::{Servers, TestSpace, eventually, run};
use deadpool_redis::redis;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::programs;
use crate::system::{audited, start_consumer};

/// The servers with a program's own users; none if the tests were pointed at servers that do not have these users.
fn servers_of(space: &TestSpace, program: &str) -> Option<Servers> {
    let servers = space.servers_of(program);
    let own = space.servers();
    let differ = [
        servers.mysql.mysql_url.reveal() != own.mysql.mysql_url.reveal(),
        servers.redis.redis_url.reveal() != own.redis.redis_url.reveal(),
        servers.amqp.amqp_url.reveal() != own.amqp.amqp_url.reveal(),
    ];
    differ.iter().all(|differs| *differs).then_some(servers)
}

#[tokio::test]
async fn a_service_may_write_accounts_and_nothing_else_in_mysql() {
    // The right to a table, and the right to a column.
    const DENIED: [u16; 2] = [1142, 1143];

    run(async |space| {
        space.campaign(1).await;
        for program in ["producer-api", "queue-consumer", "skiplock-api"] {
            let Some(servers) = servers_of(&space, program) else { return };
            let mut conn = Conn::from_url(servers.mysql.mysql_url.reveal()).await.unwrap();
            conn.query_drop("SELECT id FROM coupon").await.unwrap();
            for statement in [
                "UPDATE coupon SET id = id",
                "UPDATE coupon SET campaign_id = 2",
                "DELETE FROM coupon",
                "INSERT INTO coupon (id, campaign_id) VALUES (x'00000000000000000000000000000000', 1)",
                "UPDATE campaign SET coupons = 2",
                "INSERT INTO campaign (id, name) VALUES (2, '')",
                "DROP TABLE coupon",
                "TRUNCATE coupon",
                "CREATE TABLE more (id INT)",
                "DELETE FROM refinery_schema_history",
            ] {
                let Err(mysql_async::Error::Server(refused)) = conn.query_drop(statement).await else {
                    panic!("{program} may: {statement}")
                };
                assert!(DENIED.contains(&refused.code), "{program}, {statement}: {refused}");
            }
            let issue = conn.query_drop("UPDATE coupon SET account_id = NULL WHERE account_id = 1").await;
            assert_eq!(issue.is_ok(), program != "producer-api", "{program}: {issue:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn in_redis_a_program_touches_only_the_keys_of_its_namespace() {
    run(async |space| {
        let own = format!("{}:{{1}}:free", space.name());
        for (program, command, key) in [
            ("producer-api", "RPUSH {} id", own.as_str()),
            ("producer-api", "SET {} id", &own),
            ("queue-consumer", "RPUSH {} id", "other:{1}:free"),
            ("queue-consumer", "EVAL return(redis.call('GET','other:{1}:free')) 0", ""),
            ("queue-consumer", "KEYS *", ""),
            ("queue-consumer", "FLUSHALL", ""),
            ("queue-consumer", "CONFIG GET *", ""),
            ("couponctl", "UNLINK {}", "other:{1}:free"),
            ("couponctl", "FLUSHDB", ""),
            ("couponctl", "CLIENT KILL TYPE normal", ""),
        ] {
            let Some(servers) = servers_of(&space, program) else { return };
            let mut connection = coupon_core::redis::connect(&servers.redis).unwrap();
            let mut words = command.split(' ');
            let mut query = redis::cmd(words.next().unwrap());
            for word in words {
                query.arg(if word == "{}" { key } else { word });
            }

            let refused = query.query_async::<redis::Value>(&mut connection).await;

            let refused = refused.expect_err(&format!("{program} may: {command}")).to_string();
            let says = ["NOPERM", "permission", "can't access"];
            assert!(says.iter().any(|words| refused.contains(words)), "{program}, {command}: {refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_declares_and_reads_only_its_own_queues() {
    run(async |space| {
        space.queues.declare().await;
        let (claims, dead) = (format!("{}.claims", space.name()), format!("{}.claims.dead", space.name()));
        for program in ["producer-api", "queue-consumer", "couponctl"] {
            let Some(servers) = servers_of(&space, program) else { return };
            let other = declare(&servers.amqp, "another").await;
            assert!(is_refused(&other), "{program} makes a queue of another name: {other:?}");
            let published = publish(&servers.amqp, "amq.topic").await;
            assert!(is_refused(&published), "{program} publishes to another exchange: {published:?}");
            assert!(publish(&servers.amqp, "").await.is_ok(), "{program} publishes to the default exchange");
            assert!(
                consume(&servers.amqp, &claims).await.is_ok(),
                "{program}: declaring the queue requires this right"
            );
            let emptied = empty(&servers.amqp, &dead).await;
            assert_eq!(emptied.is_ok(), program == "couponctl", "{program} empties the dead letters: {emptied:?}");
        }
    })
    .await;
}

fn is_refused(done: &Result<()>) -> bool {
    done.as_ref().is_err_and(Error::is_access_refused)
}

async fn channel(settings: &AmqpSettings) -> Result<(lapin::Connection, lapin::Channel)> {
    let connection = rabbitmq::connect(settings, "rights").await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn declare(settings: &AmqpSettings, queue: &str) -> Result<()> {
    let (_connection, channel) = channel(settings).await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    Ok(())
}

async fn publish(settings: &AmqpSettings, exchange: &str) -> Result<()> {
    let (_connection, channel) = channel(settings).await?;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions::default();
    channel.basic_publish(exchange.into(), "nowhere".into(), options, b"", BasicProperties::default()).await?.await?;
    Ok(())
}

async fn consume(settings: &AmqpSettings, queue: &str) -> Result<()> {
    let (_connection, channel) = channel(settings).await?;
    let (tag, options) = ("rights".into(), BasicConsumeOptions::default());
    channel.basic_consume(queue.into(), tag, options, FieldTable::default()).await?;
    Ok(())
}

async fn empty(settings: &AmqpSettings, queue: &str) -> Result<()> {
    let (_connection, channel) = channel(settings).await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    Ok(())
}

/// Checks that a service logs exactly once that it cannot work with a server, with the server's words and the document
/// that has the right, and that its health says so, too.
async fn says_once(space: &TestSpace, service: &Running, server: &str, words: &str) {
    let line = service.says_once(&[&format!("server=\"{server}\"")]).await;
    assert!(line.contains(words) && line.contains("docs/RIGHTS.md"), "{line}");
    assert!(line.contains("ERROR"), "an operator must see it: {line}");
    let ready = space.api(service.admin()).get("/readyz").await;
    assert!(ready.json["reasons"][server].as_str().is_some_and(|reason| reason.contains(words)), "{ready:?}");
}

#[tokio::test]
async fn a_service_that_lacks_a_right_names_it_and_is_not_ready() {
    run(async |space| {
        let Some(servers) = servers_of(&space, "producer-api") else { return };
        let mysql = [("mysql-url", servers.mysql.mysql_url.reveal())];
        let skiplock = programs::start_with::<skiplock_api::Settings>(&space, "skiplock-api", &mysql, &[]).await;
        says_once(&space, &skiplock, "mysql", "UPDATE command denied").await;

        // The users have no rights in any other namespace.
        let other = [("namespace", "another")];
        let consumer = programs::start_with::<queue_consumer::Settings>(&space, "queue-consumer", &other, &[]).await;
        says_once(&space, &consumer, "redis", "permission").await;
        says_once(&space, &consumer, "rabbitmq", "ACCESS_REFUSED").await;
        let producer = programs::start_with::<producer_api::Settings>(&space, "producer-api", &other, &[]).await;
        says_once(&space, &producer, "rabbitmq", "ACCESS_REFUSED").await;
    })
    .await;
}

/// Revokes a program's right on a table of this space.
async fn revoke(space: &TestSpace, servers: &Servers, right: &str) {
    let mut conn = Conn::from_url(servers.mysql.mysql_url.reveal()).await.unwrap();
    let user: Option<String> = conn.query_first("SELECT CURRENT_USER()").await.unwrap();
    let user = user.unwrap().replacen('@', "'@'", 1);
    let (right, table) = right.split_once(" ON ").unwrap();
    space.sql(format!("REVOKE {right} ON `{}`.{table} FROM '{user}'", space.name())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_may_not_read_campaigns_is_not_ready() {
    run(async |space| {
        for program in ["skiplock-api", "producer-api"] {
            let Some(servers) = servers_of(&space, program) else { return };
            revoke(&space, &servers, "SELECT ON campaign").await;
        }
        let skiplock = programs::skiplock_with(&space, &[]).await;
        let (producer, _) = programs::producer_with(&space, &[]).await;
        for service in [skiplock, producer] {
            says_once(&space, &service, "mysql", "SELECT command denied").await;
            assert_eq!(space.api(service.address()).get("/readyz").await.status, 503);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_right_to_publish_is_noticed_at_once() {
    audited(async |space| {
        let campaign = space.campaign(1).await;
        let url = space.queues.set_user(".*").await;
        let (producer, api) = programs::producer_with(space, &[("amqp-url", url.reveal())]).await;
        eventually("claims are accepted", async || api.post_claim(campaign, 1).await.status == 202).await;

        space.queues.set_user("^$").await;

        says_once(space, &producer, "rabbitmq", "ACCESS_REFUSED").await;
        assert_eq!(api.get("/readyz").await.status, 503);
        space.queues.set_user(".*").await;
        eventually("it is ready again", async || api.get("/readyz").await.status == 200).await;
        start_consumer(space, &[]).await;
        assert!(matches!(api.settled(campaign, 1).await, Outcome::Issued { .. }));
    })
    .await;
}

#[test]
fn the_document_shows_the_statements_that_are_used() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |file: &str| std::fs::read_to_string(format!("{root}/{file}")).unwrap();
    let document = read("docs/RIGHTS.md");

    for file in ["deploy/mysql/rights.sql", "deploy/redis/users.acl"] {
        let text = read(file);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("--") && !line.starts_with('#')) {
            assert!(document.contains(line), "docs/RIGHTS.md lacks what {file} has: {line}");
        }
    }
    let definitions: serde_json::Value = serde_json::from_str(&read("deploy/rabbitmq/users.json")).unwrap();
    for right in definitions["permissions"].as_array().unwrap() {
        let [user, configure, write, read] =
            ["user", "configure", "write", "read"].map(|part| right[part].as_str().unwrap());
        let line = format!("set_permissions -p / {user} '{configure}' '{write}' '{read}'");
        assert!(document.contains(&line), "docs/RIGHTS.md lacks: {line}");
    }
}
