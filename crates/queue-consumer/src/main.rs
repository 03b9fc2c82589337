//! Runs queue-consumer; `--help` tells its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

fn main() -> ExitCode {
    let settings: queue_consumer::Settings = settings::parse();
    process::main(&settings.process.clone(), settings.listen, |stop| queue_consumer::start(settings, stop))
}
