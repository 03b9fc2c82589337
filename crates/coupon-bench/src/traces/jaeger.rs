//! Fetches traces from Jaeger's query API, `/api/v3`, which returns spans as they were exported.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coupon_core::settings::TlsSettings;
use coupon_core::telemetry::attribute::{OUTCOME, SERVICE_NAME};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use url::Url;

use crate::crowd::client::{self, Client, Target};
use crate::crowd::trace::{LOAD, ROOT};

/// How long to wait for spans: they arrive a second after they end, and Jaeger may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Traces count as complete when no span has been added for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(2_500);

/// Options that say where Jaeger is.
#[derive(Args, Clone, Debug)]
pub struct JaegerArguments {
    /// Jaeger's query API.
    #[arg(long, env = "JAEGER_URL", value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:16686")]
    pub jaeger: Url,
    /// Jaeger's page, for links, if a browser reaches it at another address.
    #[arg(long, env = "JAEGER_PAGE_URL", value_name = "URL")]
    pub jaeger_page: Option<Url>,
    /// The authorities that verify a Jaeger that speaks https. This is a setting of the whole program.
    #[arg(skip)]
    pub tls: TlsSettings,
}

impl JaegerArguments {
    /// The link to the page of a trace.
    pub fn link(&self, trace_id: &str) -> String {
        let page = self.jaeger_page.as_ref().unwrap_or(&self.jaeger);
        format!("{}/trace/{trace_id}", page.as_str().trim_end_matches('/'))
    }

    /// The link to the page with the claims of a load that took at least this long, within a period.
    pub fn slowest(&self, load: &str, at_least: Duration, (from, to): (u64, u64)) -> String {
        let mut page = self.jaeger_page.clone().unwrap_or_else(|| self.jaeger.clone());
        page.set_path(&format!("{}/search", page.path().trim_end_matches('/')));
        page.query_pairs_mut()
            .append_pair("service", env!("CARGO_PKG_NAME"))
            .append_pair("operation", ROOT)
            .append_pair("tags", &serde_json::json!({ LOAD: load }).to_string())
            .append_pair("minDuration", &format!("{}us", at_least.as_micros()))
            .append_pair("start", &(from / 1_000).to_string())
            .append_pair("end", &to.div_ceil(1_000).to_string());
        page.to_string()
    }
}

/// A span, with times in nanoseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Span {
    pub id: String,
    /// The id of its parent; empty for a root.
    pub parent: String,
    pub name: String,
    /// The service that sent it.
    pub service: String,
    pub start: u64,
    pub end: u64,
    /// The outcome of the claim, if the span records it.
    pub outcome: Option<String>,
}

/// Jaeger's answer: OTLP in JSON.
#[derive(Debug, Deserialize)]
struct Answer {
    result: Found,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    #[serde(default)]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    #[serde(default)]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    key: String,
    value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    string_value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ScopeSpans {
    #[serde(default)]
    spans: Vec<OtlpSpan>,
}

/// A span in JSON, where 64-bit numbers are text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan {
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    name: String,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    #[serde(default)]
    attributes: Vec<Attribute>,
}

/// Jaeger's answer when it has no such trace.
#[derive(Debug, Deserialize)]
struct Missing {
    #[serde(rename = "error")]
    _error: IgnoredAny,
}

/// A trace, with its spans in the order in which they began.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: String,
    pub spans: Vec<Span>,
}

impl Trace {
    /// When its first span began.
    pub fn begin(&self) -> u64 {
        self.spans.iter().map(|span| span.start).min().unwrap_or_default()
    }

    /// When its last span ended.
    pub fn end(&self) -> u64 {
        self.spans.iter().map(|span| span.end).max().unwrap_or_default()
    }

    /// The parent of one of its spans.
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        self.spans.iter().find(|parent| parent.id == span.parent)
    }

    /// How many ancestors a span has.
    pub fn depth(&self, span: &Span) -> usize {
        self.parent(span).map_or(0, |parent| 1 + self.depth(parent))
    }

    /// Whether this is the trace of a claim that got a coupon.
    pub fn is_issued(&self) -> bool {
        self.spans.iter().any(|span| span.outcome.as_deref() == Some("issued"))
    }

    /// The span of the whole claim, exported by the client.
    pub fn root(&self) -> Option<&Span> {
        self.spans.iter().find(|span| span.parent.is_empty() && span.name == ROOT)
    }
}

