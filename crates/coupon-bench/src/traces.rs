//! Where the time of claims goes, from their traces: a table of steps for each way, and one claim drawn as a waterfall.
//!
//! The time of a step is its own: what its children took is theirs. The time between the confirm of a claim and the
//! batch that took it belongs to the queue.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::jaeger::{self, Span, Trace};
use crate::{client, report};

/// Traces asked for: Jaeger gives one at a time.
const TRACES_MAX: usize = 200;

/// A step above an hour counts as one hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// Name of the step that no span tells of.
const IN_QUEUE: &str = "in the queue";

/// Characters of the longest bar.
const BAR_WIDTH: usize = 48;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A report of `compare`, which names the traces.
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.json")]
    report: PathBuf,
    #[command(flatten)]
    jaeger: JaegerArguments,
}

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
    fn link(&self, trace_id: &str) -> String {
        let page = self.jaeger_page.as_ref().unwrap_or(&self.jaeger);
        format!("{}/trace/{trace_id}", page.as_str().trim_end_matches('/'))
    }
}

/// Where the time of one way's claims goes.
#[derive(Clone, Debug, Serialize)]
pub struct Breakdown {
    way: String,
    /// Issued claims whose traces were found.
    traces: usize,
    steps: Vec<StepTimes>,
    example: Option<Example>,
}

#[derive(Clone, Debug, Serialize)]
struct StepTimes {
    step: String,
    p50_ms: f64,
    p99_ms: f64,
    /// Of all the time of all these claims, from 0 to 1.
    share: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Example {
    trace_id: String,
    link: String,
    waterfall: Vec<String>,
}

/// The part of a report that names the traces of its ways.
#[derive(Debug, Deserialize)]
struct Report {
    ways: Vec<WayTraces>,
}

#[derive(Debug, Deserialize)]
struct WayTraces {
    way: String,
    trace_ids: Vec<String>,
}

/// Prints the tables of a run that has been.
pub async fn run(arguments: &Arguments, json: bool) -> anyhow::Result<()> {
    let path = &arguments.report;
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_slice(&text).with_context(|| format!("{} is no report", path.display()))?;
    let mut breakdowns = Vec::new();
    for way in report.ways {
        breakdowns.push(breakdown(&way.way, &way.trace_ids, &arguments.jaeger).await?);
    }
    if breakdowns.iter().all(|breakdown| breakdown.traces == 0) {
        bail!("{} has no trace of an issued claim of {}", arguments.jaeger.jaeger, path.display());
    }
    Ok(report::breakdowns(&breakdowns, json)?)
}

/// Asks Jaeger where the time of these claims went.
pub async fn breakdown(way: &str, trace_ids: &[String], jaeger: &JaegerArguments) -> anyhow::Result<Breakdown> {
    let asked: Vec<String> = trace_ids.iter().take(TRACES_MAX).cloned().collect();
    let traces = jaeger::traces(&jaeger.jaeger, &asked).await?;
    // A claim that found nothing left was answered from memory, which has no steps.
    let issued: Vec<&Trace> = traces.iter().filter(|trace| trace.spans.len() > 1).collect();
    let own_times: Vec<BTreeMap<String, u64>> = issued.iter().map(|trace| own_times(trace)).collect();
    Ok(Breakdown {
        way: way.to_owned(),
        traces: issued.len(),
        steps: step_times(&own_times)?,
        example: example(&issued, jaeger),
    })
}

/// How long each step of a claim took by itself, in microseconds.
fn own_times(trace: &Trace) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for span in &trace.spans {
        let children = trace.spans.iter().filter(|child| child.parent() == Some(&span.id));
        *times.entry(span.name.clone()).or_default() += span.duration.saturating_sub(covered(span, children));
        if let Some(gap) = time_in_queue(trace, span) {
            *times.entry(String::from(IN_QUEUE)).or_default() += gap;
        }
    }
    times
}

/// How much of a span its children cover; they may overlap, and end after it.
fn covered<'a>(span: &Span, children: impl Iterator<Item = &'a Span>) -> u64 {
    let mut covered = 0;
    let mut until = span.start_time;
    // The spans of a trace are in order of their beginning.
    for child in children {
        let (start, end) = (child.start_time.max(until), child.end().min(span.end()));
        covered += end.saturating_sub(start);
        until = until.max(end);
    }
    covered
}

/// The time from the end of a claim's publishing to the beginning of its processing.
fn time_in_queue(trace: &Trace, span: &Span) -> Option<u64> {
    let parent = trace.spans.iter().find(|parent| span.parent() == Some(&parent.id))?;
    (parent.service != span.service).then(|| span.start_time.saturating_sub(parent.end()))
}

