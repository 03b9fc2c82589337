//! Measures every figure that the documents name in one run: pairs of settings in turns, medians, an audit after each
//! load. The result is a list of checks, each with the measured value, the wanted value and whether it holds.

mod code;
mod growth;
mod latency;
mod memory;
mod record;
mod settings;
mod sold_out;
mod turn;
mod ways;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use coupon_core::mysql::Mysql;
use coupon_core::settings::{AmqpSettings, NamespaceSettings, RedisSettings};

use crate::lab::machine::Servers;
use crate::output;
pub use record::Record;
use record::Suite;

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Under ten minutes: fewer turns and smaller campaigns.
    #[arg(long)]
    quick: bool,
    /// Measure only this part.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// The target folder in which `cargo bench` left the cost of our own code; its figures go into the report.
    #[arg(long, value_name = "FOLDER")]
    code: Option<PathBuf>,
    /// Where to write the checks and all figures, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/report.json")]
    pub report: PathBuf,
    #[command(flatten)]
    namespace: NamespaceSettings,
}

/// The parts of the suite, in the order in which they are measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    Ways,
    Growth,
    Replicas,
    Campaigns,
    SoldOut,
    HalfRate,
    Settings,
    Backlog,
    Endurance,
}

impl Part {
    /// Whether a quick run leaves this part out.
    fn takes_long(self) -> bool {
        self == Self::Settings
    }

    async fn measure(self, suite: &mut Suite<'_>) -> anyhow::Result<()> {
        match self {
            Self::Ways => ways::measure(suite).await.context("both ways"),
            Self::Growth => growth::large_campaign(suite).await.context("growth"),
            Self::Replicas => growth::replicas(suite).await.context("replicas"),
            Self::Campaigns => growth::many_campaigns(suite).await.context("many campaigns"),
            Self::SoldOut => sold_out::measure(suite).await.context("sold out"),
            Self::HalfRate => latency::half_rate(suite).await.context("half of the rate"),
            Self::Settings => settings::measure(suite).await.context("other settings"),
            Self::Backlog => memory::backlog(suite).await.context("a long queue"),
            Self::Endurance => memory::endurance(suite).await.context("a long run"),
        }
    }
}

/// Measures the selected parts.
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Record> {
    let Arguments { quick, only, code, report, namespace } = arguments;
    output::check_writable(report)?;
    let servers = Servers::ask(mysql, redis, amqp).await?;
    let record = Record::new(servers, *quick);
    let mut suite = Suite { mysql, redis, amqp, namespace: &namespace.namespace, quick: *quick, record };
    let is_wanted = |part: &Part| match only {
        Some(only) => only == part,
        None => !(*quick && part.takes_long()),
    };
    for part in Part::value_variants().iter().copied().filter(is_wanted) {
        part.measure(&mut suite).await?;
        // Written after each part, so that a later failure does not lose the figures. An error here can be ignored,
        // because the write at the end would fail too.
        let _ = output::write(report, &suite.record);
    }
    if let Some(target) = code {
        code::measure(&mut suite, target)?;
    }
    Ok(suite.record)
}
