//! `/metrics`: what this process has counted, and what is looked up for whoever scrapes.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use tokio::sync::Mutex;

use crate::campaigns::Campaigns;
use crate::mysql::Mysql;
use crate::telemetry::metrics;

/// Campaigns whose stock is told: each has a label of its own, and a count in MySQL.
const CAMPAIGNS_MAX: usize = 20;

/// A scrape does not wait longer than this for MySQL.
const COUNT_DEADLINE: Duration = Duration::from_secs(2);

/// The text format of Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats>.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route of a service that uses `mysql`, and `campaigns` if it is an API.
pub fn routes(config: &mut web::ServiceConfig, mysql: &Mysql, campaigns: Option<&Campaigns>) {
    let (mysql, campaigns) = (mysql.clone(), campaigns.cloned());
    let counting = Arc::new(Mutex::new(()));
    config.route(
        "/metrics",
        web::get().to(move || {
            let (mysql, campaigns, counting) = (mysql.clone(), campaigns.clone(), Arc::clone(&counting));
            async move {
                mysql.measure();
                // One count at a time: the connections belong to claims, however often somebody scrapes.
                if let (Some(campaigns), Ok(_counting)) = (campaigns, counting.try_lock()) {
                    // What was not counted in time keeps its last value.
                    let _ = tokio::time::timeout(COUNT_DEADLINE, campaigns.measure(CAMPAIGNS_MAX)).await;
                }
                HttpResponse::Ok().content_type(TEXT_FORMAT).body(metrics::render())
            }
        }),
    );
}
