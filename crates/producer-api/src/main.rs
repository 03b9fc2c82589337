//! Runs producer-api; `--help` tells its settings.

use std::process::ExitCode;

use coupon_core::{process, settings};

fn main() -> ExitCode {
    let settings: producer_api::Settings = settings::parse();
    process::main(&settings.process.clone(), settings.listen, |stop| producer_api::start(settings, stop))
}
