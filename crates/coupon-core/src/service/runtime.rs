//! The runtime of every program, with as many open files as the system lets it have.
//!
//! Invariant: what has too few files does not begin. What it is made of would panic in the middle, or fail all the time.

use anyhow::{Context, ensure};
use rlimit::Resource;
use tokio::runtime::{Builder, Runtime};

/// Open files of any program: its own, and connections to servers.
const FILES: u64 = 64;

/// Makes the runtime.
///
/// # Errors
/// The system lets this process have too few files open.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    // What is usual, 1024, is for programs that use select(2). What cannot be raised may be enough.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    ensure_open_files(0)?;
    Builder::new_multi_thread().enable_all().build().context("no runtime")
}

/// Checks that so many files more than any program needs may be open, and gives how many in all.
///
/// # Errors
/// One line that says how many are needed, and what raises the limit.
pub fn ensure_open_files(more: u64) -> anyhow::Result<u64> {
    let (files, needed) = (Resource::NOFILE.get_soft()?, FILES + more);
    ensure!(
        files >= needed,
        "{files} open files are too few, {needed} are needed: raise the limit (ulimit -n, LimitNOFILE)"
    );
    Ok(files)
}
