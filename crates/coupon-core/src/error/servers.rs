//! What the errors of each server mean: whether one is our mistake, what an operator can do about it, and whether it
//! stays until then.

use deadpool_redis::redis;
use reqwest::StatusCode;

use super::Class;

/// Server error numbers: dev.mysql.com/doc/mysql-errors/en/server-error-reference.html; MariaDB's are the same.
const DUPLICATE_ENTRY: u16 = 1062;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;

/// MySQL's errors for a statement that is wrong: a column, table, function or syntax that does not exist, or a value
/// that does not fit. The list is short on purpose: any other error is the server's own trouble and may pass.
const OUR_MISTAKES: [u16; 14] = [1048, 1054, 1064, 1109, 1136, 1146, 1210, 1264, 1292, 1305, 1364, 1366, 1406, 1690];

/// Reply codes of AMQP 0-9-1: rabbitmq.com/amqp-0-9-1-reference.
const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;

/// The remedy if MySQL does not let us in.
const CHECK_MYSQL_USER: &str = "check the user and the password in COUPON_MYSQL_URL";

/// What an operator can do about an error, and whether it stays until then.
pub struct Advice {
    pub remedy: &'static str,
    pub stays: bool,
}

impl Advice {
    /// The error stays until somebody does this.
    pub fn mend(remedy: &'static str) -> Self {
        Self { remedy, stays: true }
    }

    /// The error may pass by itself.
    pub fn wait(remedy: &'static str) -> Self {
        Self { remedy, stays: false }
    }

    /// Only our own mistakes stay.
    fn by_class(remedy: &'static str, class: Class) -> Self {
        Self { remedy, stays: class == Class::Fatal }
    }
}

/// Whether the work lost to other work on the same rows.
pub fn mysql_is_conflict(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(server) if matches!(server.code, LOCK_WAIT_TIMEOUT | DEADLOCK))
}

pub fn mysql_class(error: &mysql_async::Error) -> Class {
    match error {
        mysql_async::Error::Server(server) => match server.code {
            DUPLICATE_ENTRY => Class::Duplicate,
            code if OUR_MISTAKES.contains(&code) => Class::Fatal,
            _ => Class::Retryable,
        },
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(_) => Class::Retryable,
        mysql_async::Error::Other(_) | mysql_async::Error::Url(_) => Class::Fatal,
    }
}

/// A key of another type, or a malformed command, is our mistake; a refusal is the server's.
pub fn redis_class(error: &redis::RedisError) -> Class {
    use redis::{ErrorKind, ServerErrorKind};

    let is_ours = match error.kind() {
        ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(ServerErrorKind::CrossSlot) => true,
        ErrorKind::Extension => error.code() == Some("WRONGTYPE"),
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            let said = error.detail().unwrap_or_default();
            ["unknown command", "syntax error", "wrong number of arguments"]
                .iter()
                .any(|mistake| said.contains(mistake))
        }
        _ => false,
    };
    if is_ours { Class::Fatal } else { Class::Retryable }
}

pub fn mysql_advice(error: &mysql_async::Error) -> Advice {
    let class = mysql_class(error);
    let server = match error {
        mysql_async::Error::Server(server) => server,
        // MySQL does not reveal whether a user exists: for one that does not, it asks for an arbitrary plugin.
        mysql_async::Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { .. }) => {
            return Advice::mend(CHECK_MYSQL_USER);
        }
        mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer) => {
            return Advice::mend("give it a certificate, or take ssl-mode out of COUPON_MYSQL_URL");
        }
        _ => {
            let remedy = "see that MySQL runs and that COUPON_MYSQL_URL leads to it";
            return Advice::by_class(remedy, class);
        }
    };
    match server.code {
        1290 | 1792 | 1836 => {
            Advice::mend("it is read-only: let COUPON_MYSQL_URL lead to the primary, or end its read-only mode")
        }
        1044 | 1142 | 1143 | 1227 | 1370 => Advice::mend("grant this user the rights in docs/RIGHTS.md"),
        1045 | 1130 | 1251 | 1698 | 1862 | 3118 => Advice::mend(CHECK_MYSQL_USER),
        1049 | 1146 => Advice::mend("run `couponctl migrate`"),
        1176 => Advice::mend("a key of the schema is missing: `couponctl doctor` says how to make it again"),
        3159 => Advice::mend("end COUPON_MYSQL_URL with ?ssl-mode=VERIFY_IDENTITY: it takes nothing but TLS"),
        1226 => Advice::wait("raise the limit that it names for this user"),
        1040 | 1203 => Advice::wait("raise its limit of connections, or lower MYSQL_CONNECTIONS"),
        1665 => Advice::mend("set binlog_format = ROW"),
        1644 => Advice::mend("a trigger or a procedure refuses: look at what it says"),
        1021 | 1114 | 3 => Advice::mend("its disk or table space is full: make room"),
        _ => Advice::by_class("see MySQL's own log", class),
    }
}

