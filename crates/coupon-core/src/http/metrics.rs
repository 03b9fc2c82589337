//! `/metrics`: what this process has counted, and what is looked up for whoever scrapes.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::route::get;
use crate::api::campaigns::Campaigns;
use crate::mysql::Mysql;
use crate::telemetry::metrics::{self, Stock};

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
    config.service(get("/metrics", move || {
        let (mysql, campaigns, counting) = (mysql.clone(), campaigns.clone(), Arc::clone(&counting));
        async move {
            mysql.measure();
            let stocks = match campaigns {
                Some(campaigns) => stocks(&campaigns, &counting).await,
                None => Vec::new(),
            };
            HttpResponse::Ok().content_type(TEXT_FORMAT).body(metrics::render(&stocks))
        }
    }));
}

/// One count at a time: the connections belong to claims, however often somebody scrapes. Who waits for another's finds
/// the same, remembered.
async fn stocks(campaigns: &Campaigns, counting: &Mutex<()>) -> Vec<Stock> {
    let deadline = Instant::now() + COUNT_DEADLINE;
    match tokio::time::timeout_at(deadline, counting.lock()).await {
        Ok(_counting) => campaigns.stocks(CAMPAIGNS_MAX, deadline).await,
        Err(_) => Vec::new(),
    }
}
