//! Runs producer-api; `--help` tells its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

/// A claim is many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings: producer_api::Settings = settings::parse();
    let (process, listen) = (settings.process.clone(), settings.listen);
    process::main(env!("CARGO_PKG_NAME"), &process, listen, |stop| producer_api::start(settings, stop))
}
