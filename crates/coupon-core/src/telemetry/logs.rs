//! Logs: to standard error, as text for people or JSON for a collector. Standard output stays free for results.
//!
//! A line that is written while a request is handled carries the trace id of the request, which leads from the line to
//! its trace.

use std::fmt;
use std::io::IsTerminal as _;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, TraceId};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, format};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::{LogFormat, ProcessSettings};

/// Starts logging for this process; call it once, first thing in `main`.
pub fn start(settings: &ProcessSettings) {
    let filter = settings.log.clone();
    let lowest = filter.lowest();
    let is_logged = filter_fn(move |metadata| filter.enables(metadata.target(), *metadata.level()));
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A line that cannot be written would be reported on the same closed stream, and that panics.
        .log_internal_errors(false)
        .with_ansi(is_terminal);
    let format = format().with_target(false).with_ansi(is_terminal);
    let lines = match settings.log_format {
        LogFormat::Text => lines.event_format(WithTraceId { format, write: write_text }).boxed(),
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(WithTraceId { format: format.json().flatten_event(true), write: write_json })
            .boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(is_logged.with_max_level_hint(lowest))).init();
}

/// A format, and how the trace id gets into its finished line.
struct WithTraceId<F> {
    format: F,
    write: fn(&mut Writer<'_>, line: &str, TraceId) -> fmt::Result,
}

impl<S, N, F> FormatEvent<S, N> for WithTraceId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let trace_id = Context::map_current(|context| context.span().span_context().trace_id());
        if trace_id == TraceId::INVALID {
            return self.format.format_event(context, to, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        (self.write)(&mut to, line.trim_end(), trace_id)
    }
}

fn write_text(to: &mut Writer<'_>, line: &str, trace_id: TraceId) -> fmt::Result {
    writeln!(to, "{line} trace_id={trace_id}")
}

fn write_json(to: &mut Writer<'_>, line: &str, trace_id: TraceId) -> fmt::Result {
    writeln!(to, "{{\"trace_id\":\"{trace_id}\",{}", line.trim_start_matches('{'))
}
