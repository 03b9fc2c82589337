//! Settings: one typed struct for each program, from flags and environment, read once before anything is bound.
//!
//! Each program derives [`clap::Parser`] and flattens the groups below. [`parse`] names *every* wrong setting at once,
//! because fixing a deployment one restart at a time is slow. The defaults connect to the servers of
//! `scripts/services up` and of `docker compose up -d mysql redis rabbitmq`.
//!
//! ```text
//! command_line  what was typed and set, read by clap ─> groups below ─┬─ address     of a server, with its secrets
//!                                                                     ├─ tls         to all servers
//!                                                                     ├─ log_filter  levels by module
//!                                                                     └─ small_file  what a setting names
//! ```

mod address;
mod command_line;
mod log_filter;
mod small_file;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

#[cfg(test)]
pub(crate) use address::mysql_url;
pub use address::{ManagementUrl, ServerUrl, collector_url};
pub use command_line::{Refusal, end, parse, try_parse, try_parse_from};
pub use log_filter::LogFilter;
pub use small_file::small_file;
pub use tls::TlsSettings;

/// Parses a time that something may take, such as `250ms`, `5s` or `1min`: enough for a round trip to a server.
///
/// # Errors
/// A text that is not a duration, less than 100 milliseconds, or more than a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(100), Duration::from_hours(24))
}

/// Parses how long a connection may live: long enough to be of use.
fn connection_age(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1), Duration::from_hours(24))
}

/// Parses a duration from `min` to `max`.
///
/// # Errors
/// A text that is not a duration, or one outside these bounds.
pub fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| "must be a time such as 250ms, 5s or 1min")?;
    if duration < min {
        return Err(format!("must be at least {}", humantime::format_duration(min)));
    }
    if duration > max {
        return Err(format!("must be at most {}", humantime::format_duration(max)));
    }
    Ok(duration)
}

/// Parses an address and port of this machine to listen on, such as `127.0.0.1:8080`.
///
/// # Errors
/// Any other text, such as a name, or an address or port alone.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        String::from("must be an address in numbers and a port, as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080")
    })
}

/// MySQL: the source of truth.
#[derive(Args, Clone, Debug)]
pub struct MysqlSettings {
    /// Address of MySQL (8.0 or later, or MariaDB 10.6 or later), with the database as its path.
    #[arg(
        long,
        env = "COUPON_MYSQL_URL",
        value_name = "URL",
        value_parser = address::mysql_url,
        default_value = "mysql://coupon:coupon@127.0.0.1:13306/coupon",
        hide_env_values = true
    )]
    pub mysql_url: ServerUrl,

    /// Connections this process keeps to MySQL. More than a few dozen makes claims slower, not faster.
    #[arg(long, env = "MYSQL_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512), default_value_t = 16)]
    pub mysql_connections: u16,

    /// Longest life of a connection to MySQL, plus up to a fifth. A new one goes to the server that the address names
    /// then.
    #[arg(long, env = "MYSQL_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub mysql_connection_age: Duration,

    /// Longest time one piece of work may take in MySQL, waiting for a connection included.
    #[arg(long, env = "MYSQL_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub mysql_deadline: Duration,

    /// TLS to the server.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// Redis: ids that wait to be claimed and outcomes that wait to be read. It may lose everything.
#[derive(Args, Clone, Debug)]
pub struct RedisSettings {
    /// Address of Redis (7 or later), with the number of the database as its path.
    #[arg(
        long,
        env = "COUPON_REDIS_URL",
        value_name = "URL",
        value_parser = address::redis_url,
        default_value = "redis://127.0.0.1:16379/0",
        hide_env_values = true
    )]
    pub redis_url: ServerUrl,

    /// Longest life of a connection to Redis, plus up to a fifth. A new one goes to the server that the address names
    /// then.
    #[arg(long, env = "REDIS_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub redis_connection_age: Duration,

    /// Longest time one Redis command or pipeline may take.
    #[arg(long, env = "REDIS_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub redis_deadline: Duration,

    /// TLS to the server.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// RabbitMQ: accepted claims on their way.
#[derive(Args, Clone, Debug)]
pub struct AmqpSettings {
    /// Address of RabbitMQ (3.10 or later), with the virtual host as its path (%2f is the default one).
    #[arg(
        long,
        env = "COUPON_AMQP_URL",
        value_name = "URL",
        value_parser = address::amqp_url,
        default_value = "amqp://guest:guest@127.0.0.1:15673/%2f",
        hide_env_values = true
    )]
    pub amqp_url: ServerUrl,

    /// Longest life of a connection to RabbitMQ, plus up to a fifth. A new one goes to the server that the address
    /// names then.
    #[arg(long, env = "AMQP_CONNECTION_AGE", value_name = "TIME", value_parser = connection_age, default_value = "5min")]
    pub amqp_connection_age: Duration,

    /// Address of RabbitMQ's HTTP API, which is asked for policies that would lose accepted claims; empty = not asked.
    /// Without a name and password in it, those of the other address are used.
    #[arg(
        long,
        env = "COUPON_AMQP_MANAGEMENT_URL",
        value_name = "URL",
        value_parser = address::management_url,
        default_value = "http://127.0.0.1:15675",
        hide_env_values = true
    )]
    pub amqp_management_url: ManagementUrl,

    /// Longest time the broker may take to answer, a publisher confirm included.
    #[arg(long, env = "AMQP_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub amqp_deadline: Duration,

    /// Messages that may wait in the queue; further claims are refused with 503. Must be the same for all programs of
    /// an installation, because a queue keeps the limit that it was created with.
    #[arg(long, env = "QUEUE_MAX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000), default_value_t = 10_000_000)]
    pub queue_max: u32,

    /// How strictly the first to come are served first. All programs of an installation must agree, because a queue keeps the
    /// arguments that it was declared with.
    #[arg(long, env = "ORDER", value_name = "ORDER", default_value = "relaxed")]
    pub order: Order,

    /// TLS to the server.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// How strictly the queue serves the first to come first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Order {
    /// All consumers work side by side, and overtake the claims that another one still holds.
    Relaxed,
    /// One consumer works, in the order of the queue; the others stand by and take over when it is gone.
    Exact,
}

/// Keeps several installations apart on the same servers.
#[derive(Args, Clone, Debug)]
pub struct NamespaceSettings {
    /// Prefix of every Redis key and RabbitMQ queue: letters, digits, `-` and `_`, at most 64.
    #[arg(long, env = "COUPON_NAMESPACE", value_name = "NAME", default_value = "coupon")]
    pub namespace: Namespace,
}

/// A checked prefix for Redis keys and RabbitMQ queues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            return Err(String::from("must be 1 to 64 letters, digits, - or _"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every service logs, how long it may take to stop, and how it is asked for its health.
#[derive(Args, Clone, Debug)]
pub struct ProcessSettings {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module as in `info,lapin=warn`.
    /// Crates other than ours are shown only up to info.
    // lapin's own errors come back to us and are reported in our words.
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info,actix_server=warn,lapin=off")]
    pub log: LogFilter,

    /// Format of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Longest time that work in hand may take to finish after SIGTERM or SIGINT.
    #[arg(long, env = "DRAIN_DEADLINE", value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub drain_deadline: Duration,

    /// TLS to the collector of spans.
    #[command(flatten)]
    pub tls: TlsSettings,

    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<ProcessCommand>,
}

/// What a service can do instead of running.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ProcessCommand {
    /// Ask the service at --admin-listen whether it is ready; exit with 0 if it is, otherwise with 1.
    CheckHealth,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for a log collector.
    Json,
}
