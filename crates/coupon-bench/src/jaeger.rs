//! Traces of a run, from Jaeger's query API: what it answers to its own page.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use url::Url;

use crate::client::{Client, Target};

/// Spans arrive a second after they end, and Jaeger may be busy with them.
const PATIENCE: Duration = Duration::from_secs(20);

/// Traces count as whole when this much later no span was added.
const SETTLED_AFTER: Duration = Duration::from_millis(2_500);

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

    /// Its parent.
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

/// What Jaeger says of a trace that is not there.
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

/// The traces with these ids, as far as they are there, once they are whole.
pub async fn traces(jaeger: &Url, ids: &[String]) -> anyhow::Result<Vec<Trace>> {
    let target = Target::new(jaeger)?;
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
        let (status, body) = client.send(Method::GET, &path, String::new(), None).await.context("Jaeger")?;
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
