//! Breaks down where the time of one way's claims goes, in a table of steps.
//!
//! Invariant: the steps of a claim add up to the time that the client saw. A step counts only its own time: time spent
//! in a nested step counts for the nested step. The time between the confirm of a claim and the batch that took it
//! counts for the queue, and the wait for a push counts only time that no step of the consumer covers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use coupon_core::api::outcome_reader::WAIT_SPAN;
use coupon_core::terminal::{print, printable};
use serde::Serialize;

use super::jaeger::{self, JaegerArguments, Span, Trace};
use super::waterfall;
use crate::output::{Results, row, table};
use crate::statistics::Latencies;

/// The most traces to request: Jaeger returns one at a time.
const TRACES_MAX: usize = 200;

/// The name of the time between spans that a claim spends in the queue.
const IN_QUEUE: &str = "in the queue";

/// The name of time that no service's span covers: the client and the network.
const UNACCOUNTED: &str = "unaccounted for";

/// Where the time of one way's claims goes.
#[derive(Clone, Debug, Serialize)]
pub struct Breakdown {
    way: String,
    /// How many issued claims had their traces found.
    pub traces: usize,
    steps: Vec<StepTimes>,
    example: Option<Example>,
    /// The link to the slowest percent of all such claims.
    slowest: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct StepTimes {
    step: String,
    p50_ms: f64,
    p99_ms: f64,
    /// The share of the total time of all these claims, from 0 to 1.
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
    // A claim that found the campaign sold out was answered from memory, without any steps.
    let issued: Vec<&Trace> = traces.iter().filter(|trace| trace.is_issued()).collect();
    let own_times: Vec<BTreeMap<String, u64>> = issued.iter().map(|trace| own_times(trace)).collect();
    Ok(Breakdown {
        way: way.to_owned(),
        traces: issued.len(),
        steps: step_times(&own_times)?,
        example: example(&issued, jaeger),
        slowest: slowest(way, &issued, jaeger)?,
    })
}

/// How much of a claim's time each of its steps took, in nanoseconds; together exactly the time from its first byte to
/// its outcome. Concurrent steps are counted once, for the one that is deepest in the trace.
fn own_times(trace: &Trace) -> BTreeMap<String, u64> {
    let (begin, end) = seen_by_client(trace);
    let pieces: Vec<Piece> = trace.spans.iter().flat_map(|span| pieces(trace, span)).collect();
    let mut times: BTreeMap<String, u64> = pieces.iter().map(|piece| (piece.step.clone(), 0)).collect();
    let bounds = pieces.iter().flat_map(|piece| [piece.start, piece.end]).filter(|at| (begin..=end).contains(at));
    let bounds: BTreeSet<u64> = bounds.chain([begin, end]).collect();
    let bounds: Vec<u64> = bounds.into_iter().collect();
    for pair in bounds.windows(2) {
        let &[from, to] = pair else { continue };
        let running = pieces.iter().filter(|piece| piece.start <= from && to <= piece.end);
        let step = running.max_by_key(|piece| piece.rank).map_or(UNACCOUNTED, |piece| &piece.step);
        *times.entry(step.to_owned()).or_default() += to - from;
    }
    times
}

/// The time from the first byte of a claim to its outcome; without the client's span, from the first to the last of the
/// services' spans.
fn seen_by_client(trace: &Trace) -> (u64, u64) {
    trace.root().map_or_else(|| (trace.begin(), trace.end()), |root| (root.start, root.end))
}

/// The time that the client saw, in nanoseconds.
fn client_time(trace: &Trace) -> u64 {
    let (begin, end) = seen_by_client(trace);
    end.saturating_sub(begin)
}

/// A step from its beginning to its end.
struct Piece {
    step: String,
    /// Of two concurrent pieces, the one with the higher rank counts.
    rank: (usize, bool, u64),
    start: u64,
    end: u64,
}

/// The pieces of a span: the span itself, and the time in the queue before it, if any.
fn pieces(trace: &Trace, span: &Span) -> Vec<Piece> {
    let depth = trace.depth(span);
    let is_root = trace.root().is_some_and(|root| root.id == span.id);
    let step = if is_root { UNACCOUNTED } else { &span.name };
    let piece = |step: &str, start: u64, end: u64| Piece {
        step: step.to_owned(),
        // Waiting counts only when nothing else is in progress.
        rank: (depth, step != WAIT_SPAN, start),
        start,
        end,
    };
    let parent = trace.parent(span).filter(|parent| parent.service != span.service && span.name.starts_with("process"));
    let in_queue = parent.map(|parent| piece(IN_QUEUE, parent.end, span.start.max(parent.end)));
    in_queue.into_iter().chain([piece(step, span.start, span.end)]).collect()
}

fn step_times(own_times: &[BTreeMap<String, u64>]) -> anyhow::Result<Vec<StepTimes>> {
    let mut by_step: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (step, nanos) in own_times.iter().flatten() {
        by_step.entry(step).or_default().push(*nanos);
    }
    let whole: u64 = by_step.values().flatten().sum();
    let mut steps = Vec::new();
    for (step, times) in by_step {
        let mut latencies = Latencies::new()?;
        for &nanos in &times {
            latencies.record(Duration::from_nanos(nanos));
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

/// The link to Jaeger's page with the claims of this load that took at least as long as the slowest percent of these.
fn slowest(load: &str, traces: &[&Trace], jaeger: &JaegerArguments) -> anyhow::Result<Option<String>> {
    let roots: Vec<&Span> = traces.iter().filter_map(|trace| trace.root()).collect();
    let times = roots.iter().map(|root| root.start).min().zip(roots.iter().map(|root| root.end).max());
    let mut latencies = Latencies::new()?;
    for root in &roots {
        latencies.record(Duration::from_nanos(root.end.saturating_sub(root.start)));
    }
    let p99 = Duration::from_secs_f64(latencies.quantile_ms(0.99) / 1_000.0);
    Ok(times.map(|times| jaeger.slowest(load, p99, times)))
}

/// The claim whose time is the median.
fn example(traces: &[&Trace], jaeger: &JaegerArguments) -> Option<Example> {
    let mut traces = traces.to_vec();
    traces.sort_by_key(|trace| client_time(trace));
    let trace = traces.get(traces.len() / 2)?;
    Some(Example { trace_id: trace.id.clone(), link: jaeger.link(&trace.id), waterfall: waterfall::draw(trace) })
}

impl Results for Vec<Breakdown> {
    fn print(&self) -> io::Result<()> {
        self.iter().try_for_each(Breakdown::print)?;
        match self.iter().filter_map(|breakdown| breakdown.example.as_ref()).collect::<Vec<_>>()[..] {
            [one, other] => print(&format!("\none of each side by side, {}...{}", one.link, other.trace_id)),
            _ => Ok(()),
        }
    }

    fn is_clean(&self) -> bool {
        true
    }
}

impl Breakdown {
    fn print(&self) -> io::Result<()> {
        if self.traces == 0 {
            return print(&format!("\n{}: no trace of an issued claim was found", self.way));
        }
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
        self.slowest.iter().try_for_each(|link| print(&format!("the slowest, {link}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::trace::ROOT;
    use crate::traces::jaeger::fixtures::{queue_trace, span};

    #[track_caller]
    fn assert_times(trace: &Trace, expected: &[(&str, u64)]) {
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|&(step, nanos)| (String::from(step), nanos)).collect();
        assert_eq!(own_times(trace), expected);
        assert_eq!(expected.values().sum::<u64>(), client_time(trace), "the steps are all of the time");
    }

    #[test]
    fn the_time_of_a_step_is_its_own() {
        assert_times(
            &queue_trace(),
            &[("request", 20), ("publish", 60), (IN_QUEUE, 40), ("process", 50), ("persist", 150)],
        );
    }

    #[test]
    fn the_steps_add_up_to_the_time_that_the_client_saw() {
        let Trace { id, mut spans } = queue_trace();
        spans[0].parent = String::from(ROOT);
        spans.push(span(ROOT, "", "bench", 990, 360));
        spans.push(span("ask", ROOT, "bench", 1_110, 240));
        spans.push(span("get", "ask", "api", 1_115, 230));
        spans.push(span(WAIT_SPAN, "get", "api", 1_116, 225));
        // This span ends after the client has its outcome.
        spans.push(span("ack", "process", "consumer", 1_300, 100));

        assert_times(
            &Trace { id, spans },
            &[
                // 990 to 1000, before the request reached the API.
                (UNACCOUNTED, 10),
                ("request", 20),
                ("publish", 60),
                (IN_QUEUE, 40),
                ("process", 30),
                ("persist", 150),
                ("ack", 50),
                ("ask", 0),
                ("get", 0),
                (WAIT_SPAN, 0),
            ],
        );
    }

    #[test]
    fn steps_that_overlap_or_outlive_their_parent_are_counted_once() {
        let spans = vec![
            span("parent", "", "api", 0, 100),
            span("a", "parent", "api", 10, 40),
            span("b", "parent", "api", 30, 40),
            span("c", "parent", "api", 90, 10),
        ];

        let trace = Trace { id: String::from("t"), spans };
        assert_times(&trace, &[("parent", 30), ("a", 20), ("b", 40), ("c", 10)]);
    }
}
