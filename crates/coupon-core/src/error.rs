//! What can go wrong in the shared adapters, with the class that decides what to do about it.
//!
//! An error becomes HTTP only at the last step ([`crate::http::problem`]); its text goes to the log, never to a client.

use deadpool_redis::redis;

/// What to do about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The work was done before: look its result up.
    Duplicate,
    /// A server is away, busy or chose us as a deadlock's victim: the same work may succeed if done again.
    Retryable,
    /// Doing it again gives the same error: a bug, a wrong setting or a wrong schema.
    Fatal,
}

impl Class {
    /// As spans, metrics and logs name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Retryable => "retryable",
            Self::Fatal => "fatal",
        }
    }
}

/// The result of the shared adapters.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a server beneath us or of our talk with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MySQL refused a statement or could not be reached.
    #[error("MySQL: {0}")]
    Mysql(mysql_async::Error),
    /// Redis refused a command or could not be reached. Of a pipeline it tells the error of each command: the first do.
    #[error("Redis: {:.300}", .0.to_string())]
    Redis(redis::RedisError),
    /// No Redis connection could be had from the pool.
    #[error("Redis pool: {0}")]
    RedisPool(deadpool_redis::PoolError),
    /// RabbitMQ refused something or could not be reached.
    #[error("RabbitMQ: {0}")]
    Amqp(lapin::Error),
    /// Something took longer than its deadline.
    #[error("{what} took longer than {limit:?}")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: std::time::Duration,
    },
    /// A limit of this process is reached: it would queue more than it may.
    #[error("{what} is full")]
    Full {
        /// What is full.
        what: &'static str,
    },
    /// Something that should be there is not, for now.
    #[error("{what} is away")]
    Away {
        /// What is away.
        what: &'static str,
    },
    /// Every free coupon is held by a transaction that has not ended.
    #[error("every free coupon is held by others")]
    Held,
    /// A promise between our own parts was broken.
    #[error("{0}")]
    Broken(String),
}

// The drivers' errors print what caused them themselves: as `source` it would be printed twice.
macro_rules! from {
    ($error:ty, $variant:ident) => {
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    };
}

from!(mysql_async::Error, Mysql);
from!(redis::RedisError, Redis);
from!(deadpool_redis::PoolError, RedisPool);
from!(lapin::Error, Amqp);

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => mysql_class(error),
            Self::Redis(error) | Self::RedisPool(deadpool_redis::PoolError::Backend(error)) => redis_class(error),
            Self::Broken(_) => Class::Fatal,
            Self::RedisPool(_)
            | Self::Amqp(_)
            | Self::Deadline { .. }
            | Self::Full { .. }
            | Self::Away { .. }
            | Self::Held => Class::Retryable,
        }
    }

    /// Whether the work lost against others at the same rows, and may win at once if done again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Held => true,
            Self::Mysql(mysql_async::Error::Server(server)) => matches!(server.code, LOCK_WAIT_TIMEOUT | DEADLOCK),
            _ => false,
        }
    }

    /// The same error for one of many whose work failed together; its text has been logged by then.
    #[must_use]
    pub fn shared(&self) -> Self {
        match self {
            Self::Deadline { what, limit } => Self::Deadline { what, limit: *limit },
            Self::Full { what } => Self::Full { what },
            Self::Away { what } => Self::Away { what },
            Self::Held => Self::Held,
            _ if !self.is_retryable() => Self::Broken(self.to_string()),
            Self::Mysql(_) => Self::Away { what: "MySQL" },
            Self::Redis(_) | Self::RedisPool(_) => Self::Away { what: "Redis" },
            Self::Amqp(_) => Self::Away { what: "RabbitMQ" },
            Self::Broken(text) => Self::Broken(text.clone()),
        }
    }

    /// Whether the same work may succeed if done again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.class() == Class::Retryable
    }
}

const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;

/// Server error numbers: dev.mysql.com/doc/mysql-errors/en/server-error-reference.html; MariaDB's are the same.
fn mysql_class(error: &mysql_async::Error) -> Class {
    const TOO_MANY_CONNECTIONS: u16 = 1040;
    const SHUTDOWN_IN_PROGRESS: u16 = 1053;
    const DUPLICATE_ENTRY: u16 = 1062;
    const READ_ONLY: u16 = 1290;
    const QUERY_INTERRUPTED: u16 = 1317;

    match error {
        mysql_async::Error::Server(server) => match server.code {
            DUPLICATE_ENTRY => Class::Duplicate,
            TOO_MANY_CONNECTIONS | SHUTDOWN_IN_PROGRESS | LOCK_WAIT_TIMEOUT | DEADLOCK | READ_ONLY
            | QUERY_INTERRUPTED => Class::Retryable,
            _ => Class::Fatal,
        },
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(_) => Class::Retryable,
        mysql_async::Error::Other(_) | mysql_async::Error::Url(_) => Class::Fatal,
    }
}

/// A wrong password, a wrong type or a command that the server does not know stay wrong.
fn redis_class(error: &redis::RedisError) -> Class {
    use redis::{ErrorKind, ServerErrorKind};

    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(ServerErrorKind::ResponseError) => Class::Fatal,
        _ => Class::Retryable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> Error {
        Error::Mysql(mysql_async::Error::Server(mysql_async::ServerError {
            code,
            message: String::new(),
            state: String::new(),
        }))
    }

    #[test]
    fn mysql_errors_are_classed_by_number() {
        assert_eq!(server(1062).class(), Class::Duplicate);
        assert_eq!(server(1213).class(), Class::Retryable);
        assert_eq!(server(1205).class(), Class::Retryable);
        assert_eq!(server(1146).class(), Class::Fatal, "a missing table stays missing");
    }

    #[test]
    fn a_deadline_may_be_tried_again() {
        let error = Error::Deadline { what: "a test", limit: std::time::Duration::from_secs(1) };

        assert!(error.is_retryable());
    }
}
