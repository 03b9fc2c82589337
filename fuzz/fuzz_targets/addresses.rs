//! Addresses of servers in settings. Each is accepted or refused, and an accepted one means the same when it is written
//! out and read again.
#![no_main]

use std::ffi::OsString;

use clap::Parser;
use coupon_core::settings::{AmqpSettings, MysqlSettings, RedisSettings, try_parse_from};
use libfuzzer_sys::fuzz_target;

#[derive(Parser)]
struct Mysql {
    #[command(flatten)]
    settings: MysqlSettings,
}

#[derive(Parser)]
struct Redis {
    #[command(flatten)]
    settings: RedisSettings,
}

#[derive(Parser)]
struct Amqp {
    #[command(flatten)]
    settings: AmqpSettings,
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    read(text, "mysql-url", |read: Mysql| read.settings.mysql_url.reveal().to_owned());
    read(text, "redis-url", |read: Redis| read.settings.redis_url.reveal().to_owned());
    read(text, "amqp-url", |read: Amqp| read.settings.amqp_url.reveal().to_owned());
});

fn read<T: Parser>(text: &str, setting: &str, written: fn(T) -> String) {
    let read = |text: &str| try_parse_from::<T>(&["fuzz".into(), OsString::from(format!("--{setting}={text}"))]);
    let Ok(address) = read(text).map(written) else { return };
    match read(&address).map(written) {
        Ok(again) => assert_eq!(again, address),
        // The AMQP driver requires the colons of an IPv6 address to be percent-encoded, which settings do not accept.
        Err(_) => assert!(address.starts_with("amqp") && address.contains("%3A"), "{address} is not accepted again"),
    }
}
