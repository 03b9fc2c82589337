//! What the command prints and writes.

use std::io;
use std::path::Path;

use anyhow::Context;
use comfy_table::{Cell, CellAlignment, Table, presets};
use coupon_core::terminal::{print, print_json, printable};
use serde::Serialize;

use crate::ceilings::Ceilings;
use crate::load::LoadResult;
use crate::suite::Check;
use crate::traces::Breakdown;
use crate::tracing_cost::Cost;

type Printed = io::Result<()>;

/// Writes a result to a file, with the folders it needs.
pub fn write(path: &Path, result: &impl Serialize) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A whole comparison, as JSON or as the table of its ways and where their time went.
pub fn comparison(whole: &impl Serialize, results: &[LoadResult], traces: &[Breakdown], json: bool) -> Printed {
    if json {
        print_json(whole)
    } else {
        ways(results, false)?;
        breakdowns(traces, false)
    }
}

/// Where the time of each way's claims goes, and one claim of each.
pub fn breakdowns(traces: &[Breakdown], json: bool) -> Printed {
    if json {
        return print_json(traces);
    }
    for way in traces {
        print(&format!("\n{}: where the time of {} issued and traced claims went", way.way(), way.traces()))?;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["step", "p50 ms", "p99 ms", "share"]);
        for [step, numbers @ ..] in way.rows() {
            let numbers = numbers.map(|number| Cell::new(number).set_alignment(CellAlignment::Right));
            table.add_row([Cell::new(step)].into_iter().chain(numbers));
        }
        print(&table)?;
        if let Some((waterfall, link)) = way.example() {
            print(&format!("one of them, {link}"))?;
            for line in waterfall {
                print(&printable(line))?;
            }
        }
    }
    Ok(())
}

/// What each stage does alone, and the limits that follow.
pub fn ceilings(ceilings: &Ceilings, json: bool) -> Printed {
    if json {
        return print_json(ceilings);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["stage", "claims a second, alone"]);
    let mut row = |name: &str, rate: f64| {
        table.add_row([Cell::new(name), Cell::new(format!("{rate:.0}")).set_alignment(CellAlignment::Right)]);
    };
    for stage in &ceilings.stages {
        row(stage.stage, stage.per_second);
    }
    row("limit of the queue way", ceilings.queue_limit);
    row("limit of the skiplock way", ceilings.skiplock_limit);
    print(&table)
}

/// All checks of a suite.
pub fn checks(whole: &impl Serialize, checks: &[Check], json: bool) -> Printed {
    if json {
        return print_json(whole);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["check", "measured", "wanted", "holds"]);
    for check in checks {
        let measured = Cell::new(format!("{:.2}", check.measured)).set_alignment(CellAlignment::Right);
        let holds = if check.holds { "yes" } else { "NO" };
        table.add_row([Cell::new(&check.name), measured, Cell::new(&check.wanted), Cell::new(holds)]);
    }
    print(&table)
}

/// What tracing costs on each way.
pub fn tracing_costs(costs: &[Cost], json: bool) -> Printed {
    if json {
        return print_json(costs);
    }
    for cost in costs {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([cost.way(), "claims a second", "of those without", "p99 to outcome, ms", "spans"]);
        for [mode, numbers @ ..] in cost.rows() {
            let numbers = numbers.map(|number| Cell::new(number).set_alignment(CellAlignment::Right));
            table.add_row([Cell::new(mode)].into_iter().chain(numbers));
        }
        print(&table)?;
    }
    Ok(())
}

/// Ways side by side: a column each.
pub fn ways(results: &[LoadResult], json: bool) -> Printed {
    if json {
        return print_json(results);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([String::new()].into_iter().chain(results.iter().map(|result| result.way.clone())));
    let mut row = |name: &str, value: fn(&LoadResult) -> String| {
        let values = results.iter().map(|result| Cell::new(value(result)).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(name)].into_iter().chain(values));
    };
    row("coupons", |result| result.coupons.to_string());
    row("claims", |result| result.claims.to_string());
    row("issued", |result| result.issued.to_string());
    row("sold out", |result| result.sold_out.to_string());
    row("repeated, same answer", |result| result.repeated.to_string());
    row("errors", |result| result.errors.to_string());
    row("seconds to accept", |result| format!("{:.2}", result.accept_seconds));
    row("seconds to the last outcome", |result| format!("{:.2}", result.outcome_seconds));
    row("claims a second", |result| format!("{:.0}", result.claims as f64 / result.outcome_seconds));
    row("p50 / p99 to answer, ms", |result| format!("{:.1} / {:.1}", result.p50_ms, result.p99_ms));
    row("p50 / p99 to outcome, ms", |result| format!("{:.1} / {:.1}", result.outcome_p50_ms, result.outcome_p99_ms));
    row("traced", |result| format!("{} %", result.trace_ratio * 100.0));
    row("audit", |result| result.audit.clone());
    print(&table)?;
    for result in results {
        for example in &result.error_examples {
            print(&format!("{}: error: {}", result.way, printable(example)))?;
        }
        for finding in &result.findings {
            print(&format!(
                "{}: {} is broken {} times: {}",
                result.way, finding.invariant, finding.broken, finding.says
            ))?;
            for example in &finding.examples {
                print(&format!("  {example}"))?;
            }
        }
    }
    Ok(())
}
