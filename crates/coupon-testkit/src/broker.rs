//! Direct access of tests to the broker, beside the services: put messages into the queues, inspect and delete queues,
//! declare them differently, and set policies.

use std::sync::atomic::{AtomicBool, Ordering};

use coupon_core::rabbitmq::{self, Queues, message};
use coupon_core::settings::{AmqpSettings, ServerUrl};
use coupon_core::{Claim, Installation, InstallationId};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Queue};
use opentelemetry::Context;
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::wait::eventually;

/// The queues of one test.
pub struct TestQueues {
    settings: AmqpSettings,
    queues: Queues,
    installation: InstallationId,
    has_policy: AtomicBool,
    has_user: AtomicBool,
    connection: OnceCell<lapin::Connection>,
}

impl TestQueues {
    pub(crate) fn new(settings: AmqpSettings, installation: &Installation) -> Self {
        let queues = Queues::new(&installation.namespace, &settings);
        let (has_policy, has_user) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { settings, queues, installation: installation.id, has_policy, has_user, connection: OnceCell::new() }
    }

    async fn connection(&self) -> &lapin::Connection {
        let connect = async || rabbitmq::connect(&self.settings, "coupon-testkit").await;
        self.connection.get_or_try_init(connect).await.expect("a connection to RabbitMQ")
    }

    /// Opens a new channel each time, because a refused command closes its channel.
    async fn channel(&self) -> Channel {
        self.connection().await.create_channel().await.expect("a channel")
    }

    /// Declares the queues, with the default settings.
    pub async fn declare(&self) {
        self.queues.declare(self.connection().await).await.expect("the queues");
    }

    /// Declares the queue of claims with other properties, as somebody else might.
    pub async fn declare_claims_as(&self, durable: bool, arguments: FieldTable) {
        self.declare_as(&self.queues.claims, durable, arguments).await;
    }

    /// Replaces the queue of claims with one of other properties, under services that redeclare it as soon as they miss
    /// it.
    pub async fn replace_claims_as(&self, durable: bool, arguments: FieldTable) {
        eventually("nobody makes the queue of claims first", async || {
            self.delete_claims().await;
            self.try_declare(&self.queues.claims, durable, arguments.clone()).await.is_ok()
        })
        .await;
    }

    /// Declares the queue of dead letters with other properties, as somebody else might.
    pub async fn declare_dead_as(&self, durable: bool, arguments: FieldTable) {
        self.declare_as(&self.queues.dead, durable, arguments).await;
    }

    async fn declare_as(&self, queue: &ShortString, durable: bool, arguments: FieldTable) {
        self.try_declare(queue, durable, arguments).await.expect("a queue");
    }

    async fn try_declare(&self, queue: &ShortString, durable: bool, arguments: FieldTable) -> lapin::Result<Queue> {
        let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(queue.clone(), options, arguments).await
    }

    /// Sets a policy on the queues of this test only.
    pub async fn set_policy(&self, definition: &Value) {
        let name = self.policy();
        let policy = json!({"pattern": format!("^{name}"), "apply-to": "queues", "definition": definition});
        self.has_policy.store(true, Ordering::Relaxed);
        self.send_policy(Method::PUT, &policy).await;
    }

    /// Removes the policy.
    pub async fn clear_policy(&self) {
        if self.has_policy.swap(false, Ordering::Relaxed) {
            self.send_policy(Method::DELETE, &Value::Null).await;
        }
    }

