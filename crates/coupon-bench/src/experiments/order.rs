//! How close each way comes to first come, first served: with one to many replicas, with all running, or with one of them
//! stopped or killed in the middle of a sale.
//!
//! Invariants: every sale has services and a campaign of its own, and equal clients; the cases take turns. A sale whose audit
//! fails gives no figures. The queue in exact order has a namespace of its own, and stays on the broker.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use coupon_core::CampaignId;
use coupon_core::mysql::Mysql;
use coupon_core::settings::RedisSettings;
use coupon_core::terminal::{self, print};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::load;
use crate::crowd::client::Target;
use crate::crowd::{CLIENTS, Crowd, Order};
use crate::lab::campaigns::make_campaign;
use crate::lab::machine::{Machine, Servers};
use crate::lab::service::Service;
use crate::lab::setup::Setup;
use crate::lab::stand::{Stand, Way};
use crate::output::{self, Results, row, table};
use crate::statistics::median;

/// How long a replica is stopped.
const STOPPED_FOR: Duration = Duration::from_secs(2);

/// How often the issued coupons are counted until half of them are.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The queue with a single active consumer has a namespace of its own, because an existing queue cannot become one.
const EXACT: [(&str, &str); 2] = [("ORDER", "exact"), ("COUPON_NAMESPACE", "coupon-exact")];

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Coupons of each sale.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    coupons: u64,
    /// Accounts that claim.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    accounts: u64,
    /// Claims a second (open loop). Without it, each client claims again as soon as it is answered (closed loop).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// The numbers of consumers, or of instances of skiplock-api.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Vec<u16>,
    /// What happens to one of them once half of the coupons are issued.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum, default_values_t = [Trouble::None, Trouble::Stopped, Trouble::Killed])]
    trouble: Vec<Trouble>,
    /// Turns of each sale; the medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// The file for all figures as JSON, written after each turn.
    #[arg(long, value_name = "FILE", default_value = "target/order/report.json")]
    pub report: PathBuf,
    /// What is measured, as a commit or a version, to note in the report.
    #[arg(long, value_name = "TEXT", default_value = env!("CARGO_PKG_VERSION"))]
    revision: String,
    /// Version of RabbitMQ to note in the report; the broker does not report it to clients.
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    rabbitmq_version: String,
}

/// What happens to a replica in the middle of a sale.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Trouble {
    /// Nothing.
    None,
    /// It is stopped for two seconds.
    Stopped,
    /// It is killed, and another one is started in its place.
    Killed,
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Sales {
    revision: String,
    coupons: u64,
    accounts: u64,
    rate: Option<u32>,
    clients: u32,
    servers: Servers,
    machine: Machine,
    cases: Vec<Case>,
    /// One line for each sale whose audit failed.
    failures: Vec<String>,
}

/// A sale with its turns.
#[derive(Debug, Serialize)]
struct Case {
    contender: &'static str,
    #[serde(skip)]
    setup: Setup,
    replicas: u16,
    trouble: Trouble,
    turns: Vec<Turn>,
}

#[derive(Debug, Serialize)]
struct Turn {
    /// To the last outcome.
    claims_per_second: f64,
    #[serde(flatten)]
    order: Order,
}

impl Arguments {
    /// Checks the values against each other.
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.accounts < self.coupons.div_ceil(2) && self.trouble != [Trouble::None] {
            return Err(String::from(
                "--accounts must be at least half of --coupons: the trouble comes once half of them are issued, and an account \
                 gets one",
            ));
        }
        Ok(())
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &replicas in &self.replicas {
            let count = usize::from(replicas);
            let setups = [
                Setup::queue("queue, relaxed", count, &[]),
                Setup::queue("queue, exact", count, &EXACT),
                Setup::skiplock("skiplock", &[]),
            ];
            for setup in setups {
                // If an API is killed, its clients get no answer, and cannot tell whether they were displaced.
                let is_asked = |trouble: &&Trouble| **trouble != Trouble::Killed || setup.way == Way::Queue;
                for &trouble in self.trouble.iter().filter(is_asked) {
                    cases.push(Case { contender: setup.name, setup, replicas, trouble, turns: Vec::new() });
                }
            }
        }
        cases
    }
}

/// Holds all sales, in turns.
pub async fn run(mysql: &Mysql, redis: &RedisSettings, arguments: &Arguments) -> anyhow::Result<Sales> {
    let &Arguments { coupons, accounts, rate, turns, .. } = arguments;
    output::check_writable(&arguments.report)?;
    let mut sales = Sales {
        revision: arguments.revision.clone(),
        coupons,
        accounts,
        rate,
        clients: CLIENTS,
        servers: Servers::ask(mysql, redis, &arguments.rabbitmq_version).await?,
        machine: Machine::this(),
        cases: arguments.cases(),
        failures: Vec::new(),
    };
    let all = sales.cases.len();
    let crowd = Crowd { rate, ..Crowd::of(accounts, CLIENTS, 0.0) };
    for turn in 1..=turns {
        for (number, case) in (1..).zip(&mut sales.cases) {
            terminal::note(&format!("turn {turn} of {turns}, sale {number} of {all}: {case}"));
            match case.hold(mysql, coupons, crowd.clone()).await.with_context(|| case.to_string())? {
                Ok(turn) => case.turns.push(turn),
                Err(line) => sales.failures.push(line),
            }
        }
        output::write(&arguments.report, &sales)?;
    }
    Ok(sales)
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} replicas, {}", self.contender, self.replicas, self.trouble.says())
    }
}

