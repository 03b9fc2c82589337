//! The connection to the broker: one for the process, one long-lived confirm channel for each actix worker.
//!
//! A broker can be replaced behind its name while connections to its predecessor stay up. All workers give up a
//! connection that is too old, that did not answer in time, or that failed a check (`watch.rs`), and open their
//! channels on the next one.
//! Invariants: a channel never leaves its thread, because lapin numbers a message and writes it in two steps, so two
//! threads that interleave would get each other's confirms; a message returned as unroutable fails every message still
//! waiting on its channel, because lapin attaches it to whichever confirm comes next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use coupon_core::age::{end_of_life, younger_than};
use coupon_core::rabbitmq::{self, Queues};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Error, Result};
use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::{Channel, Confirmation, Connection, ConnectionStatus};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// How many confirms a channel may lose to deadlines before it is given up, along with the state lapin keeps for them.
const LOST_MAX: usize = 512;

/// For this long after a channel failed to open, messages fail immediately instead of queueing up to try again.
const REOPEN_AFTER: Duration = Duration::from_millis(250);

const QUEUE: &str = "the queue";

const QUEUE_GONE: Error = Error::Away { what: QUEUE };

/// The connection to the broker: one for the process, shared by the channels of its workers.
///
/// A pool suits the connection: it hands out the live one and replaces a dead one. It would not suit publishing itself,
/// where opening a channel for each message would cost two more round trips.
#[derive(Clone)]
pub struct Broker {
    pool: Pool<Dial>,
    queues: Queues,
    deadline: Duration,
    max_age: Duration,
    runtime: Handle,
    /// How many connections have been given up; channels on those are not used again.
    given_up: Arc<AtomicU64>,
    /// Why claims are rejected, according to the last check. They are until a check has found that the broker keeps
    /// them.
    danger: Arc<RwLock<Option<Error>>>,
}

/// Opens the connection.
struct Dial(AmqpSettings);

impl Manager for Dial {
    type Type = Connection;
    type Error = lapin::Error;

    async fn create(&self) -> lapin::Result<Connection> {
        rabbitmq::dial(&self.0, "producer-api").await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<lapin::Error> {
        if connection.status().connected() { Ok(()) } else { Err(RecycleError::message("it is closed")) }
    }
}

/// A channel in confirm mode, with the state of its connection.
pub struct Opened {
    pub channel: Channel,
    connection: ConnectionStatus,
    /// The number of the connection.
    number: u64,
    /// When the connection reaches its maximum age.
    old: Instant,
}

impl Opened {
    /// Whether the channel may be used while the connection with this number is current.
    pub fn is_usable(&self, number: u64) -> bool {
        self.number == number && Instant::now() < self.old && self.channel.status().connected()
    }

    /// Whether the broker takes messages on this channel. A broker short of memory or disk blocks its publishers, and
    /// the messages they send meanwhile pile up in lapin.
    pub fn accepts(&self) -> Result<()> {
        if self.connection.blocked() {
            Err(Error::Blocked)
        } else if self.connection.connected() {
            Ok(())
        } else {
            Err(Error::Away { what: "RabbitMQ" })
        }
    }
}

impl Broker {
    /// Creates a broker on the current runtime; it connects on first use.
    pub fn new(settings: &AmqpSettings, queues: Queues) -> anyhow::Result<Self> {
        let max_age = settings.amqp_connection_age;
        let pool = Pool::builder(Dial(settings.clone()))
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(settings.amqp_deadline))
            .wait_timeout(Some(settings.amqp_deadline))
            .pre_recycle(younger_than(max_age))
            .build()?;
        Ok(Self {
            pool,
            queues,
            deadline: settings.amqp_deadline,
            max_age,
            runtime: Handle::current(),
            given_up: Arc::default(),
            danger: Arc::new(RwLock::new(Some(Error::Away { what: "RabbitMQ" }))),
        })
    }

    /// The queues on this broker.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Checks that the existing queues have the required properties.
    pub async fn check_queues(&self) -> Result<()> {
        self.queues.check(&*self.connection().await?).await
    }

    /// Accepts claims from now on, or rejects them for this reason.
    pub fn set_danger(&self, danger: Option<Error>) {
        *self.danger.write().unwrap_or_else(PoisonError::into_inner) = danger;
    }

    /// Whether claims are accepted.
    ///
    /// # Errors
    /// The reason why they are not.
    pub fn keeps_claims(&self) -> Result<()> {
        let danger = self.danger.read().unwrap_or_else(PoisonError::into_inner);
        danger.as_ref().map_or(Ok(()), |danger| Err(danger.shared()))
    }

    /// Declares the queues and opens a channel in confirm mode. Call it on the service's runtime, which owns the
    /// connection.
    pub async fn open(&self) -> Result<Opened> {
        self.queues.declare(&*self.connection().await?).await?;
        self.open_channel().await
    }

