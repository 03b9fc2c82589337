//! Watching whether the broker keeps what it confirms: its queues are as they were declared, and no policy undoes that.
//!
//! Invariant: a service does not start on a broker that would lose accepted claims, and accepts none from the look on that
//! finds so. What cannot be asked is as it was found last.

use std::time::Duration;

use coupon_core::broker::{Danger, Policies};
use coupon_core::settings::AmqpSettings;
use coupon_core::{Error, Result};
use tokio_util::sync::CancellationToken;

use crate::channel::Broker;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks, and tells the way to the broker.
struct Watch {
    broker: Broker,
    policies: Policies,
    /// What policies do, as it was told last.
    danger: Option<String>,
    /// Whether policies could not be asked for the last time.
    is_blind: bool,
}

/// Makes the queues if they are not there, looks for the first time, and goes on looking until `stop`.
///
/// # Errors
/// The broker would lose accepted claims. That it is away is none: its claims get 503 then.
pub async fn start(broker: Broker, settings: &AmqpSettings, stop: CancellationToken) -> Result<()> {
    let declared = broker.declare_queues().await;
    if let Err(error @ Error::Unsafe(_)) = declared {
        return Err(error);
    }
    let policies = Policies::new(settings)?;
    let mut watch = Watch { broker, policies, danger: None, is_blind: false };
    watch.look_at_policies().await;
    if let Some(danger) = watch.danger.take() {
        return Err(Error::Unsafe(danger));
    }
    tokio::spawn(watch.run(stop));
    Ok(())
}

impl Watch {
    async fn run(mut self, stop: CancellationToken) {
        let mut was_safe = true;
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            let unsafe_queues = match self.broker.check_queues().await {
                Err(Error::Unsafe(text)) => Some(text),
                // Whoever publishes finds out that it is away.
                Ok(()) | Err(_) => None,
            };
            self.look_at_policies().await;
            let found = unsafe_queues.as_ref().or(self.danger.as_ref());
            self.broker.set_safe(found.is_none());
            match found {
                Some(danger) if was_safe => tracing::error!("no claims are accepted: {danger}"),
                None if !was_safe => tracing::info!("claims are accepted again: RabbitMQ keeps them"),
                Some(_) | None => {}
            }
            was_safe = found.is_none();
        }
    }

    async fn look_at_policies(&mut self) {
        match self.policies.dangers(self.broker.queues()).await {
            Ok(dangers) => {
                let dangers: Vec<String> = dangers.iter().map(Danger::to_string).collect();
                self.danger = (!dangers.is_empty()).then(|| dangers.join("; "));
                self.is_blind = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(%error, "RabbitMQ's policies are not checked");
                }
            }
        }
    }
}
