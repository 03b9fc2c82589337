//! Finds out from Jaeger where the time of traced claims went, for the claims of an earlier run or for a comparison.

mod breakdown;
mod jaeger;
mod waterfall;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use coupon_core::settings::TlsSettings;
use serde::Deserialize;

use crate::output;
pub use breakdown::{Breakdown, breakdown};
pub use jaeger::{JaegerArguments, reach};

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A report of `compare`, which names the traces.
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.json")]
    report: PathBuf,
    #[command(flatten)]
    jaeger: JaegerArguments,
}

impl Arguments {
    /// Takes the settings that say which servers are trusted.
    pub fn trust(&mut self, tls: &TlsSettings) {
        self.jaeger.tls = tls.clone();
    }
}

/// The part of a report that names the traces of its ways.
#[derive(Debug, Deserialize)]
struct Report {
    ways: Vec<WayTraces>,
}

#[derive(Debug, Deserialize)]
struct WayTraces {
    way: String,
    trace_ids: Vec<String>,
}

/// Breaks down the claims that an earlier run traced.
pub async fn run(arguments: &Arguments) -> anyhow::Result<Vec<Breakdown>> {
    let path = &arguments.report;
    let report: Report = output::read(path, "compare")?;
    let mut breakdowns = Vec::new();
    for way in report.ways {
        breakdowns.push(breakdown(&way.way, &way.trace_ids, &arguments.jaeger).await?);
    }
    if breakdowns.iter().all(|breakdown| breakdown.traces == 0) {
        bail!("{} has no trace of an issued claim of {}", arguments.jaeger.jaeger, path.display());
    }
    Ok(breakdowns)
}
