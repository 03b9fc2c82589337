//! Traces from Jaeger's query API, which is the one that its own page uses.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use url::Url;

use crate::crowd::client::{self, Client, Target};

/// Spans arrive a second after they end, and Jaeger may be busy with them.
const PATIENCE: Duration = Duration::from_secs(20);

/// Traces count as complete when no span was added for this long.
const SETTLED_AFTER: Duration = Duration::from_millis(2_500);

/// Where Jaeger is.
#[derive(Args, Clone, Debug)]
pub struct JaegerArguments {
    /// Jaeger's query API.
    #[arg(long, env = "JAEGER_URL", value_name = "URL", value_parser = client::address, default_value = "http://127.0.0.1:16686")]
    pub jaeger: Url,
    /// Jaeger's page, for links, where a browser reaches it at another address.
    #[arg(long, env = "JAEGER_PAGE_URL", value_name = "URL")]
    pub jaeger_page: Option<Url>,
}

impl JaegerArguments {
    /// The page of a trace.
    pub fn link(&self, trace_id: &str) -> String {
        let page = self.jaeger_page.as_ref().unwrap_or(&self.jaeger);
        format!("{}/trace/{trace_id}", page.as_str().trim_end_matches('/'))
    }
}

/// A span: times in microseconds, as Jaeger keeps them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    #[serde(rename = "spanID")]
    pub id: String,
    #[serde(rename = "operationName")]
    pub name: String,
    pub start_time: u64,
    pub duration: u64,
    #[serde(default)]
    references: Vec<Reference>,
    #[serde(rename = "processID")]
    process: String,
    /// The service that sent it.
    #[serde(skip)]
    pub service: String,
}

impl Span {
    /// When it ended.
    pub fn end(&self) -> u64 {
        self.start_time + self.duration
    }

    /// The id of its parent.
    pub fn parent(&self) -> Option<&str> {
        let parent = self.references.iter().find(|reference| reference.kind == "CHILD_OF");
        parent.map(|reference| reference.span.as_str())
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Reference {
    #[serde(rename = "refType")]
    kind: String,
    #[serde(rename = "spanID")]
    span: String,
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Vec<Found>,
}

/// What Jaeger answers when it has no such trace.
#[derive(Debug, Deserialize)]
struct Missing {
    #[serde(rename = "errors")]
    _errors: Vec<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Found {
    spans: Vec<Span>,
    processes: HashMap<String, Process>,
}

#[derive(Debug, Deserialize)]
struct Process {
    #[serde(rename = "serviceName")]
    service: String,
}

/// A trace with its spans in order of their beginning.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: String,
    pub spans: Vec<Span>,
}

impl Trace {
    /// When its first span began.
    pub fn begin(&self) -> u64 {
        self.spans.iter().map(|span| span.start_time).min().unwrap_or_default()
    }

    /// The time from the beginning of its first span to the end of its last, in microseconds.
    pub fn length(&self) -> u64 {
        self.spans.iter().map(Span::end).max().unwrap_or_default().saturating_sub(self.begin())
    }

    /// The parent of one of its spans.
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        self.spans.iter().find(|parent| span.parent() == Some(&parent.id))
    }
}

/// Waits until the traces with these ids are complete, and returns those that Jaeger has.
pub async fn traces(jaeger: &JaegerArguments, ids: &[String]) -> anyhow::Result<Vec<Trace>> {
    let target = Target::new(&jaeger.jaeger)?;
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
        let path = format!("/api/traces/{id}");
        // A connection for each: whatever stands in front of Jaeger may close it after an answer.
        let mut client = Client::new(target.clone());
        let (status, body) = client.send(Method::GET, &path, String::new(), []).await.context("Jaeger")?;
        let no_jaeger = || format!("what answers {status} to GET {path} is no Jaeger");
        if status == StatusCode::NOT_FOUND {
            let _: Missing = serde_json::from_slice(&body).with_context(no_jaeger)?;
            continue;
        }
        let answer: Answer = serde_json::from_slice(&body).with_context(no_jaeger)?;
        traces.extend(answer.data.into_iter().map(|found| in_order(id, found)));
    }
    Ok(traces)
}

fn in_order(id: &str, Found { mut spans, processes }: Found) -> Trace {
    for span in &mut spans {
        span.service = processes.get(&span.process).map(|process| process.service.clone()).unwrap_or_default();
    }
    spans.sort_by_key(|span| (span.start_time, u64::MAX - span.duration));
    Trace { id: id.to_owned(), spans }
}

#[cfg(test)]
pub mod fixtures {
    use serde_json::json;

    use super::*;

    pub fn span(id: &str, parent: &str, service: &str, start: u64, duration: u64) -> Span {
        let references = if parent.is_empty() { json!([]) } else { json!([{"refType": "CHILD_OF", "spanID": parent}]) };
        let span = json!({
            "spanID": id, "operationName": id, "startTime": start, "duration": duration, "references": references,
            "processID": "p1",
        });
        let mut span: Span = serde_json::from_value(span).unwrap();
        service.clone_into(&mut span.service);
        span
    }

    /// A request of 100, with a publish of 60 in it; 40 later a batch of 200 with a step of 150.
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
