//! Runs skiplock-api; `--help` lists its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

/// A claim is many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: skiplock_api::Settings = settings::parse();
    // The question for the health is asked without what the service itself was told.
    if settings.process.command.is_none()
        && let Err(line) = settings.auth.check(settings.listen)
    {
        settings::refuse(&[line]);
    }
    let (process, admin) = (settings.process.clone(), settings.admin_listen);
    process::main(env!("CARGO_PKG_NAME"), &process, admin, |stop| skiplock_api::start(settings, stop))
}