/// Whether Redis lacks the database that is named at the end of its address.
pub fn names_no_database(error: &redis::RedisError) -> bool {
    let said = error.detail().unwrap_or_default();
    said.contains("DB index is out of range") || said.contains("SELECT is not allowed")
}

pub fn redis_advice(error: &redis::RedisError) -> Advice {
    use redis::{ErrorKind, ServerErrorKind};

    match (error.kind(), error.code()) {
        _ if names_no_database(error) => Advice::wait(
            "end COUPON_REDIS_URL with the number of a database that the server has (`databases` in redis.conf)",
        ),
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            Advice::mend("check the user and the password in COUPON_REDIS_URL")
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            Advice::mend("it is a replica: let COUPON_REDIS_URL lead to the primary")
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Advice::mend("grant this user the rights in docs/RIGHTS.md"),
        (_, Some("OOM")) => {
            Advice::mend("it is out of memory: raise maxmemory, and see deploy/redis/redis.conf for its policy")
        }
        (_, Some("MISCONF")) => Advice::mend("it cannot write its data to disk: see Redis's own log"),
        (ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown), _) => {
            Advice::wait("it is starting: wait")
        }
        // A Redis without TLS takes the first bytes of a TLS client for the beginning of a command, and waits for the
        // rest.
        _ if error.is_timeout() => {
            Advice::wait("see that Redis runs, and that its port speaks TLS if COUPON_REDIS_URL begins with rediss://")
        }
        _ => {
            let remedy = "see that Redis runs and that COUPON_REDIS_URL leads to it";
            Advice::by_class(remedy, redis_class(error))
        }
    }
}

/// The reply code with which RabbitMQ refused something.
fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) => Some(refusal.get_id()),
        _ => None,
    }
}

/// Whether RabbitMQ refused the login, or something that its user has no right to.
pub fn amqp_refuses_access(error: &lapin::Error) -> bool {
    reply_code(error) == Some(ACCESS_REFUSED)
}

pub fn amqp_advice(error: &lapin::Error) -> Advice {
    match reply_code(error) {
        Some(ACCESS_REFUSED) => Advice::mend(
            "check the user and the password in COUPON_AMQP_URL, and grant this user the rights in docs/RIGHTS.md",
        ),
        Some(NOT_ALLOWED) => {
            Advice::mend("make the virtual host that COUPON_AMQP_URL names, and let this user into it")
        }
        _ => Advice::wait("see that RabbitMQ runs and that COUPON_AMQP_URL leads to it"),
    }
}

/// Advice on an error of RabbitMQ's HTTP API.
pub fn management_advice(error: &reqwest::Error) -> Advice {
    Advice::wait(match error.status() {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "check the user and the password in COUPON_AMQP_MANAGEMENT_URL, or in COUPON_AMQP_URL if it has none, and give \
             this user the tag management or monitoring"
        }
        Some(StatusCode::NOT_FOUND) => {
            "see that COUPON_AMQP_MANAGEMENT_URL leads to RabbitMQ's management plugin, and that the virtual host that \
             COUPON_AMQP_URL names is there"
        }
        _ => "see that COUPON_AMQP_MANAGEMENT_URL leads to RabbitMQ's management plugin",
    })
}
