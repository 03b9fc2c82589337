//! `couponctl doctor` on servers that are set up well, and on servers that are not. Goal: an operator who runs it
//! before a sale knows what would go wrong, and how to fix it. Method: the real program, each time with one thing
//! broken that a test can break without harm to others; server-wide settings are tested next to the rules in
//! `src/doctor`.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

use coupon_testkit::program::{self, Ran};
use coupon_testkit::{TestSpace, run};
use lapin::types::FieldTable;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_couponctl");

async fn doctor(space: &TestSpace, arguments: &[&str]) -> Ran {
    // Addresses are options of couponctl, and come before the command.
    let (addresses, others): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|word| word.contains("-url="));
    let arguments = [&addresses[..], &["doctor"], &others].concat();
    let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
    program::run(PROGRAM, &arguments, &space.environment()).await
}

/// Runs the doctor for a program, with that program's users.
async fn doctor_as(space: &TestSpace, name: &str) -> Ran {
    let servers = space.servers_of(name);
    let addresses = [
        format!("--mysql-url={}", servers.mysql.mysql_url.reveal()),
        format!("--redis-url={}", servers.redis.redis_url.reveal()),
        format!("--amqp-url={}", servers.amqp.amqp_url.reveal()),
    ];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    doctor(space, &[&addresses[..], &["--json", "--program", name]].concat()).await
}

fn findings(ran: &Ran) -> Vec<Value> {
    let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no JSON: {ran:?}"));
    document["findings"].as_array().unwrap().clone()
}

/// The checks with this verdict, as `server check`.
fn with(verdict: &str, ran: &Ran) -> Vec<String> {
    let name =
        |finding: &Value| format!("{} {}", finding["server"].as_str().unwrap(), finding["check"].as_str().unwrap());
    findings(ran).iter().filter(|finding| finding["verdict"] == verdict).map(name).collect()
}

