//! TLS to the servers. Goal: a program talks to a server only if it is the one that the address names, and reports in
//! one line why not. Method: certificates that the test makes, shown by a proxy in front of each real server.

mod http;
mod settings;

use std::collections::BTreeMap;

use clap::{CommandFactory, FromArgMatches};
use coupon_core::rabbitmq::{self, Policies, Queues};
use coupon_core::redis::Redis;
use coupon_core::settings::ServerUrl;
use coupon_core::{Class, Error, mysql};
use coupon_testkit::{Collector, Issued, TestAuthority, TestSpace, TlsProxy, eventually};

use crate::programs;
use crate::system::{
    claims_are_accepted, claims_are_issued, each_gets_a_coupon, start_consumer, start_producer, start_skiplock,
};

audited![
    the_queue_works_over_tls,
    skiplock_works_over_tls,
    a_server_that_is_not_the_one_named_is_refused,
    a_server_that_requires_a_certificate_refuses_programs_without_it,
    a_server_that_does_not_speak_tls_is_reported,
    the_certificate_that_mysql_generates_is_of_no_known_authority,
    a_service_reports_in_readyz_why_it_refuses_a_server,
    spans_are_sent_over_tls,
    couponctl_works_over_tls,
];

const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

/// The servers of a space over TLS, and the settings to reach them.
struct OverTls {
    authority: TestAuthority,
    mysql: TlsProxy,
    redis: TlsProxy,
    amqp: TlsProxy,
    management: TlsProxy,
    client: Issued,
}

impl OverTls {
    /// Puts a proxy in front of each server, which requires a certificate of its clients, too.
    async fn start(space: &TestSpace) -> Self {
        let authority = TestAuthority::new();
        let (shown, client) = (authority.issue(&HERE), authority.issue(&["producer-api"]));
        let required = Some(&authority);
        let servers = space.servers();
        Self {
            mysql: TlsProxy::start(&servers.mysql.mysql_url, &shown, required).await,
            redis: TlsProxy::start(&servers.redis.redis_url, &shown, required).await,
            amqp: TlsProxy::start(&servers.amqp.amqp_url, &shown, required).await,
            management: TlsProxy::before(servers.amqp.amqp_management_url.reveal(), &shown, required).await,
            client,
            authority,
        }
    }

    /// The settings with the host name of each server.
    fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("mysql-url", self.mysql.url().to_owned()),
            ("redis-url", self.redis.url().to_owned()),
            ("amqp-url", self.amqp.url().to_owned()),
            ("amqp-management-url", self.management.url().to_owned()),
            ("tls-ca", self.authority.file()),
            ("tls-client-cert", self.client.certificate_file()),
            ("tls-client-key", self.client.key_file()),
        ])
    }

    /// The settings with the IP address of each server.
    fn settings_by_ip(&self) -> BTreeMap<&'static str, String> {
        let mut settings = self.settings();
        settings.insert("mysql-url", self.mysql.url_by_number());
        settings.insert("redis-url", self.redis.url_by_number());
        settings.insert("amqp-url", self.amqp.url_by_number());
        settings.insert("amqp-management-url", self.management.url_by_number());
        settings
    }
}

/// Those of the settings that a program has.
fn settings_of<T: CommandFactory>(settings: &BTreeMap<&'static str, String>) -> Vec<(&'static str, String)> {
    let command = T::command();
    let has = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
    settings.iter().filter(|(flag, _)| has(flag)).map(|(flag, value)| (*flag, value.clone())).collect()
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(flag, value)| (*flag, value.as_str())).collect()
}

async fn the_queue_works_over_tls(space: &TestSpace) {
    let servers = OverTls::start(space).await;
    let campaign = space.campaign(6).await;
    for (settings, accounts) in [(servers.settings(), 1..=3), (servers.settings_by_ip(), 4..=6)] {
        let producer = start_producer(space, &borrowed(&settings_of::<producer_api::Settings>(&settings))).await;
        let consumer = start_consumer(space, &borrowed(&settings_of::<queue_consumer::Settings>(&settings))).await;
        let api = space.api(producer.address());

        claims_are_accepted(&api, campaign, accounts.clone()).await;
        claims_are_issued(&api, campaign, accounts).await;

        producer.stop().await;
        consumer.stop().await;
    }
}

