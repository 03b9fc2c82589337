//! Errors of the shared adapters, each with the class that decides what to do about it.
//!
//! An error becomes HTTP only at the last step ([`crate::http::problem`]); its text goes to the log, never to a client.

mod servers;
mod tls;
pub(crate) mod words;

use deadpool_redis::redis;

pub use self::servers::names_no_database;
use self::servers::{
    Advice, amqp_advice, amqp_refuses_access, management_advice, mysql_advice, mysql_class, mysql_is_conflict,
    redis_advice, redis_class,
};
use crate::domain::InstallationId;

/// What took longer than a deadline when it was work in MySQL.
pub(crate) const WORK_IN_MYSQL: &str = "work in MySQL";

/// What to do about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The work was done before: look its result up.
    Duplicate,
    /// Not now: a server is away, busy, read-only, or refuses for a reason of its own. The same work may succeed if
    /// done again, perhaps only after an operator has fixed something.
    Retryable,
    /// Our own fault: a statement that the server does not understand, or a broken promise between our own parts.
    Fatal,
}

impl Class {
    /// Its name in spans, metrics and logs.
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

/// A failure of a server that we depend on, or of our communication with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MySQL refused a statement or could not be reached.
    #[error("MySQL: {}", words::mysql(.0))]
    Mysql(mysql_async::Error),
    /// Redis refused a command or could not be reached.
    #[error("Redis: {}", words::redis(.0))]
    Redis(redis::RedisError),
    /// The pool had no Redis connection to give.
    #[error("Redis pool: {}", words::redis_pool(.0))]
    RedisPool(deadpool_redis::PoolError),
    /// RabbitMQ refused something or could not be reached.
    #[error("RabbitMQ: {}", words::amqp(.0))]
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
    /// RabbitMQ refused to keep a message: its queue is at its limit.
    #[error("{queue} refuses messages")]
    Refused {
        /// The queue that the message was meant for.
        queue: &'static str,
    },
    /// RabbitMQ is short of memory or disk, and accepts nothing from publishers.
    #[error("RabbitMQ takes no messages: it is short of memory or disk")]
    Blocked,
    /// Others were quicker each time, and the work was repeated as often as it may be.
    #[error("{what} failed {tries} times")]
    Exhausted {
        /// What was tried.
        what: &'static str,
        /// How often.
        tries: usize,
    },
    /// Something that should be there is not, for now.
    #[error("{what} is away")]
    Away {
        /// What is away.
        what: &'static str,
    },
    /// Plain reads are answered by a read-only server while other statements are not, so "sold out" cannot be proved.
    #[error("MySQL: it is read-only, or a proxy sends plain reads to a replica")]
    ReadsElsewhere,
    /// RabbitMQ's HTTP API refused something or could not be reached.
    #[error("RabbitMQ's HTTP API: {}", words::http(.0))]
    Management(reqwest::Error),
    /// RabbitMQ is set up so that claims it has confirmed may be lost. Says what is wrong and what to do about it.
    #[error("{0}")]
    Unsafe(String),
    /// The queue holds claims that belong to another database than ours.
    #[error("the queue holds claims of the installation {theirs}, and this database is the installation {ours}")]
    Foreign {
        /// Whose claims they are.
        theirs: InstallationId,
        /// Whose database this is.
        ours: InstallationId,
    },
    /// Every free coupon is held by a transaction that has not ended.
    #[error("every free coupon is held by others")]
    Held,
    /// An earlier error, kept as text, that blocks work which goes on by itself once its cause is gone.
    #[error("{reason}")]
    Stuck {
        /// That error's text.
        reason: String,
        /// Its class.
        class: Class,
        /// Whether it stays until somebody fixes it.
        stays: bool,
        /// Its remedy.
        remedy: &'static str,
    },
    /// A promise between our own parts was broken.
    #[error("{0}")]
    Broken(String),
}

