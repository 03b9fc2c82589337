//! Runs skiplock-api; `--help` lists its settings.

use std::process::ExitCode;

use coupon_core::process;

/// A claim is many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (settings, spans) = process::settings(skiplock_api::Settings::check);
    let (process, admin) = (settings.process.clone(), settings.admin_listen);
    process::main(env!("CARGO_PKG_NAME"), &process, admin, spans, |stop| skiplock_api::start(settings, stop))
}
