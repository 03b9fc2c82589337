//! What tests do with the broker beside the services: put messages into the queues, look into them, delete them.

use coupon_core::broker::{self, Queues, message};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Claim, Installation, InstallationId};
use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::ShortString;
use opentelemetry::Context;
use tokio::sync::OnceCell;

/// The queues of one test.
pub struct TestQueues {
    settings: AmqpSettings,
    queues: Queues,
    installation: InstallationId,
    connection: OnceCell<lapin::Connection>,
}

impl TestQueues {
    pub(crate) fn new(settings: AmqpSettings, installation: &Installation) -> Self {
        let queues = Queues::new(&installation.namespace, &settings);
        Self { settings, queues, installation: installation.id, connection: OnceCell::new() }
    }

    async fn connection(&self) -> &lapin::Connection {
        let connect = async || broker::connect(&self.settings, "coupon-testkit").await;
        self.connection.get_or_try_init(connect).await.expect("a connection to RabbitMQ")
    }

    /// A channel each time: a refused command closes its own.
    async fn channel(&self) -> Channel {
        self.connection().await.create_channel().await.expect("a channel")
    }

    /// Makes the queues, with the default settings.
    pub async fn declare(&self) {
        self.queues.declare(self.connection().await).await.expect("the queues");
    }

    /// Puts a message into the queue of claims and returns when the broker has it.
    pub async fn publish(&self, properties: AMQPProperties, body: &[u8]) {
        self.publish_to(&self.queues.claims, properties, body).await;
    }

    /// Puts a message among those that could not be handled.
    pub async fn publish_dead_letter(&self, body: &[u8]) {
        self.publish_to(&self.queues.dead, AMQPProperties::default(), body).await;
    }

    async fn publish_to(&self, queue: &ShortString, properties: AMQPProperties, body: &[u8]) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), queue.clone(), options, body, properties).await;
        let confirm = sent.expect("a message sent").await.expect("a confirm");
        assert!(matches!(confirm, lapin::Confirmation::Ack(None)), "the broker refused a message: {confirm:?}");
    }

    /// Puts a claim into the queue as producer-api does.
    pub async fn publish_claim(&self, claim: &Claim) {
        self.publish_claim_of(&Context::new(), claim).await;
    }

    /// As [`Self::publish_claim`], of a trace.
    pub async fn publish_claim_of(&self, trace: &Context, claim: &Claim) {
        let body = message::encode(std::slice::from_ref(claim)).expect("a body");
        self.publish(message::properties(self.installation, std::iter::once(trace)), &body).await;
    }

    /// How many claims wait that no consumer holds.
    pub async fn waiting(&self) -> u32 {
        self.count(&self.queues.claims).await
    }

    /// How many messages could not be handled.
    pub async fn dead_letters(&self) -> u32 {
        self.count(&self.queues.dead).await
    }

    /// Takes the messages that could not be handled.
    pub async fn take_dead_letters(&self) -> Vec<(AMQPProperties, Vec<u8>)> {
        let channel = self.channel().await;
        let options = BasicGetOptions { no_ack: true };
        let mut letters = Vec::new();
        while let Some(message) = channel.basic_get(self.queues.dead.clone(), options).await.expect("a dead letter") {
            letters.push((message.delivery.properties, message.delivery.data));
        }
        letters
    }

    /// Deletes the queue of claims with all that is in it.
    pub async fn delete_claims(&self) {
        let claims = self.queues.claims.clone();
        self.channel().await.queue_delete(claims, QueueDeleteOptions::default()).await.expect("a queue deleted");
    }

    async fn count(&self, queue: &ShortString) -> u32 {
        let count = broker::message_count(self.connection().await, queue).await;
        // No queue, no messages.
        count.unwrap_or_else(|error| panic!("cannot look into {queue}: {error}")).unwrap_or(0)
    }

    pub(crate) async fn delete(&self) {
        let channel = self.channel().await;
        for queue in [&self.queues.claims, &self.queues.dead] {
            channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await.expect("a queue deleted");
        }
        let connection = self.connection.get().expect("a connection");
        connection.close(200, "done".into()).await.expect("a connection closed");
    }
}
