//! Runs redis-api; `--help` lists its settings.

use std::process::ExitCode;

use coupon_core::api::serve;
use coupon_core::service;

/// A claim makes many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (settings, spans) = service::settings(|settings: &redis_api::Settings| {
        serve::check_listeners(settings.listen, settings.admin_listen)?;
        settings.http.certificate.check()?;
        settings.auth.check(settings.listen, &settings.process)
    });
    let (process, admin) = (settings.process.clone(), settings.admin_listen);
    service::main(env!("CARGO_PKG_NAME"), &process, admin, spans, |stop| redis_api::start(settings, stop))
}
