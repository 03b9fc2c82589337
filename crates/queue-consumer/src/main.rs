//! Runs queue-consumer; `--help` tells its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

fn main() -> ExitCode {
    let settings: queue_consumer::Settings = settings::parse();
    let (process, listen) = (settings.process.clone(), settings.listen);
    process::main(env!("CARGO_PKG_NAME"), &process, listen, |stop| queue_consumer::start(settings, stop))
}
