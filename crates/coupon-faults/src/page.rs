//! The report as one self-contained page: a plot of the run with the faults shaded, the table, the checks, and every
//! fault.
//!
//! Invariant: the page makes no requests; its content security policy forbids them.

use maud::{DOCTYPE, Markup, html};

use crate::effects::Effect;
use crate::journal::Micros;
use crate::report::{Report, columns, figures};
use crate::timeline::Second;

/// The size of a plot, and the margin for its numbers, in the units of the image.
const WIDTH: f64 = 1_200.0;
const HEIGHT: f64 = 160.0;
const MARGIN: f64 = 50.0;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1250px;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}\
th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child{text-align:left}.says{text-align:left}\
svg{width:100%;height:auto;background:#fafafa;margin:.4em 0}.fault{fill:#d33;opacity:.18}.fault:hover{opacity:.5}\
.bad{color:#b00;font-weight:bold}.good{color:#070;font-weight:bold}text{font-size:12px;fill:#555}\
polyline{fill:none;stroke-width:1.5}.a{stroke:#27a}.b{stroke:#c40}.line{stroke:#bbb}";

/// Writes the page.
#[must_use]
pub fn page(report: &Report) -> String {
    let verdict = if report.is_clean() { "good" } else { "bad" };
    let setting = &report.setting;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="content-security-policy" content=(POLICY);
                meta name="viewport" content="width=device-width";
                title { "Fault run, seed " (setting.seed) }
                style { (STYLE) }
            }
            body {
                h1 { "Fault run, seed " (setting.seed) }
                p class=(verdict) { (report.verdict()) }
                p {
                    (report.claims) " claims of " (report.accounts) " accounts at " (setting.rate) " a second, "
                    (report.issued) " coupons issued. Commit " (setting.commit) ", " (setting.build) "; "
                    (setting.servers) "; " (setting.machine) "."
                }
                h2 { "Answers a second" }
                p { "Blue: answered. Orange: without a certain answer. Red: a fault is on; point at one for its name." }
                (plot(report, |second| second.answered as f64, |second| second.unknown as f64))
                h2 { "Milliseconds from the claim to its outcome" }
                p { "Blue: the middle of the claims of that second. Orange: the longest. The scale is in powers of ten: 3 is a second." }
                (plot(report, |second| logarithmic(second.middle_ms), |second| logarithmic(second.longest_ms)))
                h2 { "By kind of fault" }
                (by_kind(report))
                h2 { "What was checked" }
                (checks(report))
                h2 { "Every fault" }
                (faults(report))
            }
        }
    }
    .into_string()
}

/// The power of ten: 3 is a second.
fn logarithmic(ms: u64) -> f64 {
    (ms.max(1) as f64).log10()
}

/// The horizontal position of a time in a plot.
fn x(at: Micros, lasted: Micros) -> f64 {
    MARGIN + (WIDTH - MARGIN) * (at.min(lasted) as f64 / lasted.max(1) as f64)
}

fn plot(report: &Report, first: fn(&Second) -> f64, second: fn(&Second) -> f64) -> Markup {
    let lasted = report.lasted;
    let highest = report.seconds.iter().map(|one| first(one).max(second(one))).fold(1.0, f64::max);
    let line = |of: fn(&Second) -> f64| {
        let point = |(n, one): (usize, &Second)| {
            let y = HEIGHT - HEIGHT * of(one) / highest;
            format!("{:.1},{y:.1}", x(n as u64 * 1_000_000, lasted))
        };
        report.seconds.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
    };
    html! {
        svg viewBox=(format!("0 -8 {WIDTH} {}", HEIGHT + 28.0)) role="img" {
            @for effect in &report.faults { (shade(effect, lasted)) }
            line class="line" x1=(MARGIN) x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            text x="0" y="6" { (format!("{highest:.1}")) }
            text x="0" y=(HEIGHT) { "0" }
            @for tenth in 0..10 {
                text x=(x(lasted * tenth / 10, lasted)) y=(HEIGHT + 16.0) { (lasted * tenth / 10_000_000) " s" }
            }
            polyline class="b" points=(line(second)) {}
            polyline class="a" points=(line(first)) {}
        }
    }
}

fn shade(effect: &Effect, lasted: Micros) -> Markup {
    let (from, to) = (x(effect.played.began, lasted), x(effect.played.healed, lasted));
    html! {
        rect class="fault" x=(from) width=((to - from).max(1.0)) y="0" height=(HEIGHT) {
            title { (effect.played.fault.kind.name()) " of " (effect.played.fault.target) }
        }
    }
}

fn by_kind(report: &Report) -> Markup {
    html! {
        table {
            tr { @for column in columns() { th { (column) } } }
            @for (kind, row) in report.rows() {
                tr { td { (kind) } @for figure in figures(row) { td { (figure) } } }
            }
            tr { td { "all" } @for figure in figures(report.sum()) { td { (figure) } } }
        }
    }
}

fn checks(report: &Report) -> Markup {
    html! {
        table {
            tr { th { "check" } th { "checked" } th { "broken" } th class="says" { "what must hold" } }
            @for check in &report.checks {
                tr {
                    td { (check.name) }
                    td { (check.checked) }
                    td class=[(check.broken > 0).then_some("bad")] { (check.broken) }
                    td class="says" {
                        (check.says)
                        @for finding in &check.findings { div class="bad" { (finding.says) } }
                    }
                }
            }
        }
    }
}

fn faults(report: &Report) -> Markup {
    let ms = |micros: Micros| micros / 1_000;
    html! {
        table {
            tr {
                @for column in ["fault", "of", "at ms", "for ms", "in flight", "touched", "unknown", "recovered", "heal ms"] {
                    th { (column) }
                }
            }
            @for effect in &report.faults {
                tr {
                    td { (effect.played.fault.kind.name()) @if !effect.bit { " (missed)" } }
                    td { (effect.played.fault.target) }
                    td { (ms(effect.played.began)) }
                    td { (ms(effect.played.healed.saturating_sub(effect.played.began))) }
                    td { (effect.in_flight) }
                    td { (effect.touched) }
                    td { (effect.unknown) }
                    td { (effect.recovered) }
                    td { @if let Some(heal) = effect.heal { (ms(heal)) } @else { "-" } }
                }
            }
        }
    }
}
