//! The skiplock way: a claim takes a free row directly in MySQL. No broker, no cache.
//!
//! ```text
//! POST …/claims ─> claims::claim ─> coupon_core::http (admit) ─> strategy::Strategy ─> MySQL
//!                                                                 ├ select_update     a transaction for each claim
//!                                                                 ├ single_statement  a statement for each
//!                                                                 ├ coalesced, ahead  a statement for all that wait
//!                                                                 └ group             shared by these three
//! ```

mod ahead;
mod claims;
mod coalesced;
mod group;
mod select_update;
mod settings;
mod single_statement;
mod steps;
mod strategy;

use coupon_core::api::auth::Auth;
use coupon_core::api::campaigns::Campaigns;
use coupon_core::api::docs::Documents;
use coupon_core::api::outcome_reader::OutcomeReader;
use coupon_core::api::routes::ClaimRoutes;
use coupon_core::api::serve::{Pages, serve_api};
use coupon_core::http::health::{Health, Need};
use coupon_core::mysql::{Mysql, schema};
use coupon_core::service::Running;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

pub use crate::settings::{Settings, StrategyName};
use crate::strategy::Strategy;

/// Starts the service; it runs until `stop` and then drains.
///
/// # Errors
/// The schema is not the one this build needs, or an address cannot be bound.
pub async fn start(settings: Settings, stop: CancellationToken) -> anyhow::Result<Running> {
    let mysql = Mysql::new(&settings.mysql);
    schema::check(&mysql).await?;
    let campaigns = Campaigns::start(mysql.clone());
    let outcomes = OutcomeReader::start(campaigns.clone(), mysql.clone(), None);
    let strategy = Strategy::start(&settings, &mysql);
    let auth = Auth::start(&settings.auth, settings.listen).await?;
    let health = Health::new(stop.clone()).watch("mysql", Need::Always, &strategy, Strategy::check);
    let health = auth.watched(health);

    let routes = ClaimRoutes::new(campaigns.clone(), outcomes, auth, settings.rate);
    let documents = Documents::new(&claims::Document::openapi(), &routes.auth);
    let pages = Pages { documents, health, mysql, campaigns };
    let (listen, admin, drain) = (settings.listen, settings.admin_listen, settings.process.drain_deadline);
    serve_api(listen, admin, &settings.http, stop, drain, pages, move |config| {
        config.app_data(actix_web::web::Data::new(strategy.clone()));
        routes.configure(config, claims::claim);
    })
}
