//! The queue way without its queue, for comparison only: the API itself does what queue-consumer does with a batch, and
//! answers with the outcome. So it neither records outcomes in Redis nor pushes them; the rest of what differs in a
//! measurement is the price of the broker, and what it buys.
//!
//! ```text
//! POST …/claims ─> claims::claim ─> coupon_core::http (admit) ─> batches ─> queue_consumer::settle ─> Redis, MySQL
//! ```

mod batches;
mod claims;
mod settings;

use coupon_core::Installation;
use coupon_core::api::auth::Auth;
use coupon_core::api::campaigns::Campaigns;
use coupon_core::api::docs::Documents;
use coupon_core::api::outcome_reader::OutcomeReader;
use coupon_core::api::routes::ClaimRoutes;
use coupon_core::api::serve::{Pages, serve_api};
use coupon_core::http::health::{Health, Need};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::redis::Redis;
use coupon_core::service::Running;
use coupon_core::settings::Order;
use queue_consumer::refill::Refill;
use queue_consumer::reserve::Reservations;
use queue_consumer::settle::Settler;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::batches::Batches;
pub use crate::settings::Settings;

/// Starts the service; it runs until `stop` and then drains.
///
/// # Errors
/// The schema is not the one this build needs, or an address cannot be bound.
pub async fn start(settings: Settings, stop: CancellationToken) -> anyhow::Result<Running> {
    let mysql = Mysql::new(&settings.mysql);
    schema::check(&mysql).await?;
    let installation = Installation::of(&mysql, &settings.namespace.namespace).await?;
    let redis = Redis::new(&settings.redis)?;
    redis.check_database(&settings.redis.redis_url).await?;
    let refill = Refill::new(&settings.redis, installation.clone(), mysql.clone(), settings.refill_max as usize)?;
    let reservations = Reservations::new(redis, installation, refill);
    let settler = Settler { mysql: mysql.clone(), reservations, outcomes: None, order: Order::Relaxed };
    let campaigns = Campaigns::start(mysql.clone());
    let outcomes = OutcomeReader::start(campaigns.clone(), mysql.clone(), None);
    let auth = Auth::start(&settings.auth, settings.listen).await?;
    let health = Health::new(stop.clone())
        .watch("mysql", Need::Always, &mysql, async |mysql: Mysql| mysql.can_issue().await)
        .watch("redis", Need::Always, &settler.reservations, async |reservations: Reservations| {
            reservations.can_reserve().await
        });
    let health = auth.watched(health);
    let batches = Batches::start(settler, usize::from(settings.batches), usize::from(settings.batch_max));

    let routes = ClaimRoutes::new(campaigns.clone(), outcomes, auth, settings.rate);
    let documents = Documents::new(&claims::Document::openapi(), &routes.auth);
    let pages = Pages { documents, health, mysql, campaigns };
    let (listen, admin, drain) = (settings.listen, settings.admin_listen, settings.process.drain_deadline);
    serve_api(listen, admin, &settings.http, stop, drain, pages, move |config| {
        config.app_data(actix_web::web::Data::new(batches.clone()));
        routes.configure(config, claims::claim);
    })
}
