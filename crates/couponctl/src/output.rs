//! What the command prints: tables for people, JSON for programs.

use comfy_table::{Cell, CellAlignment, Table, presets};
use coupon_core::Campaign;
use coupon_core::audit::Report;
use coupon_core::domain::Window;
use coupon_core::terminal::{print, print_json, printable};
use serde::Serialize;
use time::OffsetDateTime;

use crate::audit::Verdict;
use crate::history::{self, Change};

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

type Printed = std::io::Result<()>;

/// What the migration did.
pub fn migrated(applied: &[String], version: u32, json: bool) -> Printed {
    if json {
        print_json(&serde_json::json!({ "version": version, "applied": applied }))
    } else if applied.is_empty() {
        print(&format!("schema is at version {version}, as it was"))
    } else {
        print(&format!("schema is at version {version}; applied {}", applied.join(", ")))
    }
}

/// Campaigns, a line each.
pub fn campaigns(campaigns: &[CampaignCounts], json: bool) -> Printed {
    if json {
        return print_json(&campaigns);
    }
    let mut table = table(["id", "name", "opens at", "closes at", "state", "coupons", "issued", "free"]);
    for CampaignCounts { campaign, issued, free } in campaigns {
        table.add_row([
            number(campaign.id.0),
            Cell::new(printable(&campaign.name)),
            Cell::new(history::instant(campaign.opens_at)),
            Cell::new(history::instant(campaign.closes_at)),
            Cell::new(state(campaign)),
            number(campaign.coupons),
            number(*issued),
            number(*free),
        ]);
    }
    print(&table)
}

/// What a claim would meet at this moment.
fn state(campaign: &Campaign) -> &'static str {
    match campaign.window(OffsetDateTime::now_utc()) {
        Window::NotOpen => "not open",
        Window::Closed => "closed",
        Window::Open if campaign.paused => "paused",
        Window::Open => "open",
    }
}

/// Changes of a campaign, a line each.
pub fn history(changes: &[Change], json: bool) -> Printed {
    if json {
        return print_json(&changes);
    }
    let mut table = table(["at", "what", "old", "new", "who"]);
    for Change { at, campaign_id: _, what, old, new, who } in changes {
        table.add_row([
            Cell::new(history::instant(Some(*at))),
            Cell::new(printable(what)),
            Cell::new(printable(old.as_deref().unwrap_or("-"))),
            Cell::new(printable(new)),
            Cell::new(printable(who)),
        ]);
    }
    print(&table)
}

/// The findings of an audit.
pub fn audit(verdict: Verdict, report: &Report, not_checked: &[String], json: bool) -> Printed {
    /// `clean` only when everything was checked, so that a script need not know of the rest.
    #[derive(Serialize)]
    struct Document<'a> {
        verdict: Verdict,
        #[serde(flatten)]
        report: &'a Report,
        not_checked: &'a [String],
    }

    if json {
        let report = &Report { clean: verdict == Verdict::Clean, ..report.clone() };
        return print_json(&Document { verdict, report, not_checked });
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
    print(&table)?;
    for reason in not_checked {
        print(&format!("not checked: {}", printable(reason)))?;
    }
    let issued: u64 = report.campaigns.iter().map(|stock| stock.issued).sum();
    let free: u64 = report.campaigns.iter().map(|stock| stock.free).sum();
    let verdict = match verdict {
        Verdict::Clean => "clean",
        Verdict::Broken => "BROKEN",
        Verdict::NotChecked => "NOT ALL CHECKED, what was holds",
    };
    print(&format!("{verdict}: {} campaigns, {issued} coupons issued, {free} free", report.campaigns.len()))
}

/// A short result.
pub fn done(text: &str, json: bool) -> Printed {
    if json { print_json(&serde_json::json!({ "done": text })) } else { print(&text) }
}

/// A token: by itself, for a script to take.
pub fn token(token: &str, json: bool) -> Printed {
    if json { print_json(&serde_json::json!({ "token": token })) } else { print(&token) }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}