impl Trouble {
    fn says(self) -> &'static str {
        match self {
            Self::None => "all running",
            Self::Stopped => "one stopped",
            Self::Killed => "one killed",
        }
    }
}

impl Case {
    /// Holds the sale once. Returns its figures, or a line that says what the audit found.
    async fn hold(&self, mysql: &Mysql, coupons: u64, mut crowd: Crowd) -> anyhow::Result<Result<Turn, String>> {
        let stand = self.setup.start().await?;
        let mut others = Vec::new();
        if self.setup.way == Way::Skiplock {
            for _ in 1..self.replicas {
                let other = self.setup.start().await?;
                crowd.others.push(Target::new(&other.api().url)?);
                others.push(other);
            }
        }
        let campaign = make_campaign(mysql, self.contender, coupons).await?;
        let load = load::Arguments { url: stand.api().url.clone(), campaign, crowd };
        let is_over = CancellationToken::new();
        let trouble = self.trouble(mysql, &stand, campaign, coupons / 2, &is_over);
        let loaded = async {
            let _over = is_over.clone().drop_guard();
            load::run(mysql, self.contender, &load).await
        };
        let (result, replacement) = tokio::join!(loaded, trouble);
        let (result, _replacement) = (result?, replacement?);
        load::drain(mysql, &stand).await?;
        if !result.is_clean() {
            return Ok(Err(format!("{self}: {} errors, audit {}", result.errors, result.audit)));
        }
        Ok(Ok(Turn { claims_per_second: result.claims_per_second(), order: result.order }))
    }

    /// Makes the trouble once this many coupons are issued. Returns the service that replaces a killed one; it runs until it is
    /// dropped.
    async fn trouble(
        &self,
        mysql: &Mysql,
        stand: &Stand,
        campaign: CampaignId,
        gone: u64,
        is_over: &CancellationToken,
    ) -> anyhow::Result<Option<Service>> {
        if self.trouble == Trouble::None {
            return Ok(None);
        }
        while issued(mysql, campaign).await? < gone {
            anyhow::ensure!(!is_over.is_cancelled(), "the load ended before half of the coupons were issued");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // With a single active consumer, the first one is active.
        let replica = stand.consumers().first().unwrap_or_else(|| stand.api());
        if self.trouble == Trouble::Killed {
            send(replica, "KILL").await?;
            return self.setup.start_consumer().await.map(Some);
        }
        send(replica, "STOP").await?;
        tokio::time::sleep(STOPPED_FOR).await;
        send(replica, "CONT").await?;
        Ok(None)
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(&self.turns.iter().map(of).collect::<Vec<_>>())
    }

    fn row(&self) -> [String; 6] {
        let share = |of: fn(&Order) -> f64| format!("{:.1} %", 100.0 * self.median(|turn| of(&turn.order)));
        let figure = |of: fn(&Order) -> f64| format!("{:.0}", self.median(|turn| of(&turn.order)));
        let (p50, p99) = (figure(|order| order.overtaken_p50_ms), figure(|order| order.overtaken_p99_ms));
        let (mean, most) = (figure(|order| order.rank_error_mean), figure(|order| order.rank_error_max as f64));
        [
            share(|order| order.displaced),
            share(|order| order.surely_displaced),
            format!("{p50} / {p99} / {}", figure(|order| order.overtaken_max_ms)),
            format!("{mean} / {most}"),
            format!("{:.0}", self.median(|turn| turn.claims_per_second)),
            self.turns.len().to_string(),
        ]
    }
}

async fn issued(mysql: &Mysql, campaign: CampaignId) -> anyhow::Result<u64> {
    let count = format!("SELECT COUNT(account_id) FROM coupon WHERE campaign_id = {campaign}");
    let counted = mysql.run(async move |mut conn: Conn| Ok(conn.query_first(count).await?)).await?;
    counted.context("a count of coupons")
}

/// Sends a signal to a service.
async fn send(service: &Service, signal: &str) -> anyhow::Result<()> {
    let pid = service.pid().with_context(|| format!("{} has ended", service.program))?;
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().await;
    anyhow::ensure!(sent.context("kill")?.success(), "{} takes no SIG{signal}", service.program);
    Ok(())
}

impl Results for Sales {
    fn print(&self) -> io::Result<()> {
        let title = format!("{} claims for {} coupons", self.accounts, self.coupons);
        let columns =
            ["to somebody later", "surely later", "overtaken by, p50 / p99 / most, ms", "rank error, mean / most"];
        let columns = columns.into_iter().chain(["claims a second", "turns"]);
        let mut table = table([title].into_iter().chain(columns.map(String::from)));
        for case in self.cases.iter().filter(|case| !case.turns.is_empty()) {
            table.add_row(row(&case.to_string(), case.row()));
        }
        print(&table)?;
        self.failures.iter().try_for_each(print)
    }

    fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}
