//! The report as a page: the verdict first, then how it came about.
//!
//! Invariants: the page makes no requests, and its content security policy forbids them; it works without scripts, in
//! light and dark mode, on a phone and on paper.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Named;
use super::markdown::setting;
use super::plots::{curves, percentiles, thinned};
use super::style::STYLE;
use super::verdict::{Both, sentences};
use crate::experiments::matrix::{COLUMNS, Cell, Matrix};

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The programs that use CPU time, in the order and with the colours of a bar.
const PROGRAMS: [&str; 7] =
    ["producer-api", "skiplock-api", "queue-consumer", "MySQL", "Redis", "RabbitMQ", "redis-api"];

pub fn page(reports: &[Named]) -> anyhow::Result<String> {
    let parts = reports.iter().map(|report| part(report, reports.len() > 1)).collect::<anyhow::Result<Vec<_>>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="content-security-policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Two ways to issue coupons" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Two ways to issue coupons" }
                @for part in parts { (part) }
            }
        }
    };
    Ok(page.into_string())
}

fn part(Named { name, matrix }: &Named, is_one_of_several: bool) -> anyhow::Result<Markup> {
    Ok(html! {
        @if is_one_of_several { h1 { (name) } }
        p class="faint" { (setting(matrix)) }
        div class="verdict" { @for sentence in sentences(matrix)? { p { (sentence) } } }
        @if !matrix.failures.is_empty() {
            div class="failed" { @for line in &matrix.failures { p { (line) } } }
        }
        (tables(matrix)?)
        @if let Some(both) = Both::of(matrix) { (in_time(&both)?) }
        (cpu(matrix))
        (mysql(matrix))
        (method(matrix))
    })
}

fn tables(matrix: &Matrix) -> anyhow::Result<Markup> {
    let mut tables = Vec::new();
    for ((claims, coupons), cells) in matrix.by_size() {
        let rows = cells.iter().map(|cell| Ok((&cell.contender, cell.row()?)));
        tables.push((claims, coupons, rows.collect::<anyhow::Result<Vec<_>>>()?));
    }
    Ok(html! {
        @for (claims, coupons, rows) in tables {
            h2 { (claims) " claims for " (coupons) " coupons" }
            div class="wide" {
                table {
                    tr { th {} @for column in COLUMNS { th { (column) } } }
                    @for (contender, figures) in rows {
                        tr { td { (contender) } @for figure in figures { td { (figure) } } }
                    }
                }
            }
        }
    })
}

/// Plots both ways over time, and how long their claims took.
fn in_time(both: &Both<'_>) -> anyhow::Result<Markup> {
    let Both { claims, coupons, queue, skiplock } = both;
    let title = format!("{claims} claims for {coupons} coupons");
    let course = |cell: &Cell| (cell.contender.clone(), thinned(cell.course()));
    let outcomes = curves(&title, "seconds", "outcomes", vec![course(queue), course(skiplock)])?;
    let [queue_answer, queue_outcome] = queue.latencies()?;
    let [_, skiplock_outcome] = skiplock.latencies()?;
    let latencies = vec![
        (String::from("queue"), queue_outcome),
        (String::from("coalesced"), skiplock_outcome),
        (String::from("queue, 202"), queue_answer),
    ];
    Ok(html! {
        h2 { "Outcomes over time" }
        p class="faint" { "In the turn whose rate is the median." }
        (PreEscaped(outcomes))
        h2 { "How long claims took" }
        p class="faint" { "To the outcome, and with the queue to its first answer, 202. All claims of all turns; up to the right, the slowest of \
             them." }
        (PreEscaped(percentiles(&title, latencies)?))
    })
}

fn cpu(matrix: &Matrix) -> Markup {
    let sizes = matrix.by_size();
    let Some((_, cells)) = sizes.last_key_value() else { return html! {} };
    let most = cells.iter().map(|cell| cell.cost_us()).fold(1.0, f64::max);
    let share = |us: f64| format!("width:{:.2}%", 100.0 * us / most);
    let spent = |cell: &Cell| {
        let us = cell.cpu_us();
        PROGRAMS.map(|program| us.get(program).copied().unwrap_or(0.0))
    };
    // The rate that the cores allow: cores / CPU time of a claim, if nothing else used any.
    let limit = |cell: &Cell| matrix.machine.cores as f64 * 1e6 / cell.cost_us();
    html! {
        h2 { "CPU time of a claim" }
        p class="key" {
            @for (colour, program) in PROGRAMS.iter().enumerate() { span class=(format!("c{colour}")) {} (program) }
        }
        div class="wide" {
            table class="stacked" {
                tr { th {} th { "µs" } th { "claims a second that the cores allow" } th { "cores idle" } th {} }
                @for cell in cells {
                    tr {
                        td { (cell.contender) }
                        td { (format!("{:.0}", cell.cost_us())) }
                        td { (format!("{:.0}", limit(cell))) }
                        td { (format!("{:.0} %", 100.0 * cell.idle(matrix.machine.cores))) }
                        td {
                            div class="bar" {
                                @for (colour, us) in spent(cell).into_iter().enumerate().filter(|(_, us)| *us > 0.0) {
                                    span class=(format!("c{colour}")) style=(share(us))
                                        title=(format!("{} {us:.0} µs", PROGRAMS.get(colour).unwrap_or(&""))) {}
                                }
                            }
                        }
                    }
                }
            }
        }
        p class="faint" { "At the largest size. The load is left out, except where idle cores are counted: it runs on the same cores." }
    }
}

fn mysql(matrix: &Matrix) -> Markup {
    let sizes = matrix.by_size();
    let Some((_, cells)) = sizes.last_key_value() else { return html! {} };
    let counted: Vec<(&str, BTreeMap<&str, f64>)> =
        cells.iter().map(|cell| (cell.contender.as_str(), cell.mysql())).collect();
    let Some(names) = counted.first().map(|(_, counted)| counted.keys().copied().collect::<Vec<_>>()) else {
        return html! {};
    };
    html! {
        h2 { "What MySQL does for a claim" }
        div class="wide" {
            table {
                tr { th {} @for name in &names { th { (name) } } }
                @for (contender, counted) in &counted {
                    tr {
                        td { (contender) }
                        @for name in &names { td { (format!("{:.2}", counted.get(name).copied().unwrap_or(0.0))) } }
                    }
                }
            }
        }
        p class="faint" { "By the server's own counters, all connections together." }
    }
}

fn method(matrix: &Matrix) -> Markup {
    html! {
        h2 { "How it was measured" }
        p {
            (matrix.clients) " connections claim in a closed loop, each again as soon as it is answered; with the queue as \
             many more wait for outcomes. Contenders take turns, each load with services and a campaign of its own; rates are \
             medians of turns, percentiles are of all their claims together. An audit in SQL follows each load: what it finds \
             wrong gives no figure. All servers write to disk before they answer."
        }
        p {
            "Coupons that went to somebody later: of the accounts that claimed first, one for each coupon, the share that got \
             none. 0 % is first come, first served. Where there are fewer coupons than clients, all of them go to claims that were \
             sent at the same moment, and the share says little."
        }
        details {
            summary { "Settings" }
            table {
                @for (contender, settings) in settings(matrix) { tr { td { (contender) } td { (settings) } } }
            }
        }
    }
}

fn settings(matrix: &Matrix) -> BTreeMap<&str, String> {
    let written = |settings: &BTreeMap<String, String>| {
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if settings.is_empty() { String::from("as they are by default") } else { settings.join(" ") }
    };
    matrix.cells.iter().map(|cell| (cell.contender.as_str(), written(&cell.settings))).collect()
}
