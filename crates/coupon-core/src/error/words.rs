//! The errors of the drivers as one line of text, without the names of their internals.

use std::error::Error as _;

use deadpool_redis::{PoolError, redis};

use super::tls;

/// Characters that are shown of an error from Redis: a pipeline reports the error of each command, and the first
/// suffice.
const REDIS_MAX: usize = 300;

pub fn mysql(error: &mysql_async::Error) -> String {
    tls::words(error).unwrap_or_else(|| match error {
        mysql_async::Error::Io(mysql_async::IoError::Io(error)) => error.to_string(),
        mysql_async::Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer) => {
            String::from("it does not speak TLS")
        }
        error => line(&error.to_string()),
    })
}

pub fn redis(error: &redis::RedisError) -> String {
    tls::words(error).unwrap_or_else(|| match error.kind() {
        redis::ErrorKind::Parse => String::from("what answers does not speak the protocol of Redis"),
        _ => crate::terminal::shortened(&line(&error.to_string()), REDIS_MAX),
    })
}

pub fn redis_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => redis(error),
        error => line(&error.to_string()),
    }
}

pub fn amqp(error: &lapin::Error) -> String {
    tls::words(error).unwrap_or_else(|| match error.kind() {
        lapin::ErrorKind::IOError(error) => error.to_string(),
        lapin::ErrorKind::ParsingError(_) => String::from("what answers does not speak AMQP"),
        _ => line(&error.to_string()),
    })
}

/// reqwest's own text says only what it was doing; its deepest cause has the reason.
pub fn http(error: &reqwest::Error) -> String {
    if error.is_decode() {
        return String::from("the answer is not a list in JSON");
    }
    if let Some(words) = tls::words(error) {
        return words;
    }
    let mut cause = error.source();
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    line(&cause.map_or_else(|| error.to_string(), ToString::to_string))
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use deadpool_redis::redis;

    use crate::error::Error;

    #[test]
    fn a_driver_says_the_cause_once_and_in_one_line() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let parsed = redis::parse_redis_value(b"0\r\n").unwrap_err();
        let said = mysql_async::ServerError { code: 1644, message: String::from("two\nlines"), state: String::new() };

        for (error, words) in [
            (Error::Mysql(mysql_async::Error::Io(refused().into())), "MySQL: connection refused"),
            (Error::Mysql(mysql_async::Error::Server(said)), "two lines"),
            (Error::Amqp(lapin::Error::from(refused())), "RabbitMQ: connection refused"),
            (Error::Redis(parsed), "Redis: what answers does not speak the protocol of Redis"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
