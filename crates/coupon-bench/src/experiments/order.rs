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
use coupon_core::settings::{AmqpSettings, RedisSettings};
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
use crate::lab::machine::{Notes, Provenance};
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
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Vec<u16>,
    /// What happens to one of them once half of the coupons are issued that will be.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum, default_value = "none,stopped,killed")]
    trouble: Vec<Trouble>,
    /// Turns of each sale; the medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// The file for all figures as JSON, written after each turn.
    #[arg(long, value_name = "FILE", default_value = "target/order/report.json")]
    pub report: PathBuf,
    #[command(flatten)]
    notes: Notes,
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

/// What came of a sale.
enum Held {
    Turn(Turn),
    /// What the audit found.
    Broken(String),
    /// Why it shows nothing.
    LeftOut(String),
}

/// What became of the trouble.
struct Made {
    /// Whether it came before the last coupon; otherwise the sale says nothing about it.
    in_time: bool,
    /// The service that replaces a killed one; it runs until this is dropped.
    _replacement: Option<Service>,
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Sales {
    #[serde(flatten)]
    provenance: Provenance,
    coupons: u64,
    accounts: u64,
    rate: Option<u32>,
    clients: u32,
    cases: Vec<Case>,
    /// One line for each sale whose audit failed.
    failures: Vec<String>,
    /// One line for each sale that was over before its trouble.
    left_out: Vec<String>,
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
pub async fn run(
    mysql: &Mysql,
    redis: &RedisSettings,
    amqp: &AmqpSettings,
    arguments: &Arguments,
) -> anyhow::Result<Sales> {
    let &Arguments { coupons, accounts, rate, turns, .. } = arguments;
    output::check_writable(&arguments.report)?;
    let mut sales = Sales {
        provenance: Provenance::ask(mysql, redis, amqp, &arguments.notes).await?,
        coupons,
        accounts,
        rate,
        clients: CLIENTS,
        cases: arguments.cases(),
        failures: Vec::new(),
        left_out: Vec::new(),
    };
    let all = sales.cases.len();
    let crowd = Crowd { rate, ..Crowd::of(accounts, CLIENTS, 0.0) };
    for turn in 1..=turns {
        for (number, case) in (1..).zip(&mut sales.cases) {
            terminal::note(&format!("turn {turn} of {turns}, sale {number} of {all}: {case}"));
            match case.hold(mysql, coupons, crowd.clone()).await.with_context(|| case.to_string())? {
                Held::Turn(turn) => case.turns.push(turn),
                Held::Broken(line) => sales.failures.push(line),
                Held::LeftOut(line) => sales.left_out.push(line),
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
    /// Holds the sale once.
    async fn hold(&self, mysql: &Mysql, coupons: u64, mut crowd: Crowd) -> anyhow::Result<Held> {
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
        let trouble = self.trouble(mysql, &stand, campaign, coupons.min(load.crowd.accounts), &is_over);
        let loaded = async {
            let _over = is_over.clone().drop_guard();
            load::run(mysql, self.contender, &load).await
        };
        let (result, made) = tokio::join!(loaded, trouble);
        let (result, made) = (result?, made?);
        load::drain(mysql, &stand).await?;
        if !result.is_clean() {
            return Ok(Held::Broken(format!("{self}: {} errors, audit {}", result.errors, result.audit)));
        }
        if !made.in_time {
            return Ok(Held::LeftOut(format!("{self}: this sale was over before its trouble")));
        }
        Ok(Held::Turn(Turn { claims_per_second: result.claims_per_second(), order: result.order }))
    }

    /// Makes the trouble once half of the coupons are issued that will be.
    async fn trouble(
        &self,
        mysql: &Mysql,
        stand: &Stand,
        campaign: CampaignId,
        in_all: u64,
        is_over: &CancellationToken,
    ) -> anyhow::Result<Made> {
        if self.trouble == Trouble::None {
            return Ok(Made { in_time: true, _replacement: None });
        }
        while issued(mysql, campaign).await? < in_all / 2 {
            if is_over.is_cancelled() {
                return Ok(Made { in_time: false, _replacement: None });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // With a single active consumer, the first one is active.
        let replica = stand.consumers().first().unwrap_or_else(|| stand.api());
        let is_killed = self.trouble == Trouble::Killed;
        send(replica, if is_killed { "KILL" } else { "STOP" }).await?;
        let in_time = issued(mysql, campaign).await? < in_all && !is_over.is_cancelled();
        if is_killed {
            return Ok(Made { in_time, _replacement: Some(self.setup.start_consumer().await?) });
        }
        tokio::time::sleep(STOPPED_FOR).await;
        send(replica, "CONT").await?;
        Ok(Made { in_time, _replacement: None })
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of))
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
            ["to somebody later", "provably overtaken", "overtaken by, p50 / p99 / max, ms", "rank error, mean / max"];
        let columns = columns.into_iter().chain(["claims a second", "turns"]);
        let mut table = table([title].into_iter().chain(columns.map(String::from)));
        for case in self.cases.iter().filter(|case| !case.turns.is_empty()) {
            table.add_row(row(&case.to_string(), case.row()));
        }
        print(&table)?;
        self.failures.iter().chain(&self.left_out).try_for_each(print)
    }

    fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }
}