    /// Like [`Self::open`], but does not declare the queues.
    pub async fn open_channel(&self) -> Result<Opened> {
        let (number, old) = (self.number(), end_of_life(self.max_age));
        let connection = self.connection().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Opened { channel, connection: connection.status().clone(), number, old })
    }

    /// The number of the current connection.
    pub fn number(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Gives up the connection of this number, unless somebody has done so already.
    pub fn give_up(&self, number: u64) {
        if self.given_up.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.pool.retain(|_, _| false);
        }
    }

    /// Opens a channel for the calling worker.
    async fn open_for_worker(&self) -> Result<ConfirmChannel> {
        let this = self.clone();
        let opened = self.on_runtime(async move { this.open().await }).await?;
        Ok(ConfirmChannel { opened, returned: Cell::new(false), open: Cell::new(0) })
    }

    async fn connection(&self) -> Result<Object<Dial>> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Error::Amqp(error),
            _ => Error::Deadline { what: "connecting to RabbitMQ", limit: self.deadline },
        })
    }

    /// Runs work on the service's runtime, which owns the connection and outlives the workers' runtimes.
    async fn on_runtime<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        // Shorter than a request's deadline, so that this fails first and the requests queued after it learn why.
        let work = rabbitmq::within(self.deadline / 2, "RabbitMQ", work);
        self.runtime.spawn(work).await.unwrap_or_else(|error| Err(Error::Broken(format!("RabbitMQ task: {error}"))))
    }
}

/// The channel of one actix worker, reopened when it has become unusable.
pub struct WorkerChannel {
    broker: Broker,
    channel: RefCell<Option<Rc<ConfirmChannel>>>,
    opening: Mutex<Option<Instant>>,
}

struct ConfirmChannel {
    opened: Opened,
    /// Whether a message came back. lapin does not say which one.
    returned: Cell<bool>,
    /// Outstanding confirms: those awaited, and those abandoned at a deadline or when their client hung up, which lapin
    /// keeps for the life of the channel.
    open: Cell<usize>,
}

impl WorkerChannel {
    /// Creates the channel of the current thread's worker.
    pub fn new(broker: Broker) -> Self {
        Self { broker, channel: RefCell::new(None), opening: Mutex::new(None) }
    }

    /// Publishes a message and returns when it is safe on the broker's disk.
    ///
    /// # Errors
    /// The broker is away, refuses (its queue is full), or does not confirm within the deadline. The message may have
    /// arrived anyway, which is harmless: processing is idempotent.
    pub async fn publish(&self, properties: AMQPProperties, body: &[u8]) -> Result<()> {
        // The check logs the reason once; it is not repeated for each claim.
        self.broker.keeps_claims().map_err(|_| Error::Away { what: "a queue that keeps claims" })?;
        let number = self.broker.number();
        let published = rabbitmq::within(self.broker.deadline, "a publisher confirm", async {
            let channel = self.channel().await?;
            let published = channel.publish(&self.broker.queues, properties, body).await;
            if channel.returned.get() {
                // The queue is declared again only after its consumers have been told that it was deleted: declared
                // sooner, a quorum queue of RabbitMQ 3.10 may confirm claims that no consumer ever gets.
                *self.opening.lock().await = Some(Instant::now());
            }
            published
        })
        .await;
        if matches!(published, Err(Error::Deadline { .. })) {
            self.broker.give_up(number);
        }
        published
    }

    /// The name of the queue that messages go to.
    pub fn queue(&self) -> &str {
        self.broker.queues.claims.as_str()
    }

    /// How long a publish may take.
    pub fn deadline(&self) -> Duration {
        self.broker.deadline
    }

    /// The channel, reopened by the first message that finds it unusable.
    async fn channel(&self) -> Result<Rc<ConfirmChannel>> {
        if let Some(channel) = self.usable() {
            return Ok(channel);
        }
        let mut failed_at = self.opening.lock().await;
        if let Some(channel) = self.usable() {
            return Ok(channel);
        }
        if failed_at.is_some_and(|at| at.elapsed() < REOPEN_AFTER) {
            return Err(Error::Away { what: "RabbitMQ" });
        }
        let opened = self.broker.open_for_worker().await;
        *failed_at = opened.is_err().then(Instant::now);
        let channel = Rc::new(opened?);
        *self.channel.borrow_mut() = Some(Rc::clone(&channel));
        Ok(channel)
    }

    fn usable(&self) -> Option<Rc<ConfirmChannel>> {
        self.channel.borrow().clone().filter(|channel| channel.is_usable(self.broker.number()))
    }
}

impl ConfirmChannel {
    fn is_usable(&self, number: u64) -> bool {
        self.opened.is_usable(number) && !self.returned.get() && self.open.get() < LOST_MAX
    }

    async fn publish(&self, queues: &Queues, properties: AMQPProperties, body: &[u8]) -> Result<()> {
        self.opened.accepts()?;
        self.open.set(self.open.get() + 1);
        let confirmation = self.send(queues, properties, body).await;
        self.open.set(self.open.get() - 1);
        match confirmation? {
            Confirmation::Ack(None) => {
                // A confirm that carries a returned message was resolved before this one. Yielding lets the sender that
                // was woken first run first, so that the return has been noted by now.
                tokio::task::yield_now().await;
                if self.returned.get() { Err(QUEUE_GONE) } else { Ok(()) }
            }
            // The queue is at its limit; the channel is fine.
            Confirmation::Nack(None) => Err(Error::Refused { queue: QUEUE }),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                self.returned.set(true);
                tracing::error!(queue = %queues.claims, "a message was returned: the queue was deleted; it is declared again");
                Err(QUEUE_GONE)
            }
            Confirmation::NotRequested => Err(Error::Broken(String::from("the channel is not in confirm mode"))),
        }
    }

    async fn send(&self, queues: &Queues, properties: AMQPProperties, body: &[u8]) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.opened.channel.basic_publish("".into(), queues.claims.clone(), options, body, properties).await?.await
    }
}
