//! `/metrics`: what this process has counted, and what is looked up for each scrape.
//!
//! Invariant: this module knows no campaigns. A service that has some passes it a function that looks up their stock.

use actix_web::{HttpResponse, web};

use super::route::get;
use crate::mysql::Mysql;
use crate::telemetry::metrics::{self, Stock};

/// The text format of Prometheus: <https://prometheus.io/docs/instrumenting/exposition_formats>.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds the route of a service that uses `mysql`; `stocks` looks up the stock of its `campaigns`.
pub fn routes<T, F>(
    config: &mut web::ServiceConfig,
    mysql: &Mysql,
    campaigns: &T,
    stocks: impl Fn(T) -> F + Clone + 'static,
) where
    T: Clone + 'static,
    F: Future<Output = Vec<Stock>> + 'static,
{
    let (mysql, campaigns) = (mysql.clone(), campaigns.clone());
    config.service(get("/metrics", move || {
        mysql.measure();
        let stocks = stocks(campaigns.clone());
        async move { HttpResponse::Ok().content_type(TEXT_FORMAT).body(metrics::render(&stocks.await)) }
    }));
}
