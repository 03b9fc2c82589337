//! Pages and tables from the reports of `matrix`: one report, or several to compare.
//!
//! ```text
//! report.json ─> verdict  what the figures say, in sentences ─┬─> markdown
//!                plots    curves as SVG ──────────────────────┴─> page
//! ```
//! Invariant: the output depends only on the reports, so that a page can be made again at any time.

mod markdown;
mod page;
mod plots;
mod style;
mod verdict;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use coupon_core::terminal;
use serde::Serialize;

use crate::experiments::matrix::Matrix;
use crate::output;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The reports, as `coupon-bench matrix` writes them.
    #[arg(value_name = "FILE", required_unless_present = "schema", num_args = 1..=8)]
    reports: Vec<PathBuf>,
    /// Print the JSON Schema of a report instead.
    #[arg(long, conflicts_with_all = ["reports", "page", "markdown"])]
    schema: bool,
    /// Where to write a self-contained page: no other file, no script, no network.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Where to write the tables in Markdown. Without either file, they are printed.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A report with the name of its file.
#[derive(Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    matrix: Matrix,
}

impl Arguments {
    /// Checks that the command does not write one of its files over another.
    ///
    /// # Errors
    /// A line that names the file.
    pub fn check(&self) -> Result<(), String> {
        let mut others: Vec<PathBuf> = self.reports.iter().map(|path| whole(path)).collect();
        for (option, path) in [("--page", &self.page), ("--markdown", &self.markdown)] {
            let Some(path) = path else { continue };
            if others.contains(&whole(path)) {
                return Err(format!("{option} = '{}' is another file of this command already", path.display()));
            }
            others.push(whole(path));
        }
        Ok(())
    }
}

/// The canonical path, by which two paths to the same file are equal if it exists.
fn whole(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

pub fn run(arguments: &Arguments, json: bool) -> anyhow::Result<()> {
    if arguments.schema {
        return Ok(terminal::print_json(&schemars::schema_for!(Matrix))?);
    }
    let reports = arguments.reports.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    if json {
        terminal::print_json(&reports)?;
    }
    if let Some(path) = &arguments.page {
        write(path, &page::page(&reports)?)?;
    }
    if let Some(path) = &arguments.markdown {
        write(path, &markdown::markdown(&reports)?)?;
    }
    if arguments.page.is_none() && arguments.markdown.is_none() && !json {
        terminal::print(&markdown::markdown(&reports)?.trim_end())?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Named> {
    let matrix = output::read::<Matrix>(path, "matrix")?.check().with_context(|| path.display().to_string())?;
    anyhow::ensure!(!matrix.cells.is_empty(), "{}: nothing was measured yet", path.display());
    Ok(Named { name: path.display().to_string(), matrix })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    output::check_writable(path)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