fn step_times(own_times: &[BTreeMap<String, u64>]) -> anyhow::Result<Vec<StepTimes>> {
    let mut by_step: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (step, micros) in own_times.iter().flatten() {
        by_step.entry(step).or_default().push(*micros);
    }
    let whole: u64 = by_step.values().flatten().sum();
    let mut steps = Vec::new();
    for (step, times) in by_step {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3)?;
        for &micros in &times {
            histogram.saturating_record(micros);
        }
        steps.push(StepTimes {
            step: step.to_owned(),
            p50_ms: histogram.value_at_quantile(0.5) as f64 / 1_000.0,
            p99_ms: histogram.value_at_quantile(0.99) as f64 / 1_000.0,
            share: times.iter().sum::<u64>() as f64 / whole.max(1) as f64,
        });
    }
    steps.sort_by(|a, b| b.share.total_cmp(&a.share));
    Ok(steps)
}

/// The claim of middling length.
fn example(traces: &[&Trace], jaeger: &JaegerArguments) -> Option<Example> {
    let mut traces = traces.to_vec();
    traces.sort_by_key(|trace| length(trace));
    let trace = traces.get(traces.len() / 2)?;
    Some(Example { trace_id: trace.id.clone(), link: jaeger.link(&trace.id), waterfall: waterfall(trace) })
}

fn begin(trace: &Trace) -> u64 {
    trace.spans.iter().map(|span| span.start_time).min().unwrap_or_default()
}

fn length(trace: &Trace) -> u64 {
    trace.spans.iter().map(Span::end).max().unwrap_or_default().saturating_sub(begin(trace))
}

/// A line for each span: its name, indented under its parent, and a bar where it lies in the whole.
fn waterfall(trace: &Trace) -> Vec<String> {
    let (begin, length) = (begin(trace), length(trace).max(1));
    let column = |micros: u64| usize::try_from((micros - begin) * BAR_WIDTH as u64 / length).unwrap_or_default();
    let line = |span: &Span| {
        let from = column(span.start_time);
        // What is too short to be seen is drawn all the same.
        let to = column(span.end()).max(from + 1);
        let name = format!("{}{}", "  ".repeat(depth(trace, span)), span.name);
        let bar = format!("{}{}", " ".repeat(from), "#".repeat(to - from));
        let took = span.duration as f64 / 1_000.0;
        format!("{name:<46} {took:>8.2} ms |{bar:<width$}| {}", span.service, width = BAR_WIDTH + 1)
    };
    trace.spans.iter().map(line).collect()
}

fn depth(trace: &Trace, span: &Span) -> usize {
    let parent = trace.spans.iter().find(|parent| span.parent() == Some(&parent.id));
    parent.map_or(0, |parent| 1 + depth(trace, parent))
}

impl Breakdown {
    /// Of which way.
    pub fn way(&self) -> &str {
        &self.way
    }

    /// How many claims.
    pub fn traces(&self) -> usize {
        self.traces
    }

    /// Rows of the table: step, p50, p99 and share.
    pub fn rows(&self) -> impl Iterator<Item = [String; 4]> {
        self.steps.iter().map(|step| {
            [
                step.step.clone(),
                format!("{:.2}", step.p50_ms),
                format!("{:.2}", step.p99_ms),
                format!("{:.1} %", step.share * 100.0),
            ]
        })
    }

    /// The example: its waterfall and its link.
    pub fn example(&self) -> Option<(&[String], &str)> {
        self.example.as_ref().map(|example| (example.waterfall.as_slice(), example.link.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn span(id: &str, parent: &str, service: &str, start: u64, duration: u64) -> Span {
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
    fn queue_trace() -> Trace {
        let spans = vec![
            span("request", "", "api", 1_000, 100),
            span("publish", "request", "api", 1_020, 60),
            span("process", "publish", "consumer", 1_120, 200),
            span("persist", "process", "consumer", 1_140, 150),
        ];
        Trace { id: String::from("t"), spans }
    }

    #[test]
    fn the_time_of_a_step_is_its_own() {
        let times = own_times(&queue_trace());

        assert_eq!(
            times.into_iter().collect::<Vec<_>>(),
            [("in the queue", 40), ("persist", 150), ("process", 50), ("publish", 60), ("request", 40)]
                .map(|(step, micros)| (String::from(step), micros))
        );
    }

    #[test]
    fn children_that_overlap_or_outlive_their_parent_are_not_counted_twice() {
        let parent = span("parent", "", "api", 0, 100);
        let children = [
            span("a", "parent", "api", 10, 40),
            span("b", "parent", "api", 30, 40),
            span("c", "parent", "api", 90, 500),
        ];

        assert_eq!(covered(&parent, children.iter()), 70);
    }

    #[test]
    fn a_waterfall_shows_each_span_under_its_parent() {
        let lines = waterfall(&queue_trace());

        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("request") && lines[3].starts_with("      persist"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains('#')), "{lines:#?}");
    }
}