async fn skiplock_works_over_tls(space: &TestSpace) {
    let servers = OverTls::start(space).await;
    let campaign = space.campaign(6).await;
    for (settings, accounts) in [(servers.settings(), 1..=3), (servers.settings_by_ip(), 4..=6)] {
        let skiplock = start_skiplock(space, &borrowed(&settings_of::<skiplock_api::Settings>(&settings))).await;

        each_gets_a_coupon(&space.api(skiplock.address()), campaign, accounts).await;
    }
}

/// Tries to use each server with these settings, and returns the error of each.
async fn errors(space: &TestSpace, own: &[(&str, &str)]) -> Vec<(&'static str, Error)> {
    let settings: queue_consumer::Settings = settings(space, own);
    let (amqp, deadline) = (&settings.amqp, settings.mysql.mysql_deadline);
    let reach = mysql::reach(&settings.mysql.mysql_url, &settings.mysql.tls);
    let queues = Queues::new(&settings.namespace.namespace, amqp);
    let all = [
        ("mysql", mysql::connect(reach, deadline).await.map(drop)),
        ("redis", Redis::new(&settings.redis).unwrap().can_write("test").await),
        ("rabbitmq", rabbitmq::connect(amqp, "test").await.map(drop)),
        ("management", Policies::new(amqp).unwrap().dangers(&queues).await.map(drop)),
    ];
    all.map(|(server, result)| (server, result.expect_err(server))).into()
}

fn settings<T: CommandFactory + FromArgMatches>(space: &TestSpace, own: &[(&str, &str)]) -> T {
    space.settings(own)
}

async fn a_server_that_is_not_the_one_named_is_refused(space: &TestSpace) {
    let (authority, stranger) = (TestAuthority::new(), TestAuthority::new());
    let file = authority.file();
    for (shown, words, remedy) in [
        (authority.issue(&["other.example"]), "its certificate is not for localhost but for other.example", "address"),
        (authority.issue(&["10.1.2.3"]), "its certificate is not for localhost but for 10.1.2.3", "address"),
        (authority.issue_expired(&HERE), "its certificate has expired", "new certificate"),
        (stranger.issue(&HERE), "its certificate is of another authority of the same name", "TLS_CA"),
    ] {
        assert_all_refused(space, &shown, &[("tls-ca", &file)], words, remedy).await;
    }
    // Without the setting, only the authorities of the operating system are trusted.
    assert_all_refused(
        space,
        &authority.issue(&HERE),
        &[],
        "its certificate was issued by an unknown authority",
        "TLS_CA",
    )
    .await;
}

/// Shows this certificate for each server, and checks that all are refused in these words.
async fn assert_all_refused(space: &TestSpace, shown: &Issued, own: &[(&str, &str)], words: &str, remedy: &str) {
    let servers = space.servers();
    let mysql = TlsProxy::start(&servers.mysql.mysql_url, shown, None).await;
    let redis = TlsProxy::start(&servers.redis.redis_url, shown, None).await;
    let amqp = TlsProxy::start(&servers.amqp.amqp_url, shown, None).await;
    let management = TlsProxy::before(servers.amqp.amqp_management_url.reveal(), shown, None).await;
    let addresses = [
        ("mysql-url", mysql.url()),
        ("redis-url", redis.url()),
        ("amqp-url", amqp.url()),
        ("amqp-management-url", management.url()),
    ];
    for (server, error) in errors(space, &[&addresses[..], own].concat()).await {
        assert_refusal(server, &error, words, remedy);
    }
}

/// Checks that an error is one line with these words, and stays until somebody applies the remedy.
fn assert_refusal(server: &str, error: &Error, words: &str, remedy: &str) {
    let line = error.to_string();
    assert!(line.contains(words) && !line.contains('\n'), "{server}: {line}");
    assert!(error.stays() && error.remedy().contains(remedy), "{server}: {line}; {}", error.remedy());
    assert_eq!(error.class(), Class::Retryable, "{server}: {line}");
}

async fn a_server_that_requires_a_certificate_refuses_programs_without_it(space: &TestSpace) {
    let servers = OverTls::start(space).await;
    let mut settings = servers.settings();
    settings.retain(|flag, _| !flag.starts_with("tls-client"));
    for (server, error) in errors(space, &borrowed(&settings_of::<queue_consumer::Settings>(&settings))).await {
        assert_refusal(server, &error, "it requires a certificate, and none is given", "TLS_CLIENT_CERT");
    }
    let stranger = TestAuthority::new();
    let own = stranger.issue(&["queue-consumer"]);
    settings.extend([("tls-client-cert", own.certificate_file()), ("tls-client-key", own.key_file())]);
    for (server, error) in errors(space, &borrowed(&settings_of::<queue_consumer::Settings>(&settings))).await {
        assert_refusal(server, &error, "it refuses the certificate of this program", "TLS_CLIENT_CERT");
    }
}

