//! The connection to the broker: one for the process, one long-lived confirm channel for each actix worker.
//!
//! The broker can be replaced behind its name while connections to the one before stay up. A connection that is old, that
//! did not answer in time, or on which a check (`watch.rs`) failed is given up by all workers, who open their channels on
//! the next.
//! Invariants: a channel never leaves its thread, because lapin numbers a message and writes it in two steps, and two
//! threads in between get each other's confirms; a message that comes back as unroutable fails every message that still
//! waits on its channel, because lapin hands it to whichever confirm comes next.

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

/// Confirms that a channel may have lost, by deadlines that passed, before it is given up with what lapin keeps for them.
const LOST_MAX: usize = 512;

/// After a channel could not be opened, messages fail at once for this long instead of queueing up to try.
const REOPEN_AFTER: Duration = Duration::from_millis(250);

const QUEUE: &str = "the queue";

const QUEUE_GONE: Error = Error::Away { what: QUEUE };

/// The connection to the broker: one for the process, shared by the channels of its workers.
///
/// A pool is right for the connection: it hands out the living one and replaces a dead one. It would be wrong for
/// publishing itself, where opening a channel for each message costs two round trips more.
#[derive(Clone)]
pub struct Broker {
    pool: Pool<Dial>,
    queues: Queues,
    deadline: Duration,
    max_age: Duration,
    runtime: Handle,
    /// Counts the connections that were given up: channels of those before are not used again.
    given_up: Arc<AtomicU64>,
    /// Why no claims are let through, as the last check has found it. None are before one has found that the broker keeps
    /// them.
    danger: Arc<RwLock<Option<Error>>>,
}

/// Makes the connection.
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

/// A channel in confirm mode, and what its connection is.
pub struct Opened {
    pub channel: Channel,
    connection: ConnectionStatus,
    /// Of the connection.
    number: u64,
    /// When the connection has lived long enough.
    old: Instant,
}

impl Opened {
    /// Whether it may be used while connections of this number are.
    pub fn is_usable(&self, number: u64) -> bool {
        self.number == number && Instant::now() < self.old && self.channel.status().connected()
    }

    /// Whether the broker takes messages on it. One that is short of memory or disk blocks its publishers, and what they
    /// send then piles up in lapin.
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
    /// On the current runtime; connects when first used.
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

    /// The queues that it leads to.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Checks that the queues that are there are as they must be.
    pub async fn check_queues(&self) -> Result<()> {
        self.queues.check(&*self.connection().await?).await
    }

    /// Lets claims through, or none for this reason.
    pub fn set_danger(&self, danger: Option<Error>) {
        *self.danger.write().unwrap_or_else(PoisonError::into_inner) = danger;
    }

    /// Whether claims are let through.
    ///
    /// # Errors
    /// Why they are not.
    pub fn keeps_claims(&self) -> Result<()> {
        let danger = self.danger.read().unwrap_or_else(PoisonError::into_inner);
        danger.as_ref().map_or(Ok(()), |danger| Err(danger.shared()))
    }

    /// A channel in confirm mode, with the queues there to publish to. On the service's runtime, to which the connection
    /// belongs.
    pub async fn open(&self) -> Result<Opened> {
        self.queues.declare(&*self.connection().await?).await?;
        self.open_channel().await
    }

    /// The same, with the queues as they are.
    pub async fn open_channel(&self) -> Result<Opened> {
        let (number, old) = (self.number(), end_of_life(self.max_age));
        let connection = self.connection().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Opened { channel, connection: connection.status().clone(), number, old })
    }

    /// The number of the connection that is used now.
    pub fn number(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Gives up the connection of this number, unless somebody has done so already.
    pub fn give_up(&self, number: u64) {
        if self.given_up.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.pool.retain(|_, _| false);
        }
    }

    /// A channel for the worker that calls.
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

    /// The connection belongs to the service's runtime, which outlives the workers'.
    async fn on_runtime<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        // Less than a request waits, so that it is this that fails first and tells those behind it.
        let work = rabbitmq::within(self.deadline / 2, "RabbitMQ", work);
        self.runtime.spawn(work).await.unwrap_or_else(|error| Err(Error::Broken(format!("RabbitMQ task: {error}"))))
    }
}

/// The channel of one actix worker, opened anew when it has become unusable.
pub struct WorkerChannel {
    broker: Broker,
    channel: RefCell<Option<Rc<ConfirmChannel>>>,
    opening: Mutex<Option<Instant>>,
}

struct ConfirmChannel {
    opened: Opened,
    /// A message came back: whose, lapin does not tell.
    returned: Cell<bool>,
    /// Confirms begun and not ended: those awaited, and those given up by a deadline or with their client, which lapin
    /// keeps for as long as the channel lives.
    open: Cell<usize>,
}

impl WorkerChannel {
    /// For the worker of the current thread.
    pub fn new(broker: Broker) -> Self {
        Self { broker, channel: RefCell::new(None), opening: Mutex::new(None) }
    }

    /// Publishes a message and returns when it is safe on the broker's disk.
    ///
    /// # Errors
    /// The broker is away, refuses (its queue is full), or does not confirm within the deadline. The message may have
    /// arrived all the same, which does no harm: processing is idempotent.
    pub async fn publish(&self, properties: AMQPProperties, body: &[u8]) -> Result<()> {
        // The reason is logged by the check, once, not again for each claim.
        self.broker.keeps_claims().map_err(|_| Error::Away { what: "a queue that keeps claims" })?;
        let number = self.broker.number();
        let published = rabbitmq::within(self.broker.deadline, "a publisher confirm", async {
            let channel = self.channel().await?;
            let published = channel.publish(&self.broker.queues, properties, body).await;
            if channel.returned.get() {
                // The queue is made again only after its consumers were told of its end: made sooner, a quorum queue of
                // RabbitMQ 3.10 may confirm claims that no consumer ever gets.
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

    /// Where messages go.
    pub fn queue(&self) -> &str {
        self.broker.queues.claims.as_str()
    }

    /// How long a publish may take.
    pub fn deadline(&self) -> Duration {
        self.broker.deadline
    }

    /// The channel, opened anew by the first message that finds it unusable.
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
                // The confirm that carries a returned message was resolved before this one. Letting the senders that were
                // woken first go first makes sure that it has been checked.
                tokio::task::yield_now().await;
                if self.returned.get() { Err(QUEUE_GONE) } else { Ok(()) }
            }
            // A queue at its limit; the channel is fine.
            Confirmation::Nack(None) => Err(Error::Refused { queue: QUEUE }),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                self.returned.set(true);
                tracing::error!(queue = %queues.claims, "a message came back: the queue is gone; it is made again");
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
