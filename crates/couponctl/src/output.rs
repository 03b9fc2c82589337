//! Prints results: tables for people, JSON for programs.

use comfy_table::{Cell, CellAlignment, Table, presets};
use coupon_core::terminal::{print, print_json};
use serde::Serialize;

pub type Printed = std::io::Result<()>;

/// Prints what the migration did.
pub fn migrated(applied: &[String], version: u32, json: bool) -> Printed {
    if json {
        print_json(&serde_json::json!({ "version": version, "applied": applied }))
    } else if applied.is_empty() {
        print(&format!("schema is at version {version}, as it was"))
    } else {
        print(&format!("schema is at version {version}; applied {}", applied.join(", ")))
    }
}

/// Prints a short result: a sentence for people, its figures for programs.
pub fn done(text: &str, figures: &impl Serialize, json: bool) -> Printed {
    if json { print_json(figures) } else { print(&text) }
}

/// Prints a token by itself, so that a script can use it.
pub fn token(token: &str, json: bool) -> Printed {
    if json { print_json(&serde_json::json!({ "token": token })) } else { print(&token) }
}

/// A table without lines, under a header.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// A number, aligned right.
pub fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}