/// Checks that the doctor finds only this to be wrong, with these words in the finding and the remedy.
async fn is_wrong(space: &TestSpace, arguments: &[&str], check: &str, words: &[&str]) {
    let ran = doctor(space, &[arguments, &["--json"]].concat()).await;

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(with("wrong", &ran), [check], "{ran:?}");
    let found = findings(&ran).into_iter().find(|finding| finding["verdict"] == "wrong").unwrap();
    let text = format!("{} {}", found["found"], found["remedy"]);
    for word in words {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}

#[tokio::test]
async fn servers_that_are_set_up_well_pass() {
    run(async |space| {
        space.queues.declare().await;

        let table = doctor(&space, &[]).await;
        let ran = doctor(&space, &["--json"]).await;

        assert_eq!((table.code, ran.code), (Some(0), Some(0)), "{table:?}");
        assert!(table.stdout.contains(", wrong 0, not checked 0"), "{table:?}");
        assert!(
            table.stdout.lines().any(|line| line.contains("RabbitMQ") && line.contains("rights of queue-consumer"))
        );
        assert_eq!((with("wrong", &ran), with("not_checked", &ran)), (vec![], vec![]), "{ran:?}");
        // The tests' servers may be slower or fuller than they should be; these are the checks that claims depend on.
        for check in
            ["MySQL takes writes", "MySQL one server", "Redis role", "RabbitMQ queues", "MySQL rights of couponctl"]
        {
            assert!(with("ok", &ran).iter().any(|ok| ok == check), "{check}: {ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_database_is_one_finding() {
    run(async |space| {
        space.queues.declare().await;
        space.sql(format!("DROP DATABASE `{}`", space.name())).await;

        let ran = doctor(&space, &["--json"]).await;

        assert_eq!(with("wrong", &ran), ["MySQL database"], "{ran:?}");
        assert_eq!(with("not_checked", &ran), ["MySQL schema and rights"], "{ran:?}");
        program::run(PROGRAM, &[String::from("migrate")], &space.environment()).await;
    })
    .await;
}

#[tokio::test]
async fn claims_that_nobody_consumes_are_found() {
    run(async |space| {
        space.queues.declare().await;
        space.queues.publish(lapin::BasicProperties::default(), b"waiting").await;

        let ran = doctor(&space, &["--json"]).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(with("warning", &ran).contains(&String::from("RabbitMQ consumers")), "{ran:?}");
        assert!(ran.stdout.contains("0 consume, 1 messages wait"), "{ran:?}");
        space.queues.take_claims().await;
    })
    .await;
}

#[tokio::test]
async fn each_program_has_the_rights_that_the_document_gives_it() {
    run(async |space| {
        space.queues.declare().await;
        for name in ["producer-api", "queue-consumer", "skiplock-api", "couponctl"] {
            let ran = doctor_as(&space, name).await;

            assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
            let rights = with("ok", &ran).iter().filter(|ok| ok.ends_with(&format!("rights of {name}"))).count();
            assert_eq!(rights, if name == "skiplock-api" { 1 } else { 3 }, "{ran:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_the_statement_that_grants_it() {
    run(async |space| {
        space.queues.declare().await;
        let producer = space.servers_of("producer-api");
        if producer.mysql.mysql_url.reveal() == space.servers().mysql.mysql_url.reveal() {
            return;
        }
        let mysql = format!("--mysql-url={}", producer.mysql.mysql_url.reveal());
        is_wrong(
            &space,
            &[&mysql, "--program=skiplock-api"],
            "MySQL rights of skiplock-api",
            &["GRANT UPDATE (account_id) ON coupon TO 'producer-api'@"],
        )
        .await;

        let redis = format!("--redis-url={}", producer.redis.redis_url.reveal());
        is_wrong(
            &space,
            &[&redis, "--program=queue-consumer"],
            "Redis rights of queue-consumer",
            &["rpush", "users.acl"],
        )
        .await;

        let amqp = format!("--amqp-url={}", producer.amqp.amqp_url.reveal());
        is_wrong(
            &space,
            &[&amqp, "--program=couponctl"],
            "RabbitMQ rights of couponctl",
            &["claims.dead", "set_permissions -p "],
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_schema_that_differs_is_found() {
    run(async |space| {
        space.queues.declare().await;
        space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;
        is_wrong(&space, &[], "MySQL key coupon_campaign_account", &["it is not there", "ADD UNIQUE KEY"]).await;
        space.sql("ALTER TABLE coupon ADD KEY coupon_campaign_account (campaign_id, account_id)").await;
        is_wrong(&space, &[], "MySQL key coupon_campaign_account", &["not unique"]).await;
        space.sql("ALTER TABLE coupon DROP INDEX coupon_campaign_account").await;
        space.sql("ALTER TABLE coupon ADD UNIQUE KEY coupon_campaign_account (campaign_id, account_id)").await;

        space.sql("ALTER TABLE coupon DROP PRIMARY KEY, ADD PRIMARY KEY (id)").await;
        is_wrong(&space, &[], "MySQL key PRIMARY", &["it is of id", "ADD PRIMARY KEY (campaign_id, id)"]).await;
        space.sql("ALTER TABLE coupon DROP PRIMARY KEY, ADD PRIMARY KEY (campaign_id, id)").await;

        space.sql("ALTER TABLE coupon ENGINE = MyISAM").await;
        is_wrong(&space, &[], "MySQL engine", &["coupon is MyISAM"]).await;
        space.sql("ALTER TABLE coupon ENGINE = InnoDB").await;

        space.sql("CREATE TRIGGER stop_all BEFORE UPDATE ON coupon FOR EACH ROW SIGNAL SQLSTATE '45000'").await;
        let ran = doctor(&space, &["--json"]).await;
        assert!(with("warning", &ran).iter().any(|check| check == "MySQL triggers"), "{ran:?}");
        assert!(ran.stdout.contains("stop_all before UPDATE of coupon"), "{ran:?}");
        space.sql("DROP TRIGGER stop_all").await;

        space.sql("DELETE FROM refinery_schema_history ORDER BY version DESC LIMIT 1").await;
        is_wrong(&space, &[], "MySQL schema", &["couponctl migrate"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_database_is_not_mistaken_for_an_unreachable_server() {
    run(async |space| {
        let nowhere =
            format!("--mysql-url={}", space.servers().mysql.mysql_url.with_path("coupon_test_nowhere").reveal());
        let ran = doctor(&space, &[&nowhere, "--json"]).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(with("wrong", &ran).iter().any(|check| check == "MySQL database"), "{ran:?}");

        let redis = format!("--redis-url={}", space.servers().redis.redis_url.with_path("99").reveal());
        space.queues.declare().await;
        is_wrong(&space, &[&redis], "Redis database", &["COUPON_REDIS_URL", "/99"]).await;
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_server_is_reported_as_not_checked() {
    run(async |space| {
        space.queues.declare().await;
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (server, flag) in [
            ("MySQL", format!("--mysql-url=mysql://coupon:coupon@{closed}/coupon")),
            ("Redis", format!("--redis-url=redis://{closed}/0")),
            ("RabbitMQ", format!("--amqp-url=amqp://{closed}/%2f")),
        ] {
            let ran = doctor(&space, &[&flag, "--json"]).await;

            assert_eq!(ran.code, Some(3), "{server}: {ran:?}");
            assert_eq!(with("not_checked", &ran), [format!("{server} reachable")], "{ran:?}");
            let reachable = findings(&ran).into_iter().find(|finding| finding["verdict"] == "not_checked").unwrap();
            let is_advised = |remedy: &str| remedy.contains("services up") || remedy.contains("leads to it");
            assert!(reachable["remedy"].as_str().is_some_and(is_advised), "{reachable}");
            let table = doctor(&space, &[&flag]).await;
            let row = table.stdout.lines().find(|line| line.contains(server) && line.contains("reachable")).unwrap();
            assert!(row.contains("not checked") && row.contains("refused"), "the driver's own words: {row}");
        }
        let ran = doctor(&space, &[&format!("--amqp-management-url=http://{closed}"), "--json"]).await;
        let policies = findings(&ran).into_iter().find(|finding| finding["check"] == "policies").unwrap();
        assert!(policies["found"].as_str().unwrap().contains("refused"), "{policies}");
        let without_management = doctor(&space, &["--amqp-management-url="]).await;
        assert!(without_management.stdout.contains("list_policies -p "), "{without_management:?}");
        // This user exists. For an unknown one, MySQL picks an arbitrary authentication plugin, which the driver may
        // not know.
        let refused = space.servers().mysql.mysql_url.with_user("coupon", "wrong");
        let ran = doctor(&space, &[&format!("--mysql-url={}", refused.reveal()), "--json"]).await;
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stdout.contains("Access denied for user 'coupon'") && !ran.stdout.contains("wrong@"), "{ran:?}");
        let reachable = findings(&ran).into_iter().find(|finding| finding["verdict"] == "not_checked").unwrap();
        assert_eq!(reachable["remedy"], "check the user and the password in COUPON_MYSQL_URL");
    })
    .await;
}

#[tokio::test]
async fn missing_queues_are_not_created() {
    run(async |space| {
        let ran = doctor(&space, &["--json"]).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(with("warning", &ran).iter().any(|check| check == "RabbitMQ queues"), "{ran:?}");
        let again = doctor(&space, &["--json"]).await;
        assert!(with("warning", &again).iter().any(|check| check == "RabbitMQ queues"), "{again:?}");
    })
    .await;
}

#[tokio::test]
async fn queues_that_lose_claims_are_found() {
    run(async |space| {
        space.queues.declare().await;
        space.queues.delete_claims().await;
        space.queues.declare_claims_as(true, FieldTable::default()).await;

        is_wrong(&space, &[], "RabbitMQ queues", &["inequivalent arg", "delete_queue"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_loses_claims_is_found() {
    run(async |space| {
        space.queues.declare().await;
        space.queues.set_policy(&json!({"message-ttl": 2000})).await;

        is_wrong(&space, &[], "RabbitMQ policies", &["message-ttl = 2000", "rabbitmqctl clear_policy"]).await;
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_reported_and_left_where_they_are() {
    run(async |space| {
        space.queues.declare().await;
        space.queues.publish_dead_letter(lapin::BasicProperties::default(), b"poison").await;

        let ran = doctor(&space, &["--json"]).await;

        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(with("warning", &ran).iter().any(|check| check == "RabbitMQ dead letters"), "{ran:?}");
        assert_eq!(space.queues.dead_letters().await, 1);
    })
    .await;
}
