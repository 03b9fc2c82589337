//! The runtime of every program, with as many open files as the system lets it have.
//!
//! Invariant: a program with too few open files does not start. Its libraries would panic at work, or fail all the
//! time.

use anyhow::{Context, ensure};
use rlimit::Resource;
use tokio::runtime::{Builder, Runtime};

/// The open files that any program needs: its own, and connections to servers.
const FILES: u64 = 64;

/// Creates the runtime.
///
/// # Errors
/// The system allows this process too few open files.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    // The usual limit of 1024 suits programs that use select(2). A limit that cannot be raised may be enough.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    ensure_open_files(0)?;
    Builder::new_multi_thread().enable_all().build().context("no runtime")
}

/// Leaves a runtime running until the process ends, which comes next. Shutting it down would cancel what lapin's own
/// thread waits for while it connects, and that thread would panic.
pub(super) fn leave(runtime: Runtime) {
    std::mem::forget(runtime);
}

/// Checks that this many files may be open beyond those that any program needs, and returns how many may be open in
/// all.
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