/// Checks, before there are traces, that Jaeger answers.
pub async fn reach(jaeger: &JaegerArguments) -> anyhow::Result<()> {
    let target = Target::new(&jaeger.jaeger)?.trusting(&jaeger.tls);
    let of_nothing = format!("{:032x}", 1);
    fetch(&target, &[of_nothing]).await.map(drop)
}

/// Waits until the traces with these ids are complete, and returns those that Jaeger has.
pub async fn traces(jaeger: &JaegerArguments, ids: &[String]) -> anyhow::Result<Vec<Trace>> {
    let target = Target::new(&jaeger.jaeger)?.trusting(&jaeger.tls);
    let give_up_at = Instant::now() + PATIENCE;
    let mut found = fetch(&target, ids).await?;
    loop {
        tokio::time::sleep(SETTLED_AFTER).await;
        let again = fetch(&target, ids).await?;
        let count = |traces: &[Trace]| traces.iter().map(|trace| trace.spans.len()).sum::<usize>();
        let is_settled = count(&again) == count(&found) && again.len() == ids.len();
        found = again;
        if is_settled || Instant::now() > give_up_at {
            return Ok(found);
        }
    }
}

async fn fetch(target: &Target, ids: &[String]) -> anyhow::Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for id in ids {
        let path = format!("/api/v3/traces/{id}");
        // A new connection for each, because a proxy in front of Jaeger may close it after an answer.
        let mut client = Client::new(target.clone());
        let (status, body) =
            client.send(Method::GET, &path, String::new(), []).await.context("--jaeger (JAEGER_URL)")?;
        let no_jaeger = || format!("what answers {status} to GET {path} is not Jaeger");
        if status == StatusCode::NOT_FOUND {
            let _: Missing = serde_json::from_slice(&body).with_context(no_jaeger)?;
            continue;
        }
        // A long trace arrives as several documents.
        let answers = serde_json::Deserializer::from_slice(&body).into_iter();
        let answers: Vec<Answer> = answers.collect::<Result<_, _>>().with_context(no_jaeger)?;
        let mut spans = Vec::new();
        for resource in answers.into_iter().flat_map(|answer| answer.result.resource_spans) {
            spans.extend(read(resource).with_context(no_jaeger)?);
        }
        spans.sort_by_key(|span| (span.start, u64::MAX - span.end));
        traces.push(Trace { id: id.clone(), spans });
    }
    Ok(traces)
}

fn read(ResourceSpans { resource, scope_spans }: ResourceSpans) -> anyhow::Result<Vec<Span>> {
    let service = text(resource.attributes, SERVICE_NAME).unwrap_or_default();
    let span = |span: OtlpSpan| {
        Ok(Span {
            id: span.span_id,
            parent: span.parent_span_id,
            name: span.name,
            service: service.clone(),
            start: span.start_time_unix_nano.parse()?,
            end: span.end_time_unix_nano.parse()?,
            outcome: text(span.attributes, OUTCOME),
        })
    };
    scope_spans.into_iter().flat_map(|scope| scope.spans).map(span).collect()
}

fn text(attributes: Vec<Attribute>, key: &str) -> Option<String> {
    attributes.into_iter().find(|attribute| attribute.key == key)?.value.string_value
}

#[cfg(test)]
pub mod fixtures {
    use super::*;

    pub fn span(id: &str, parent: &str, service: &str, start: u64, duration: u64) -> Span {
        let [id, parent, name, service] = [id, parent, id, service].map(String::from);
        Span { id, parent, name, service, start, end: start + duration, outcome: None }
    }

    /// A request that takes 100, with a publish of 60 in it; 40 after the publish, a batch of 200 with a step of 150.
    pub fn queue_trace() -> Trace {
        let spans = vec![
            span("request", "", "api", 1_000, 100),
            span("publish", "request", "api", 1_020, 60),
            span("process", "publish", "consumer", 1_120, 200),
            span("persist", "process", "consumer", 1_140, 150),
        ];
        Trace { id: String::from("t"), spans }
    }
}
