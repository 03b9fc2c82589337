//! What the words of each server mean: whether it is our mistake, whether it stays, and what an operator does about it.

use deadpool_redis::redis;

use super::Class;

/// Server error numbers: dev.mysql.com/doc/mysql-errors/en/server-error-reference.html; MariaDB's are the same.
const DUPLICATE_ENTRY: u16 = 1062;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;

/// What MySQL says of a statement that is wrong: a column, table, function or syntax that is not there, a value that does
/// not fit. The list is short on purpose. Whatever else a server says is its own trouble and may pass.
const OUR_MISTAKES: [u16; 14] = [1048, 1054, 1064, 1109, 1136, 1146, 1210, 1264, 1292, 1305, 1364, 1366, 1406, 1690];

/// What MySQL says when a right, an account, a mode or room is missing: each has its remedy in [`mysql_remedy`].
const MENDED_BY_HAND: [u16; 20] = [
    3, 1021, 1044, 1045, 1049, 1114, 1130, 1142, 1143, 1227, 1251, 1290, 1370, 1644, 1665, 1698, 1792, 1836, 1862, 3118,
];

/// Whether it stays until somebody mends it.
pub fn mysql_stays(error: &mysql_async::Error) -> bool {
    let is_refused = matches!(error, mysql_async::Error::Server(server) if MENDED_BY_HAND.contains(&server.code));
    is_refused || mysql_class(error) == Class::Fatal
}

/// Whether the work lost against others at the same rows.
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

/// A key of another type, or a command that is written wrongly, is our mistake; a refusal is the server's.
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

/// What an operator does about an error of MySQL that does not pass by itself.
pub fn mysql_remedy(error: &mysql_async::Error) -> &'static str {
    let mysql_async::Error::Server(server) = error else {
        return "see that MySQL runs and that COUPON_MYSQL_URL leads to it; it is tried again by itself";
    };
    match server.code {
        1290 | 1792 | 1836 => "it is read-only: let COUPON_MYSQL_URL lead to the primary, or end its read-only mode",
        1044 | 1142 | 1143 | 1227 | 1370 => "grant this user the rights in docs/RIGHTS.md",
        1045 | 1130 | 1251 | 1698 | 1862 | 3118 => "check the user and the password in COUPON_MYSQL_URL",
        1049 | 1146 => "run `couponctl migrate`",
        1040 | 1203 | 1226 => "raise its limit of connections, or lower MYSQL_CONNECTIONS",
        1665 => "set binlog_format = ROW",
        1644 => "a trigger or a procedure refuses: look at what it says",
        1021 | 1114 | 3 => "its disk or table space is full: make room",
        _ => "see MySQL's own log; it is tried again by itself",
    }
}

pub fn redis_refuses(error: &redis::RedisError) -> bool {
    use redis::{ErrorKind, ServerErrorKind};

    let refuses_this_user = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::NoPerm)
    );
    refuses_this_user
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "OOM" | "MISCONF"))
        || redis_class(error) == Class::Fatal
}

/// Whether Redis does not have the database that is named at the end of its address.
pub fn names_no_database(error: &redis::RedisError) -> bool {
    let said = error.to_string();
    said.contains("DB index is out of range") || said.contains("SELECT is not allowed")
}

pub fn redis_remedy(error: &redis::RedisError) -> &'static str {
    use redis::{ErrorKind, ServerErrorKind};

    match (error.kind(), error.code()) {
        _ if names_no_database(error) => {
            "end COUPON_REDIS_URL with the number of a database that the server has (`databases` in redis.conf)"
        }
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            "check the user and the password in COUPON_REDIS_URL"
        }
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            "it is a replica: let COUPON_REDIS_URL lead to the primary"
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => "grant this user the rights in docs/RIGHTS.md",
        (_, Some("OOM")) => "it is out of memory: raise maxmemory, and see deploy/redis/redis.conf for its policy",
        (_, Some("MISCONF")) => "it cannot write its data to disk: see Redis's own log",
        (ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown), _) => "it is starting: wait",
        _ => "see that Redis runs and that COUPON_REDIS_URL leads to it; it is tried again by itself",
    }
}

/// The user, the password or a right of theirs.
pub fn amqp_refuses_access(error: &lapin::Error) -> bool {
    let said = error.to_string();
    said.contains("ACCESS_REFUSED") || said.contains("ACCESS-REFUSED")
}

/// The virtual host.
pub fn amqp_refuses_vhost(error: &lapin::Error) -> bool {
    let said = error.to_string();
    said.contains("NOT_ALLOWED") || said.contains("NOT-ALLOWED")
}

pub fn amqp_remedy(error: &lapin::Error) -> &'static str {
    if amqp_refuses_access(error) {
        "check the user and the password in COUPON_AMQP_URL, and grant this user the rights in docs/RIGHTS.md"
    } else if amqp_refuses_vhost(error) {
        "make the virtual host that COUPON_AMQP_URL names, and let this user into it"
    } else {
        "see that RabbitMQ runs and that COUPON_AMQP_URL leads to it; it is tried again by itself"
    }
}
