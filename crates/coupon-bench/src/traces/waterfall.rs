//! Draws one claim as a waterfall.

use super::jaeger::{Span, Trace};

/// The length of the longest bar, in characters.
const BAR_WIDTH: usize = 48;

/// Draws a line for each span: its name, indented under its parent, and a bar at its place in the whole.
pub fn draw(trace: &Trace) -> Vec<String> {
    let begin = trace.begin();
    let length = trace.end().saturating_sub(begin).max(1);
    let column = |at: u64| usize::try_from((at - begin) * BAR_WIDTH as u64 / length).unwrap_or_default();
    let line = |span: &Span| {
        let from = column(span.start);
        // A span too short to see still gets a bar.
        let to = column(span.end).max(from + 1);
        let name = format!("{}{}", "  ".repeat(trace.depth(span)), span.name);
        let bar = format!("{}{}", " ".repeat(from), "#".repeat(to - from));
        let took = span.end.saturating_sub(span.start) as f64 / 1e6;
        format!("{name:<46} {took:>8.2} ms |{bar:<width$}| {}", span.service, width = BAR_WIDTH + 1)
    };
    trace.spans.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::jaeger::fixtures::queue_trace;

    #[test]
    fn a_waterfall_shows_each_span_under_its_parent() {
        let lines = draw(&queue_trace());

        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("request") && lines[3].starts_with("      persist"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains('#')), "{lines:#?}");
    }
}
