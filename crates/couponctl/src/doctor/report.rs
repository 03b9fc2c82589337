//! Prints the report of `couponctl doctor`.

use comfy_table::{Table, presets};
use coupon_core::terminal::{print, print_json, printable};

use super::sheet::{Finding, Verdict};

/// Prints a line for each finding, with the remedy below it, and a summary.
///
/// # Errors
/// Standard output cannot be written.
pub fn report(findings: &[Finding], worst: Verdict, json: bool) -> std::io::Result<()> {
    if json {
        return print_json(&serde_json::json!({ "verdict": worst, "findings": findings }));
    }
    let table = table(findings).to_string();
    // The table pads the last column with blanks.
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    print(&format!("{}\n{}", lines.join("\n"), summary(findings)))
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["server", "check", "verdict", "found, and what to do"]);
    for Finding { server, check, verdict, found, remedy } in findings {
        let mut text = printable(found);
        if let Some(remedy) = remedy {
            text = format!("{text}\n=> {}", printable(remedy));
        }
        table.add_row([*server, check, verdict.name(), &text]);
    }
    table
}

fn summary(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    format!(
        "{} checks: ok {}, warnings {}, wrong {}, not checked {}",
        findings.len(),
        count(Verdict::Ok),
        count(Verdict::Warning),
        count(Verdict::Wrong),
        count(Verdict::NotChecked)
    )
}
