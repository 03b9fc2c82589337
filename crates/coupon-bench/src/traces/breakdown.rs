//! Where the time of one way's claims goes: a table of steps.
//!
//! The time of a step is its own: what its children took is theirs. The time between the confirm of a claim and the
//! batch that took it belongs to the queue.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use coupon_core::terminal::{print, printable};
use serde::Serialize;

use super::jaeger::{self, JaegerArguments, Span, Trace};
use super::waterfall;
use crate::output::{Results, row, table};
use crate::statistics::Latencies;

/// Traces asked for: Jaeger gives one at a time.
const TRACES_MAX: usize = 200;

/// Name of the step that no span covers.
const IN_QUEUE: &str = "in the queue";

/// Where the time of one way's claims goes.
#[derive(Clone, Debug, Serialize)]
pub struct Breakdown {
    way: String,
    /// Issued claims whose traces were found.
    pub traces: usize,
    steps: Vec<StepTimes>,
    example: Option<Example>,
}

#[derive(Clone, Debug, Serialize)]
struct StepTimes {
    step: String,
    p50_ms: f64,
    p99_ms: f64,
    /// Share of all the time of all these claims, from 0 to 1.
    share: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Example {
    trace_id: String,
    link: String,
    waterfall: Vec<String>,
}

/// Asks Jaeger where the time of these claims went.
pub async fn breakdown(way: &str, trace_ids: &[String], jaeger: &JaegerArguments) -> anyhow::Result<Breakdown> {
    let wanted = trace_ids.get(..TRACES_MAX).unwrap_or(trace_ids);
    let traces = jaeger::traces(jaeger, wanted).await?;
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
    let parent = trace.parent(span)?;
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
        let mut latencies = Latencies::new()?;
        for &micros in &times {
            latencies.record(Duration::from_micros(micros));
        }
        steps.push(StepTimes {
            step: step.to_owned(),
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            share: times.iter().sum::<u64>() as f64 / whole.max(1) as f64,
        });
    }
    steps.sort_by(|a, b| b.share.total_cmp(&a.share));
    Ok(steps)
}

/// The claim whose time is the median.
fn example(traces: &[&Trace], jaeger: &JaegerArguments) -> Option<Example> {
    let mut traces = traces.to_vec();
    traces.sort_by_key(|trace| trace.length());
    let trace = traces.get(traces.len() / 2)?;
    Some(Example { trace_id: trace.id.clone(), link: jaeger.link(&trace.id), waterfall: waterfall::draw(trace) })
}

impl Results for Vec<Breakdown> {
    fn print(&self) -> io::Result<()> {
        self.iter().try_for_each(Breakdown::print)
    }

    fn is_clean(&self) -> bool {
        true
    }
}

impl Breakdown {
    fn print(&self) -> io::Result<()> {
        print(&format!("\n{}: where the time of {} issued and traced claims went", self.way, self.traces))?;
        let mut table = table(["step", "p50 ms", "p99 ms", "share"]);
        for StepTimes { step, p50_ms, p99_ms, share } in &self.steps {
            let share = format!("{:.1} %", share * 100.0);
            table.add_row(row(step, [format!("{p50_ms:.2}"), format!("{p99_ms:.2}"), share]));
        }
        print(&table)?;
        if let Some(Example { link, waterfall, .. }) = &self.example {
            print(&format!("one of them, {link}"))?;
            waterfall.iter().try_for_each(|line| print(&printable(line)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::jaeger::fixtures::{queue_trace, span};

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
}
