//! The other end of the queue: claims from RabbitMQ become coupons in MySQL.
//!
//! ```text
//! consume  take what has arrived ─> settle  reserve  pop ids ─> issue in MySQL ─> who is left? ─> outcomes ─> ack
//!                                     │       └> refill  from MySQL, under a lock
//!                                     └ batch  decides what follows from each answer
//! ```

pub mod batch;
mod consume;
mod dead_letters;
mod foreign;
pub mod refill;
pub mod reserve;
mod settings;
pub mod settle;
mod steps;
mod trace;
mod trouble;

use coupon_core::http::health::{Health, Need};
use coupon_core::http::{metrics, serve_admin};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::rabbitmq::{Policies, Queues};
use coupon_core::redis::Redis;
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::service::Running;
use coupon_core::settings::AmqpSettings;
use coupon_core::{Error, Installation, Result};
use tokio_util::sync::CancellationToken;

use crate::consume::Consumer;
use crate::refill::Refill;
use crate::reserve::Reservations;
pub use crate::settings::Settings;
use crate::settle::Settler;
use crate::trouble::Trouble;

/// Starts the service; it consumes until `stop`, then finishes the batch in hand and gives the rest back to the broker.
/// If the broker is away, the service waits for it.
///
/// # Errors
/// The schema is not the one this build needs, the queues do not have the required properties, or the address cannot be
/// bound.
pub async fn start(settings: Settings, stop: CancellationToken) -> anyhow::Result<Running> {
    let mysql = Mysql::new(&settings.mysql);
    schema::check(&mysql).await?;
    let queues = Queues::new(&settings.namespace.namespace, &settings.amqp);
    warn_of_policies(&settings.amqp, &queues).await?;
    let installation = Installation::of(&mysql, &settings.namespace.namespace).await?;
    let redis = Redis::new(&settings.redis)?;
    redis.check_database(&settings.redis.redis_url).await?;
    let recorded = Outcomes::new(redis.clone(), installation.clone());
    let settler = settler(&settings, &installation, mysql.clone(), redis)?;
    let redis = (recorded, settler.reservations.clone());
    let (connection, batch) = (Trouble::not_yet("the connection to RabbitMQ"), Trouble::none());
    let health = Health::new(stop.clone())
        .watch("mysql", Need::Always, &mysql, async |mysql: Mysql| mysql.can_issue().await)
        .watch("redis", Need::Always, &redis, async |(recorded, reservations): (Outcomes, Reservations)| {
            recorded.can_write().await?;
            reservations.can_reserve().await
        })
        .watch("rabbitmq", Need::Always, &connection, async |connection: Trouble| connection.check_when_known().await)
        // Not a server, but the work that needs them.
        .watch("claims", Need::Always, &batch, async |batch: Trouble| batch.check());

    let ended = CancellationToken::new();
    let measured = mysql.clone();
    let admin = serve_admin(settings.admin_listen, ended.clone(), move |config| {
        health.routes(config);
        metrics::routes(config, &measured, &(), async |()| Vec::new());
    })?;

    let consumer = Consumer {
        settler,
        installation: installation.id,
        queues,
        connection,
        batch,
        amqp: settings.amqp.clone(),
        batch_max: settings.batch_max,
        prefetch: settings.prefetch,
    };
    // Comes last, because each failed start with claims in hand would count as one of their deliveries.
    let subscribed = consumer.subscribe().await;
    if let Err(error @ Error::Unsafe(_)) = subscribed {
        ended.cancel();
        return Err(error.into());
    }
    let task = tokio::spawn(async move {
        let outcome = consumer.run(subscribed, &stop).await;
        ended.cancel();
        admin.task.await??;
        mysql.close().await;
        Ok(outcome?)
    });
    let (address, stops_within) = (admin.address, settings.process.drain_deadline);
    Ok(Running { address, over_tls: false, admin: address, stops_within, task })
}

/// Only warns of policies that would lose claims, because producer-api then accepts none.
async fn warn_of_policies(settings: &AmqpSettings, queues: &Queues) -> Result<()> {
    match Policies::new(settings)?.dangers(queues).await {
        Ok(dangers) => dangers.iter().for_each(|danger| tracing::warn!("{danger}")),
        Err(error) => tracing::warn!(%error, "RabbitMQ's policies are not checked: {}", error.remedy()),
    }
    Ok(())
}

/// Creates the part that issues coupons, without the broker that brings the claims.
///
/// # Errors
/// An address that cannot be used.
pub fn settler(settings: &Settings, installation: &Installation, mysql: Mysql, redis: Redis) -> Result<Settler> {
    let refill = Refill::new(&settings.redis, installation.clone(), mysql.clone(), settings.refill_max as usize)?;
    Ok(Settler {
        mysql,
        reservations: Reservations::new(redis.clone(), installation.clone(), refill),
        outcomes: Some(Outcomes::new(redis, installation.clone())),
        order: settings.amqp.order,
    })
}
