//! What the command prints. The one place that writes to standard output and standard error.
#![allow(clippy::print_stderr)]

use std::fmt::Display;
use std::io::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use coupon_core::Campaign;
use coupon_core::audit::Report;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A campaign with its counts.
#[derive(Debug, Serialize)]
pub struct CampaignCounts {
    /// The campaign.
    #[serde(flatten)]
    pub campaign: Campaign,
    /// Coupons with an account.
    pub issued: u64,
    /// Coupons without one.
    pub free: u64,
}

/// One line on standard error.
pub fn error(error: &anyhow::Error) {
    let line = format!("{error:#}").replace('\n', " ");
    eprintln!("error: {line}");
}

/// What the migration did.
pub fn migrated(applied: &[String], version: u32, json: bool) {
    if json {
        print_json(&serde_json::json!({ "version": version, "applied": applied }));
    } else if applied.is_empty() {
        print(&format!("schema is at version {version}, as it was"));
    } else {
        print(&format!("schema is at version {version}; applied {}", applied.join(", ")));
    }
}

/// Campaigns, a line each.
pub fn campaigns(campaigns: &[CampaignCounts], json: bool) {
    if json {
        return print_json(&campaigns);
    }
    let mut table = table(["id", "name", "opens at", "closes at", "coupons", "issued", "free"]);
    for CampaignCounts { campaign, issued, free } in campaigns {
        table.add_row([
            number(campaign.id.0),
            Cell::new(&campaign.name),
            Cell::new(instant(campaign.opens_at)),
            Cell::new(instant(campaign.closes_at)),
            number(campaign.coupons),
            number(*issued),
            number(*free),
        ]);
    }
    print(&table);
}

/// The findings of an audit.
pub fn audit(report: &Report, not_checked: &[String], json: bool) {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        report: &'a Report,
        not_checked: &'a [String],
    }

    if json {
        return print_json(&Document { report, not_checked });
    }
    let mut table = table(["invariant", "checked", "broken", "examples"]);
    for finding in &report.invariants {
        table.add_row([
            Cell::new(finding.invariant),
            number(finding.checked),
            number(finding.broken),
            Cell::new(finding.examples.join("\n")),
        ]);
    }
    print(&table);
    for reason in not_checked {
        print(&format!("not checked: {reason}"));
    }
    let issued: u64 = report.campaigns.iter().map(|stock| stock.issued).sum();
    let free: u64 = report.campaigns.iter().map(|stock| stock.free).sum();
    let verdict = if report.clean { "clean" } else { "BROKEN" };
    print(&format!("{verdict}: {} campaigns, {issued} coupons issued, {free} free", report.campaigns.len()));
}

/// A short result.
pub fn done(text: &str, json: bool) {
    if json {
        print_json(&serde_json::json!({ "done": text }));
    } else {
        print(&text);
    }
}

fn print_json(value: &impl Serialize) {
    print(&serde_json::to_string_pretty(value).unwrap_or_default());
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn instant(value: Option<OffsetDateTime>) -> String {
    value.and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_else(|| String::from("-"))
}

/// Something worth knowing while the work goes on.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// A line on standard output. Whoever closed it, as `head` does, has seen enough.
fn print(line: &impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
