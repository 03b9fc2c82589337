//! The HTTP side of the queue: validate a claim, publish it, answer 202 when the broker has confirmed it.
//!
//! ```text
//! POST …/claims ─> claims::claim ─> coupon_core::http (admit) ─> publish  in batches ─> channel ─> RabbitMQ
//!                                          /readyz ─> watch  does it keep claims? ────────┘
//! GET  …/claims/{account} ─> coupon_core::api::outcome_reader ─> Redis, MySQL
//!                                          └─ pushed <─ Redis <─ queue-consumer
//! ```

mod channel;
mod claims;
mod publish;
mod pushed;
mod settings;
mod watch;

use coupon_core::api::auth::Auth;
use coupon_core::api::campaigns::Campaigns;
use coupon_core::api::docs::Documents;
use coupon_core::api::outcome_reader::OutcomeReader;
use coupon_core::api::routes::ClaimRoutes;
use coupon_core::api::serve::{Pages, serve_api};
use coupon_core::http::health::{Health, Need};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::rabbitmq::Queues;
use coupon_core::redis::Redis;
use coupon_core::redis::outcomes::Outcomes;
use coupon_core::redis::push;
use coupon_core::service::Running;
use coupon_core::{Installation, InstanceId};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::channel::Broker;
use crate::publish::Publisher;
pub use crate::settings::Settings;
use crate::watch::Watch;

/// Starts the service; it runs until `stop` and then drains.
///
/// # Errors
/// The schema is not the one this build needs, the broker would lose accepted claims, or an address cannot be bound.
pub async fn start(settings: Settings, stop: CancellationToken) -> anyhow::Result<Running> {
    let mysql = Mysql::new(&settings.mysql);
    schema::check(&mysql).await?;
    let installation = Installation::of(&mysql, &settings.namespace.namespace).await?;
    let redis = Redis::new(&settings.redis)?;
    redis.check_database(&settings.redis.redis_url).await?;
    let recorded = Outcomes::new(redis.clone(), installation.clone());
    let broker = Broker::new(&settings.amqp, Queues::new(&settings.namespace.namespace, &settings.amqp))?;
    let watch = Watch::start(broker.clone(), &settings.amqp).await?;
    let campaigns = Campaigns::start(mysql.clone());
    let outcomes = OutcomeReader::start(campaigns.clone(), mysql.clone(), Some(recorded.clone()));
    let instance = InstanceId::random();
    let (channel, max_age) = (push::channel(&installation, instance), settings.redis.redis_connection_age);
    pushed::listen(redis, channel, max_age, outcomes.clone(), stop.clone());
    let auth = Auth::start(&settings.auth, settings.listen).await?;
    let health = Health::new(stop.clone())
        .watch("mysql", Need::AtFirst, &mysql, async |mysql: Mysql| mysql.can_read().await)
        .watch("redis", Need::Never, &recorded, async |recorded: Outcomes| recorded.can_write().await)
        .watch("rabbitmq", Need::Always, &watch, async |watch: Watch| watch.check().await);
    let health = auth.watched(health);
    let routes = ClaimRoutes::new(campaigns.clone(), outcomes, auth, settings.rate);
    let documents = Documents::new(&claims::Document::openapi(), &routes.auth);
    let pages = Pages { documents, health, mysql, campaigns };
    let (listen, admin, drain) = (settings.listen, settings.admin_listen, settings.process.drain_deadline);
    serve_api(listen, admin, &settings.http, stop, drain, pages, move |config| {
        // Once for each actix worker: a publisher and its channel never leave their thread.
        config.app_data(actix_web::web::Data::new(Publisher::new(
            broker.clone(),
            installation.id,
            instance,
            usize::from(settings.claims_per_message),
        )));
        routes.configure(config, claims::claim);
    })
}
