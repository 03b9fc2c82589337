//! Addresses of servers. Goal: a service connects to the server that its address names, and to no other. Method: a
//! listener on an IPv6 address, which a URL writes in brackets.

use coupon_core::mysql::Mysql;
use coupon_core::rabbitmq;
use coupon_testkit::{DEADLINE, TestSpace};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::system::start_producer;

audited![an_address_in_brackets_is_dialled,];

async fn an_address_in_brackets_is_dialled(space: &TestSpace) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", listener.local_addr().unwrap());
    let own = [("amqp-url", url.as_str()), ("amqp-deadline", "1s")];

    let settings: queue_consumer::Settings = space.settings(&own);
    let (dialled, _) =
        tokio::join!(timeout(DEADLINE, listener.accept()), rabbitmq::connect(&settings.amqp, "queue-consumer"));
    assert!(dialled.is_ok(), "queue-consumer dialled another address");

    let (dialled, _) = tokio::join!(timeout(DEADLINE, listener.accept()), start_producer(space, &own));
    assert!(dialled.is_ok(), "producer-api dialled another address");

    let url = format!("mysql://coupon:coupon@{}/coupon", listener.local_addr().unwrap());
    let settings: skiplock_api::Settings = space.settings(&[("mysql-url", &url), ("mysql-deadline", "1s")]);
    let mysql = Mysql::new(&settings.mysql);
    let (dialled, _) = tokio::join!(timeout(DEADLINE, listener.accept()), mysql.connection());
    assert!(dialled.is_ok(), "skiplock-api dialled another address");
}
