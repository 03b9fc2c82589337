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

/// How soon it is looked again while no claims are let through.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Looks, and tells the way to the broker.
struct Watch {
    broker: Broker,
    policies: Policies,
    /// What policies do, as it was told last.
    danger: Option<String>,
    /// Whether policies could not be asked for the last time.
    is_blind: bool,
    /// Whether the broker was there for a look. One that comes late is looked at before it gets claims.
    is_checked: bool,
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
    let is_there = declared.is_ok();
    let mut watch = Watch { broker, policies, danger: None, is_blind: false, is_checked: is_there };
    watch.look_at_policies().await;
    if let Some(danger) = watch.danger.take() {
        return Err(Error::Unsafe(danger));
    }
    watch.broker.set_safe(is_there);
    tokio::spawn(watch.run(stop));
    Ok(())
}

impl Watch {
    async fn run(mut self, stop: CancellationToken) {
        let mut is_told = false;
        let mut is_safe = self.is_checked;
        while tokio::time::timeout(if is_safe { LOOK_EVERY } else { LOOK_AGAIN_AFTER }, stop.cancelled()).await.is_err()
        {
            let danger = self.look().await;
            is_safe = self.is_checked && danger.is_none();
            self.broker.set_safe(is_safe);
            match &danger {
                Some(danger) if !is_told => tracing::error!("no claims are accepted: {danger}"),
                None if is_told => tracing::info!("claims are accepted again: RabbitMQ keeps them"),
                Some(_) | None => {}
            }
            is_told = danger.is_some();
        }
    }

    /// By what the broker would lose claims.
    async fn look(&mut self) -> Option<String> {
        let queues = match self.broker.check_queues().await {
            Ok(()) => {
                self.is_checked = true;
                None
            }
            Err(Error::Unsafe(text)) => Some(text),
            // Whoever publishes finds out that it is away.
            Err(_) => None,
        };
        self.look_at_policies().await;
        queues.or_else(|| self.danger.clone())
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
