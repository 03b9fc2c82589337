//! Runs queue-consumer; `--help` lists its settings.

use std::process::ExitCode;

use coupon_core::service;

/// A claim makes many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (settings, spans) = service::settings(|_: &queue_consumer::Settings| Ok(()));
    let (process, admin) = (settings.process.clone(), settings.admin_listen);
    service::main(env!("CARGO_PKG_NAME"), &process, admin, spans, |stop| queue_consumer::start(settings, stop))
}
