//! The connection to Redis that many tasks of a process share, replaced when it turns out to be bad.
//!
//! The server behind a name can be replaced while the connection to the old one stays up. Invariant: a connection on
//! which something failed that is not the command's fault (a replica that takes no writes, a timeout, a login that is
//! no longer valid) carries no further command; nor does one that has reached its maximum age.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{self, Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};
use futures_util::{FutureExt, Stream, StreamExt as _};

pub mod keys;
pub mod outcomes;
pub mod push;

use crate::age::end_of_life;
use crate::error::{Error, Result, names_no_database};
use crate::settings::{RedisSettings, ServerUrl};

/// Data that is not acknowledged within this time ends the connection, whatever the kernel's own timeout is.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// A connection that reconnects by itself, for a command line or a test. Services share a [`Redis`].
///
/// # Errors
/// An address that redis-rs refuses. The server need not be there yet.
pub fn connect(settings: &RedisSettings) -> Result<ConnectionManager> {
    Ok(ConnectionManager::new_lazy_with_config(client(settings)?, config(settings))?)
}

/// Creates a client of the server; commands on its connections have no deadline.
///
/// # Errors
/// An address that redis-rs refuses.
pub fn client(settings: &RedisSettings) -> Result<Client> {
    use redis::IntoConnectionInfo as _;

    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(UNACKNOWLEDGED_MAX);
    let server = settings.redis_url.reveal().into_connection_info()?.set_tcp_settings(tcp);
    Ok(if settings.redis_url.asks_for_tls() {
        Client::build_with_tls(server, settings.tls.0.redis())?
    } else {
        Client::open(server)?
    })
}

fn config(settings: &RedisSettings) -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_connection_timeout(Some(settings.redis_deadline))
        .set_response_timeout(Some(settings.redis_deadline))
        // The caller decides when to try again; the manager reconnects for the next command.
        .set_number_of_retries(1)
        .set_pipeline_buffer_size(1024)
}

/// A connection to Redis that many tasks share: commands of all of them travel in one pipeline, and it connects when it
/// is first used. A pool would be wrong here: deadpool-redis pings on each checkout, which doubles the round trips.
/// Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    config: ConnectionManagerConfig,
    deadline: Duration,
    max_age: Duration,
    current: Arc<RwLock<Shared>>,
}

#[derive(Clone)]
struct Shared {
    connection: ConnectionManager,
    until: Instant,
}

impl Redis {
    /// Creates a connection as the settings say.
    ///
    /// # Errors
    /// An address that redis-rs refuses. The server need not be there yet.
    pub fn new(settings: &RedisSettings) -> Result<Self> {
        let (client, config) = (client(settings)?, config(settings));
        let current = Arc::new(RwLock::new(Shared::open(&client, &config, settings.redis_connection_age)?));
        let (deadline, max_age) = (settings.redis_deadline, settings.redis_connection_age);
        Ok(Self { client, config, deadline, max_age, current })
    }

    /// Checks that the server has the database that the address names. Whatever else is wrong may pass.
    ///
    /// # Errors
    /// The server does not have it.
    pub async fn check_database(&self, address: &ServerUrl) -> Result<()> {
        let asked: RedisResult<()> = redis::cmd("PING").exec_async(&mut self.clone()).await;
        match asked.map_err(Error::from) {
            Err(Error::Redis(error)) if names_no_database(&error) => {
                let error = Error::Redis(error);
                Err(Error::Broken(format!("{address}: {error}; {}", error.remedy())))
            }
            _ => Ok(()),
        }
    }

    /// Whether the server takes writes: sets a key that lives for a moment.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn can_write(&self, key: &str) -> Result<()> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg("").arg("PX").arg(100);
        Ok(set.exec_async(&mut self.clone()).await?)
    }

    /// Subscribes to what is published to a channel from now on, over a connection of its own, until that breaks.
    ///
    /// # Errors
    /// Any error from Redis, or [`Error::Deadline`].
    pub async fn subscribe(&self, channel: &str) -> Result<impl Stream<Item = Vec<u8>> + use<>> {
        let subscribe = async {
            let mut subscription = self.client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            Ok(subscription.into_on_message().map(|message| message.get_payload_bytes().to_vec()))
        };
        let late = |_| Err(Error::Deadline { what: "subscribing at Redis", limit: self.deadline });
        tokio::time::timeout(self.deadline, subscribe).await.unwrap_or_else(late)
    }

    /// Publishes a message to all who are subscribed to a channel.
    ///
    /// # Errors
    /// Any error from Redis.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(message);
        Ok(publish.exec_async(&mut self.clone()).await?)
    }

    /// The connection to use now.
    fn current(&self) -> RedisResult<Shared> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if Instant::now() < current.until { Ok(current) } else { self.replace(&current) }
    }

    /// Replaces the connection for all callers from now on; commands in flight on the old one are not disturbed. If
    /// many callers find the same one bad, the first of them replaces it.
    fn replace(&self, bad: &Shared) -> RedisResult<Shared> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.until == bad.until {
            *current = Shared::open(&self.client, &self.config, self.max_age)?;
        }
        Ok(current.clone())
    }

    /// Passes an answer on, and replaces the connection if the answer shows that it is unfit.
    fn checked<T>(
        &self,
        connection: &Shared,
        answer: RedisResult<T>,
        values: impl Fn(&T) -> &[Value],
    ) -> RedisResult<T> {
        let blames_it = |error: redis::RedisError| Error::from(error).blames_the_connection();
        let is_bad = match &answer {
            Ok(answer) => values(answer).iter().any(|value| match value {
                Value::ServerError(error) => blames_it(error.clone().into()),
                _ => false,
            }),
            Err(error) => blames_it(error.clone()),
        };
        if is_bad {
            self.replace(connection)?;
        }
        answer
    }
}

impl Shared {
    fn open(client: &Client, config: &ConnectionManagerConfig, max_age: Duration) -> RedisResult<Self> {
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self { connection, until: end_of_life(max_age) })
    }
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let mut shared = self.current()?;
            // The driver returns a refusal as a value; its iterators would report that as a parse error.
            let answer = shared.connection.req_packed_command(command).await.and_then(Value::extract_error);
            self.checked(&shared, answer, std::slice::from_ref)
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let mut shared = self.current()?;
            let answer = shared.connection.req_packed_commands(pipeline, offset, count).await;
            self.checked(&shared, answer, Vec::as_slice)
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).connection.get_db()
    }
}