// The drivers' errors already print their causes: as a `source`, a cause would be printed twice.
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
from!(reqwest::Error, Management);

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Mysql(error) => mysql_class(error),
            Self::Redis(error) | Self::RedisPool(deadpool_redis::PoolError::Backend(error)) => redis_class(error),
            Self::Broken(_) | Self::Foreign { .. } => Class::Fatal,
            Self::Stuck { class, .. } => *class,
            Self::RedisPool(_)
            | Self::Amqp(_)
            | Self::Management(_)
            | Self::Unsafe(_)
            | Self::Deadline { .. }
            | Self::Full { .. }
            | Self::Refused { .. }
            | Self::Blocked
            | Self::Exhausted { .. }
            | Self::Away { .. }
            | Self::ReadsElsewhere
            | Self::Held => Class::Retryable,
        }
    }

    /// Whether the connection that it came from must not be used again: it broke, hangs, or leads to a server that
    /// cannot do the work, such as one that was demoted. Not after a mistake of ours, nor when the work only lost to
    /// other work.
    #[must_use]
    pub fn blames_the_connection(&self) -> bool {
        let is_of_a_server = matches!(
            self,
            Self::Mysql(_)
                | Self::Redis(_)
                | Self::RedisPool(_)
                | Self::Amqp(_)
                | Self::Deadline { .. }
                | Self::ReadsElsewhere
        );
        is_of_a_server && self.is_retryable() && !self.is_conflict()
    }

    /// What an operator can do about it, and whether it stays until then.
    fn advice(&self) -> Advice {
        if let Some(trouble) = tls::trouble(self) {
            return tls::advice(trouble);
        }
        match self {
            Self::Mysql(error) => mysql_advice(error),
            Self::Redis(error) | Self::RedisPool(deadpool_redis::PoolError::Backend(error)) => redis_advice(error),
            Self::Amqp(error) => amqp_advice(error),
            // The server may go on with what it has begun.
            Self::Deadline { what: WORK_IN_MYSQL, .. } => {
                Advice::wait("see that the server runs and is reached; what was asked of it may have been done")
            }
            Self::Deadline { .. } | Self::RedisPool(_) => Advice::wait("see that the server runs and is reached"),
            Self::ReadsElsewhere => {
                Advice::mend("let COUPON_MYSQL_URL lead to the primary, and let no proxy send reads to a replica")
            }
            Self::Full { .. } | Self::Refused { .. } | Self::Blocked | Self::Exhausted { .. } | Self::Held => {
                Advice::wait("it passes when there is less to do")
            }
            Self::Foreign { .. } => Advice::mend(
                "give each installation a COUPON_NAMESPACE or a virtual host of its own, or let COUPON_MYSQL_URL lead to the \
                 database of these claims; none are taken until the queue is empty",
            ),
            Self::Management(error) => management_advice(error),
            Self::Unsafe(_) => Advice::mend("no claims are accepted until then"),
            Self::Stuck { remedy, stays, .. } => Advice { remedy, stays: *stays },
            Self::Away { .. } => Advice::wait("see that it runs and is reached"),
            Self::Broken(_) => Advice::mend("the message says what to do, or it is a bug to report"),
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.advice().remedy
    }

    /// Whether it stays until somebody fixes it: the server has answered, and refuses. Any other error may pass by
    /// itself.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.advice().stays
    }

    /// Whether the work lost to other work on the same rows, and may succeed at once if done again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Held => true,
            Self::Mysql(error) => mysql_is_conflict(error),
            _ => false,
        }
    }

    /// Whether RabbitMQ refused the login, or something that its user has no right to.
    #[must_use]
    pub fn is_access_refused(&self) -> bool {
        matches!(self, Self::Amqp(error) if amqp_refuses_access(error))
    }

    /// The same error for one of many callers whose work failed together. Of a server's error it keeps only the text.
    #[must_use]
    pub fn shared(&self) -> Self {
        match self {
            Self::Deadline { what, limit } => Self::Deadline { what, limit: *limit },
            Self::Full { what } => Self::Full { what },
            Self::Refused { queue } => Self::Refused { queue },
            Self::Blocked => Self::Blocked,
            Self::Exhausted { what, tries } => Self::Exhausted { what, tries: *tries },
            Self::Away { what } => Self::Away { what },
            Self::Held => Self::Held,
            Self::ReadsElsewhere => Self::ReadsElsewhere,
            Self::Stuck { .. } => self.as_stuck(),
            Self::Foreign { theirs, ours } => Self::Foreign { theirs: *theirs, ours: *ours },
            _ if !self.is_retryable() => Self::Broken(self.to_string()),
            Self::Mysql(_) | Self::Redis(_) | Self::RedisPool(_) | Self::Amqp(_) | Self::Management(_) => {
                self.as_stuck()
            }
            Self::Unsafe(text) => Self::Unsafe(text.clone()),
            Self::Broken(text) => Self::Broken(text.clone()),
        }
    }

    /// The same error as text, to be reported elsewhere.
    #[must_use]
    pub fn as_stuck(&self) -> Self {
        Self::Stuck { reason: self.to_string(), class: self.class(), stays: self.stays(), remedy: self.remedy() }
    }

    /// Whether the same work may succeed if done again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.class() == Class::Retryable
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
    fn mistakes_in_a_statement_are_ours_and_all_else_is_not_now() {
        assert_eq!(server(1062).class(), Class::Duplicate);
        assert_eq!(server(1064).class(), Class::Fatal, "a syntax error stays one");
        assert_eq!(server(1146).class(), Class::Fatal, "a missing table stays missing");
        for code in [1040, 1142, 1205, 1213, 1290, 1317, 1644, 1665, 1792, 1836, 3572, 9999] {
            assert_eq!(server(code).class(), Class::Retryable, "{code}");
        }
    }

    #[test]
    fn a_connection_to_a_server_that_was_demoted_is_thrown_away() {
        for code in [1053, 1142, 1290, 1792, 1836] {
            assert!(server(code).blames_the_connection(), "{code}");
        }
        for code in [1062, 1064, 1205, 1213] {
            assert!(!server(code).blames_the_connection(), "{code}");
        }
    }

    #[test]
    fn the_broker_says_what_to_mend_by_its_reply_code() {
        use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

        let refusal = |kind: AMQPErrorKind| {
            let refusal = AMQPError::new(kind, "in words of its own".into());
            Error::Amqp(lapin::ErrorKind::ProtocolError(refusal).into())
        };
        let access = refusal(AMQPSoftError::ACCESSREFUSED.into());
        let host = refusal(AMQPHardError::NOTALLOWED.into());
        let other = refusal(AMQPHardError::INTERNALERROR.into());

        assert!(access.is_access_refused() && access.stays() && access.remedy().contains("password"));
        assert!(!host.is_access_refused() && host.stays() && host.remedy().contains("virtual host"));
        assert!(!other.is_access_refused() && !other.stays());
    }

    #[test]
    fn redis_refusals_are_not_now() {
        let error = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            Error::from(value.extract_error().unwrap_err())
        };

        for line in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions to run the 'set' command",
            "ERR max number of clients reached",
        ] {
            assert!(error(line).is_retryable() && error(line).blames_the_connection(), "{line}");
        }
        for line in ["WRONGTYPE Operation against a key holding the wrong kind of value", "ERR unknown command 'LPOPP'"]
        {
            assert_eq!(error(line).class(), Class::Fatal, "{line}");
        }
    }

    #[test]
    fn what_somebody_must_mend_is_told_from_what_passes() {
        for code in [1044, 1045, 1142, 1146, 1290, 1665, 1792] {
            assert!(server(code).stays(), "{code}");
        }
        for code in [1040, 1053, 1205, 1213, 1317] {
            assert!(!server(code).stays(), "{code}");
        }
        let broker = Error::Unsafe(String::from("a policy"));
        assert!(broker.stays() && broker.as_stuck().stays());
        assert!(!Error::Away { what: "RabbitMQ" }.as_stuck().stays());
    }

    #[test]
    fn a_deadline_may_be_tried_again() {
        let error = Error::Deadline { what: "a test", limit: std::time::Duration::from_secs(1) };

        assert!(error.is_retryable());
    }
}
