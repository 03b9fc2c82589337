//! Publishing claims with confirms: each actix worker has one long-lived channel, and its confirms are pipelined by the
//! requests that wait side by side.
//!
//! Invariants: a channel never leaves its thread, because lapin numbers a message and writes it in two steps, and two
//! threads in between get each other's confirms; a message that comes back as unroutable fails every confirm still to
//! come on its channel, because lapin does not tell which message it was.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use coupon_core::broker::{self, Queues};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Claim, Error, Result};
use deadpool_lapin::{Config, Pool, PoolConfig, Runtime};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};

/// Confirms awaited on one channel: each confirm of many costs lapin a walk over all that are open.
const IN_FLIGHT_MAX: usize = 512;

/// After a channel could not be opened, requests fail at once for this long instead of queueing up to try.
const REOPEN_AFTER: Duration = Duration::from_millis(250);

/// The way to the broker: one connection for the process, shared by the channels of its workers.
///
/// A pool is right for the connection: it hands out the living one and replaces a dead one. It would be wrong for
/// publishing itself, where opening a channel for each message costs two round trips more.
#[derive(Clone)]
pub struct Broker {
    pool: Pool,
    queues: Queues,
    deadline: Duration,
    runtime: Handle,
}

impl Broker {
    /// On the current runtime; connects when first used.
    pub fn new(settings: &AmqpSettings, queues: Queues) -> anyhow::Result<Self> {
        let mut config = Config { url: Some(settings.amqp_url.reveal().to_owned()), ..Config::default() };
        config.pool = Some(PoolConfig::new(1));
        let pool = config
            .builder(|| broker::connection_properties("producer-api"), Runtime::Tokio1)?
            .create_timeout(Some(settings.amqp_deadline))
            .wait_timeout(Some(settings.amqp_deadline))
            .build()?;
        Ok(Self { pool, queues, deadline: settings.amqp_deadline, runtime: Handle::current() })
    }

    /// Whether the broker answers.
    pub async fn ping(&self) -> Result<()> {
        let this = self.clone();
        self.on_runtime(async move {
            let channel = this.connection().await?.create_channel().await?;
            Ok(channel.close(200, "checked".into()).await?)
        })
        .await
    }

    /// A channel in confirm mode, with the queues there to publish to.
    async fn open_channel(&self) -> Result<Channel> {
        let this = self.clone();
        self.on_runtime(async move {
            let channel = this.connection().await?.create_channel().await?;
            this.queues.declare(&channel).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        })
        .await
    }

    async fn connection(&self) -> Result<deadpool_lapin::Connection> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_lapin::PoolError::Backend(error) => Error::Amqp(error),
            _ => Error::Deadline { what: "connecting to RabbitMQ", limit: self.deadline },
        })
    }

    /// The connection belongs to the service's runtime, which outlives the workers'.
    async fn on_runtime<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let work = broker::within(self.deadline, "RabbitMQ", work);
        self.runtime.spawn(work).await.unwrap_or_else(|error| Err(Error::Broken(format!("RabbitMQ task: {error}"))))
    }
}

/// Publishes the claims of one actix worker.
pub struct Publisher {
    broker: Broker,
    channel: RefCell<Option<Rc<ConfirmChannel>>>,
    opening: Mutex<Option<Instant>>,
    in_flight: Semaphore,
}

struct ConfirmChannel {
    channel: Channel,
    failed: Cell<bool>,
}

impl Publisher {
    /// For the worker of the current thread.
    pub fn new(broker: Broker) -> Self {
        Self {
            broker,
            channel: RefCell::new(None),
            opening: Mutex::new(None),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    /// Publishes a claim and returns when it is safe on the broker's disk.
    ///
    /// # Errors
    /// The broker is away, refuses (its queue is full), or does not confirm within the deadline. The claim may have
    /// arrived all the same, which does no harm: processing is idempotent.
    pub async fn publish(&self, claim: &Claim) -> Result<()> {
        let body = broker::encode(claim)?;
        broker::within(self.broker.deadline, "a publisher confirm", async {
            let _permit = self.in_flight.acquire().await;
            let channel = self.channel().await?;
            let published = channel.publish(&self.broker.queues, &body).await;
            if channel.failed.get() {
                self.forget(&channel);
            }
            published
        })
        .await
    }

    async fn channel(&self) -> Result<Rc<ConfirmChannel>> {
        if let Some(channel) = self.open() {
            return Ok(channel);
        }
        let mut failed_at = self.opening.lock().await;
        if let Some(channel) = self.open() {
            return Ok(channel);
        }
        if failed_at.is_some_and(|at| at.elapsed() < REOPEN_AFTER) {
            return Err(Error::Deadline { what: "opening a channel again", limit: REOPEN_AFTER });
        }
        match self.broker.open_channel().await {
            Ok(channel) => {
                let channel = Rc::new(ConfirmChannel { channel, failed: Cell::new(false) });
                *self.channel.borrow_mut() = Some(Rc::clone(&channel));
                Ok(channel)
            }
            Err(error) => {
                *failed_at = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn open(&self) -> Option<Rc<ConfirmChannel>> {
        self.channel.borrow().clone().filter(|channel| channel.channel.status().connected())
    }

    fn forget(&self, failed: &Rc<ConfirmChannel>) {
        let mut channel = self.channel.borrow_mut();
        if channel.as_ref().is_some_and(|channel| Rc::ptr_eq(channel, failed)) {
            *channel = None;
        }
    }
}

impl ConfirmChannel {
    async fn publish(&self, queues: &Queues, body: &[u8]) -> Result<()> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent =
            self.channel.basic_publish("".into(), queues.claims.clone(), options, body, broker::properties()).await;
        let confirmation = match sent {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmation {
            Ok(Confirmation::Ack(None)) if !self.failed.get() => Ok(()),
            // A queue at its limit; the channel is fine.
            Ok(Confirmation::Nack(None)) => Err(Error::Full { what: "the queue" }),
            Ok(Confirmation::Ack(None)) => {
                Err(Error::Deadline { what: "a trustworthy confirm", limit: Duration::ZERO })
            }
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                self.failed.set(true);
                tracing::error!(queue = %queues.claims, "a claim came back: the queue is gone; it is made again");
                Err(Error::Full { what: "the broker, which has no queue for claims," })
            }
            Ok(Confirmation::NotRequested) => Err(Error::Broken(String::from("the channel is not in confirm mode"))),
            Err(error) => {
                self.failed.set(true);
                Err(Error::Amqp(error))
            }
        }
    }
}