    /// The name of the policy: the beginning of the queues' names.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.queues.claims.as_str().trim_end_matches(".claims")
    }

    async fn send_policy(&self, method: Method, body: &Value) {
        self.send(method, &["api", "policies", &self.settings.amqp_url.vhost(), self.policy()], body).await;
    }

    /// Creates a user for this test only, or changes the pattern of names it may publish to. It may do everything else.
    /// Returns the address with this user.
    pub async fn set_user(&self, may_publish_to: &str) -> ServerUrl {
        const PASSWORD: &str = "for-tests-only";

        let (user, vhost) = (self.policy(), self.settings.amqp_url.vhost());
        if !self.has_user.swap(true, Ordering::Relaxed) {
            let made = json!({"password": PASSWORD, "tags": "management"});
            self.send(Method::PUT, &["api", "users", user], &made).await;
        }
        let rights = json!({"configure": ".*", "write": may_publish_to, "read": ".*"});
        self.send(Method::PUT, &["api", "permissions", &vhost, user], &rights).await;
        self.settings.amqp_url.with_user(user, PASSWORD)
    }

    async fn delete_user(&self) {
        if self.has_user.swap(false, Ordering::Relaxed) {
            self.send(Method::DELETE, &["api", "users", self.policy()], &Value::Null).await;
        }
    }

    async fn send(&self, method: Method, path: &[&str], body: &Value) {
        let settings = &self.settings;
        let url = settings.amqp_management_url.below(path);
        let (user, password) =
            settings.amqp_management_url.credentials().unwrap_or_else(|| settings.amqp_url.credentials());
        let url = url.expect("an address of RabbitMQ's HTTP API");
        let request =
            crate::api::http(None).request(method, url).basic_auth(user, Some(password.expose_secret())).json(body);
        let answer = request.send().await.expect("RabbitMQ's HTTP API: its management plugin is needed");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Publishes a message to the queue of claims and returns when the broker has it.
    pub async fn publish(&self, properties: AMQPProperties, body: &[u8]) {
        self.publish_to(&self.queues.claims, properties, body).await;
    }

    /// Publishes a message to the queue of dead letters.
    pub async fn publish_dead_letter(&self, properties: AMQPProperties, body: &[u8]) {
        self.publish_to(&self.queues.dead, properties, body).await;
    }

    async fn publish_to(&self, queue: &ShortString, properties: AMQPProperties, body: &[u8]) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish("".into(), queue.clone(), options, body, properties).await;
        let confirm = sent.expect("a message sent").await.expect("a confirm");
        assert!(matches!(confirm, lapin::Confirmation::Ack(None)), "the broker refused a message: {confirm:?}");
    }

    /// Publishes a claim the way producer-api does.
    pub async fn publish_claim(&self, claim: &Claim) {
        self.publish_claim_of(&Context::new(), claim).await;
    }

    /// Like [`Self::publish_claim`], but as part of a trace.
    pub async fn publish_claim_of(&self, trace: &Context, claim: &Claim) {
        let body = message::encode(std::slice::from_ref(claim)).expect("a body");
        self.publish(message::properties(self.installation, std::iter::once(trace)), &body).await;
    }

    /// Publishes claims the way a newly started producer-api does, whose clock may be wrong. Returns whether the broker
    /// has them.
    ///
    /// # Errors
    /// It is unknown whether the broker has them.
    pub async fn try_publish_claims(&self, claims: &[Claim]) -> coupon_core::Result<bool> {
        let connection = rabbitmq::connect(&self.settings, "coupon-testkit").await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let contexts = vec![Context::new(); claims.len()];
        let properties = message::properties(self.installation, contexts.iter());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (queue, body) = (self.queues.claims.clone(), message::encode(claims)?);
        let confirm = channel.basic_publish("".into(), queue, options, &body, properties).await?.await?;
        connection.close(200, "done".into()).await?;
        Ok(matches!(confirm, lapin::Confirmation::Ack(None)))
    }

    /// How many messages wait in the queue of claims and are not held by a consumer.
    pub async fn waiting(&self) -> u32 {
        self.count(&self.queues.claims).await
    }

    /// How many dead letters there are.
    pub async fn dead_letters(&self) -> u32 {
        self.count(&self.queues.dead).await
    }

    /// Takes the waiting messages of claims, like a consumer that never answers.
    pub async fn take_claims(&self) -> Vec<(AMQPProperties, Vec<u8>)> {
        self.take_all(&self.queues.claims).await
    }

    /// Whether the queue of dead letters exists.
    pub async fn keeps_dead_letters(&self) -> bool {
        // A connection of its own: each look at a queue that does not exist costs one of its channels.
        let connection = rabbitmq::connect(&self.settings, "coupon-testkit").await.expect("a connection to RabbitMQ");
        let count = rabbitmq::message_count(&connection, &self.queues.dead).await.expect("a look at the queue");
        connection.close(200, "seen".into()).await.expect("a connection closed");
        count.is_some()
    }

    /// Takes the dead letters.
    pub async fn take_dead_letters(&self) -> Vec<(AMQPProperties, Vec<u8>)> {
        self.take_all(&self.queues.dead).await
    }

    async fn take_all(&self, queue: &ShortString) -> Vec<(AMQPProperties, Vec<u8>)> {
        let channel = self.channel().await;
        let options = BasicGetOptions { no_ack: true };
        let mut messages = Vec::new();
        while let Some(message) = channel.basic_get(queue.clone(), options).await.expect("a message") {
            messages.push((message.delivery.properties, message.delivery.data));
        }
        messages
    }

    /// Deletes the queue of dead letters with everything in it.
    pub async fn delete_dead(&self) {
        let dead = self.queues.dead.clone();
        self.channel().await.queue_delete(dead, QueueDeleteOptions::default()).await.expect("a queue deleted");
    }

    /// Deletes the queue of claims with everything in it.
    pub async fn delete_claims(&self) {
        let claims = self.queues.claims.clone();
        self.channel().await.queue_delete(claims, QueueDeleteOptions::default()).await.expect("a queue deleted");
    }

    async fn count(&self, queue: &ShortString) -> u32 {
        let count = rabbitmq::message_count(self.connection().await, queue).await;
        // Without a queue there are no messages.
        count.unwrap_or_else(|error| panic!("cannot look into {queue}: {error}")).unwrap_or(0)
    }

    pub(crate) async fn delete(&self) {
        self.clear_policy().await;
        self.delete_user().await;
        let channel = self.channel().await;
        for queue in [&self.queues.claims, &self.queues.dead] {
            channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await.expect("a queue deleted");
        }
        let connection = self.connection.get().expect("a connection");
        connection.close(200, "done".into()).await.expect("a connection closed");
    }
}
