//! Checks that an API answers from memory once a campaign is sold out: about as fast as an endpoint that does nothing,
//! and without its servers.

use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use mysql_async::prelude::Queryable;

use super::record::Suite;
use crate::crowd::{CLIENTS, Crowd};
use crate::experiments::ceilings::http;
use crate::experiments::load;
use crate::lab::campaigns::make_campaign;
use crate::lab::stand::{Stand, Way};
use crate::statistics::median;

/// The metric that counts the claims producer-api has published.
const CONFIRMS: &str = "coupon_publisher_confirms_total";

/// The figures of an API in one round.
struct Round {
    /// Requests per second / those of the empty endpoint: 1 means as many.
    of_empty: f64,
    /// Statements in MySQL / requests.
    statements: f64,
    /// Confirms of RabbitMQ / requests.
    confirms: f64,
}

pub async fn measure(suite: &mut Suite<'_>) -> anyhow::Result<()> {
    for way in Way::ALL {
        let mut rounds = Vec::new();
        for _ in 0..suite.rounds() {
            rounds.push(round(suite, way).await?);
        }
        let figure = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
        let (rate, statements) = (figure(|round| round.of_empty), figure(|round| round.statements));
        suite.at_least(&format!("6: {way}, sold out / empty endpoint, requests a second"), rate, 0.5);
        suite.at_most(&format!("6: {way}, sold out, statements in MySQL / requests"), statements, 0.01);
        if way == Way::Queue {
            let confirms = figure(|round| round.confirms);
            suite.at_most("6: queue, sold out, confirms of RabbitMQ / requests", confirms, 0.01);
        }
    }
    Ok(())
}

async fn round(suite: &Suite<'_>, way: Way) -> anyhow::Result<Round> {
    let time = Duration::from_secs(if suite.quick { 1 } else { 3 });
    let empty = http::empty(CLIENTS, time).await?;
    let stand = Stand::start(way, 1, &[("OTEL_SDK_DISABLED", String::from("true"))]).await?;
    let api = stand.api();
    let campaign = make_campaign(suite.mysql, "sold out", 1).await?;
    let load = load::Arguments { url: api.url.clone(), campaign, crowd: Crowd::of(100, 10, 0.0) };
    anyhow::ensure!(load::run(suite.mysql, &way.to_string(), &load).await?.is_clean(), "the sell-out was not clean");
    let path = format!("/v1/campaigns/{campaign}/claims");
    let body = |n: u64| format!("{{\"account_id\":{}}}", 1_000_000 + n);
    let counts = async || anyhow::Ok((statements(suite).await?, api.metric(CONFIRMS, "").await?));
    let before = counts().await?;
    anyhow::ensure!(way != Way::Queue || before.1 > 0.0, "no confirms are counted");
    let rate = http::requests(&api.url, &path, Method::POST, body, CLIENTS, time).await?;
    let after = counts().await?;
    let requests = rate * time.as_secs_f64();
    let (statements, confirms) = ((after.0 - before.0) / requests, (after.1 - before.1) / requests);
    Ok(Round { of_empty: rate / empty, statements, confirms })
}

/// Statements that MySQL has seen.
async fn statements(suite: &Suite<'_>) -> anyhow::Result<f64> {
    let mut conn = suite.mysql.connection().await?;
    let row: Option<(String, f64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await?;
    Ok(row.context("the count of statements")?.1)
}
