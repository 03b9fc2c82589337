//! The runtime of every program, with as many open files as the system lets it have.
//!
//! Invariant: a program with too few files does not begin. What it is made of would panic in the middle.

use anyhow::{Context, ensure};
use rlimit::Resource;
use tokio::runtime::{Builder, Runtime};

/// Open files of any program: its own, and connections to servers.
pub const FILES: u64 = 64;

/// Makes the runtime.
///
/// # Errors
/// The system lets this process have too few files open.
pub fn runtime() -> anyhow::Result<Runtime> {
    // What is usual, 1024, is for programs that use select(2).
    let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| Resource::NOFILE.get_soft())?;
    ensure!(files >= FILES, "{}", too_few(files, FILES));
    Builder::new_multi_thread().enable_all().build().context("no runtime")
}

/// What is said of a limit of open files that is too low.
pub fn too_few(files: u64, needed: u64) -> String {
    format!("{files} open files are too few, {needed} are needed: raise the limit (ulimit -n, LimitNOFILE)")
}
