//! Writes results to standard output, as tables or JSON, and to files. Does not know the experiments.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context, ensure};
use comfy_table::{Cell, CellAlignment, Table, presets};
use coupon_core::terminal;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The results of a command.
pub trait Results: Serialize {
    /// Prints the results for people.
    fn print(&self) -> io::Result<()>;

    /// Whether every audit was clean and every check holds, which decides the exit code.
    fn is_clean(&self) -> bool;
}

/// Prints results to standard output, writes them to the file of a report, if there is one, and returns whether they
/// are clean. The results are shown even if writing the report fails.
pub fn show(results: &impl Results, json: bool, report: Option<&Path>) -> anyhow::Result<bool> {
    let printed = if json { terminal::print_json(results) } else { results.print() };
    report.map(|path| write(path, results)).transpose()?;
    printed?;
    Ok(results.is_clean())
}

/// Checks that a report can be written to this file, before anything is measured for it, and creates the folders that
/// it needs. An existing file keeps its contents; a new one is created only with them.
pub fn check_writable(path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // A link to a file that does not exist yet stays.
    let is_new = path.symlink_metadata().is_err();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))?;
    if is_new {
        std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    Ok(())
}

/// Writes results to the file of a report.
pub fn write(path: &Path, results: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Bytes of a report at most. The largest so far have a hundredth of that.
const REPORT_MAX: u64 = 256 * 1024 * 1024;

/// Reads a report that this subcommand of the program has written.
pub fn read<T: DeserializeOwned>(path: &Path, command: &str) -> anyhow::Result<T> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(REPORT_MAX + 1).read_to_end(&mut text));
    let length = read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(length as u64 <= REPORT_MAX, "{} is larger than any report: more than {REPORT_MAX} bytes", path.display());
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a report of `coupon-bench {command}`", path.display()))
}

/// A table without lines.
pub fn table<H: Into<Cell>>(header: impl IntoIterator<Item = H>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.into_iter().map(Into::into).collect::<Vec<Cell>>());
    table
}

/// A row of a table: its name, then its figures.
pub fn row(name: &str, figures: impl IntoIterator<Item = String>) -> Vec<Cell> {
    [Cell::new(name)].into_iter().chain(figures.into_iter().map(figure)).collect()
}

/// A cell with a figure, aligned to the right.
pub fn figure(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
