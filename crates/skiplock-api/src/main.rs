//! Runs skiplock-api; `--help` tells its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

fn main() -> ExitCode {
    let settings: skiplock_api::Settings = settings::parse();
    process::main(&settings.process.clone(), settings.listen, |stop| skiplock_api::start(settings, stop))
}