async fn a_server_that_does_not_speak_tls_is_reported(space: &TestSpace) {
    let servers = space.servers();
    let over_tls = |url: &ServerUrl| url.reveal().replacen("://", "s://", 1);
    let amqp = over_tls(&servers.amqp.amqp_url);
    let settings: queue_consumer::Settings = settings(space, &[("amqp-url", &amqp)]);

    let error = rabbitmq::connect(&settings.amqp, "test").await.unwrap_err();

    assert_refusal("rabbitmq", &error, "what answers does not speak TLS", "a port on which it speaks TLS");
}

async fn the_certificate_that_mysql_generates_is_of_no_known_authority(space: &TestSpace) {
    let url = format!("{}?ssl-mode=VERIFY_IDENTITY", space.servers().mysql.mysql_url.reveal());
    let settings: skiplock_api::Settings = settings(space, &[("mysql-url", &url)]);
    let reach = mysql::reach(&settings.mysql.mysql_url, &settings.mysql.tls);

    let error = mysql::connect(reach, settings.mysql.mysql_deadline).await.unwrap_err();

    let line = error.to_string();
    let is_refused = line.contains("its certificate ") || line.contains("it does not speak TLS");
    assert!(is_refused && error.stays(), "{line}");
}

async fn a_service_reports_in_readyz_why_it_refuses_a_server(space: &TestSpace) {
    let authority = TestAuthority::new();
    let amqp = TlsProxy::start(&space.servers().amqp.amqp_url, &authority.issue(&["mq.example"]), None).await;
    let own = [("amqp-url", amqp.url()), ("tls-ca", &authority.file())];

    let producer = programs::producer_with(space, &own).await.0;
    let consumer = programs::consumer_with(space, &own).await;

    for service in [producer, consumer] {
        let admin = space.api(service.admin());
        let reason = async || {
            let health = admin.get("/readyz").await.json;
            health.pointer("/reasons/rabbitmq").and_then(|reason| reason.as_str().map(str::to_owned))
        };
        let words = "its certificate is not for localhost but for mq.example";
        eventually("it gives the reason", async || reason().await.is_some_and(|reason| reason.contains(words))).await;
        service.says_once(&[words, "name a host of its certificate"]).await;
    }
}

async fn spans_are_sent_over_tls(space: &TestSpace) {
    let (authority, collector) = (TestAuthority::new(), Collector::start().await);
    let own = authority.issue(&["skiplock-api"]);
    let proxy = TlsProxy::before(collector.url(), &authority.issue(&HERE), Some(&authority)).await;
    let files = [authority.file(), own.certificate_file(), own.key_file()];
    let settings = [("TLS_CA", &*files[0]), ("TLS_CLIENT_CERT", &*files[1]), ("TLS_CLIENT_KEY", &*files[2])];
    let mut environment = programs::traced(&collector);
    environment.retain(|(name, _)| *name != "OTEL_EXPORTER_OTLP_ENDPOINT");
    environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", proxy.url()));
    let campaign = space.campaign(1).await;
    let (_service, api) = programs::skiplock(space, &[&environment[..], &settings].concat()).await;

    each_gets_a_coupon(&api, campaign, 1..=1).await;

    eventually("a span arrives", async || !collector.spans().is_empty()).await;
    // Without `TLS_CA`, the authority of the collector's certificate is unknown.
    let (service, api) = programs::skiplock(space, &environment).await;
    api.get(&format!("/v1/campaigns/{campaign}/claims/1")).await;
    let is_named = async || service.log().contains("does not take spans") && service.log().contains("UnknownIssuer");
    eventually("it logs why no spans are accepted", is_named).await;
}

async fn couponctl_works_over_tls(space: &TestSpace) {
    let servers = OverTls::start(space).await;
    let settings = servers.settings();
    let line: Vec<String> = settings.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();

    programs::couponctl(space, &format!("{} doctor", line.join(" "))).await;
    programs::couponctl(space, &format!("{} audit", line.join(" "))).await;
}
