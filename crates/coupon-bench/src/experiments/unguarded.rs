//! Shows what goes wrong without a guard. Many connections at the same time claim the way one might first write it, on
//! this experiment's own table; the answers to clients are compared with the rows; then the same with the guard that
//! the services have.
//!
//! Invariant: a variant with its guard and without differ in nothing but the guard.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use coupon_core::mysql::{self, Mysql};
use coupon_core::terminal::{self, print};
use coupon_core::{Class, Error, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::output::{Results, row, table};

/// Ids that a refill puts into the list.
const REFILL: usize = 50;

/// One claim in this many ends without a commit, as when its program is killed.
const GONE_EVERY: u64 = 4;

const FIRST_FREE: &str = "SELECT id FROM coupon_unguarded WHERE account_id IS NULL ORDER BY id LIMIT 1";

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Claims for each variant.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    claims: u32,
    /// Connections that claim at the same time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=500))]
    connections: u16,
}

/// A way to claim that looks correct.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Variant {
    ReadThenWrite,
    CheckThenWrite,
    EmptyMeansSoldOut,
    BlindRefill,
}

impl Variant {
    const ALL: [Self; 4] = [Self::ReadThenWrite, Self::CheckThenWrite, Self::EmptyMeansSoldOut, Self::BlindRefill];

    const fn does(self) -> &'static str {
        match self {
            Self::ReadThenWrite => "reads a free coupon, then writes the account into it",
            Self::CheckThenWrite => "checks that the account has no coupon, then takes one",
            Self::EmptyMeansSoldOut => "answers \"sold out\" when SKIP LOCKED finds nothing",
            Self::BlindRefill => "fills the list of free ids without knowing which are in hand",
        }
    }

    const fn goes_wrong(self) -> &'static str {
        match self {
            Self::ReadThenWrite | Self::BlindRefill => "answered with a coupon that somebody else holds",
            Self::CheckThenWrite => "accounts with several coupons",
            Self::EmptyMeansSoldOut => "answered \"sold out\" with coupons left",
        }
    }

    const fn guard(self) -> &'static str {
        match self {
            Self::ReadThenWrite | Self::BlindRefill => "UPDATE … AND account_id IS NULL",
            Self::CheckThenWrite => "UNIQUE KEY (account_id)",
            Self::EmptyMeansSoldOut => "a plain read before \"sold out\"",
        }
    }
}

/// The result of a variant.
#[derive(Debug, Serialize)]
pub struct Shown {
    variant: Variant,
    claims: usize,
    goes_wrong: &'static str,
    guard: &'static str,
    /// How often it goes wrong, without the guard and with it.
    wrong_without: usize,
    wrong_with: usize,
}

/// The answer to a client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Issued(u32),
    SoldOut,
    Nothing,
}

/// Shows each variant without its guard and with it.
pub async fn run(mysql: &Mysql, arguments: &Arguments) -> anyhow::Result<Vec<Shown>> {
    let mut conn = mysql.connection_of_its_own().await?;
    let database: Option<String> = conn.query_first("SELECT DATABASE()").await?;
    let is_alone = mysql::lock(&mut conn, "unguarded", &database.unwrap_or_default(), Duration::ZERO).await?;
    ensure!(is_alone, "another `coupon-bench unsafe` is running on this database; run this again when it is done");
    let mut claimers = Vec::new();
    for _ in 0..arguments.connections {
        claimers.push(mysql.connection_of_its_own().await?);
    }
    let shown = show_all(&mut conn, &mut claimers, arguments.claims).await;
    conn.query_drop("DROP TABLE IF EXISTS coupon_unguarded").await?;
    for conn in claimers.into_iter().chain([conn]) {
        conn.disconnect().await?;
    }
    shown
}

async fn show_all(conn: &mut Conn, claimers: &mut Vec<Conn>, claims: u32) -> anyhow::Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for variant in Variant::ALL {
        terminal::note(&variant.does());
        let [without, with] = [false, true].map(|guarded| Rush { variant, guarded, ids: Mutex::default() });
        let (wrong_without, claims_made) = without.run(conn, claimers, claims).await?;
        let (wrong_with, _) = with.run(conn, claimers, claims).await?;
        let (goes_wrong, guard) = (variant.goes_wrong(), variant.guard());
        shown.push(Shown { variant, claims: claims_made, goes_wrong, guard, wrong_without, wrong_with });
    }
    Ok(shown)
}

/// A variant under load.
struct Rush {
    variant: Variant,
    guarded: bool,
    /// The list of free ids, if the variant has one.
    ids: Mutex<VecDeque<u32>>,
}

impl Rush {
    /// Returns how often it goes wrong, and in how many claims.
    async fn run(self, conn: &mut Conn, claimers: &mut Vec<Conn>, claims: u32) -> anyhow::Result<(usize, usize)> {
        let (claims, connections) = (u64::from(claims), claimers.len() as u64);
        let accounts: Vec<u64> = match self.variant {
            // Each account claims over all connections at the same time.
            Variant::CheckThenWrite => (0..claims).map(|claim| 1 + claim / connections).collect(),
            _ => (1..=claims).collect(),
        };
        // Locked rows matter only when few rows are left.
        let (rushes, coupons) = match self.variant {
            Variant::EmptyMeansSoldOut => (accounts.chunks(claimers.len()), connections.div_ceil(2)),
            _ => (accounts.chunks(accounts.len()), claims),
        };
        let (this, mut wrong) = (Arc::new(self), 0);
        for accounts in rushes {
            this.make_table(conn, coupons).await?;
            let told = Arc::clone(&this).claim_all(claimers, accounts).await?;
            wrong += this.count_wrong(conn, &told).await?;
        }
        Ok((wrong, accounts.len()))
    }

    async fn make_table(&self, conn: &mut Conn, coupons: u64) -> Result<()> {
        let unique = if self.variant == Variant::CheckThenWrite && self.guarded { "UNIQUE" } else { "" };
        conn.query_drop("DROP TABLE IF EXISTS coupon_unguarded").await?;
        conn.query_drop(format!(
            "CREATE TABLE coupon_unguarded (\
                 id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 account_id BIGINT UNSIGNED NULL, \
                 {unique} KEY account (account_id)\
             ) ENGINE = InnoDB"
        ))
        .await?;
        let rows = vec!["(NULL)"; usize::try_from(coupons).unwrap_or(usize::MAX)].join(",");
        Ok(conn.query_drop(format!("INSERT INTO coupon_unguarded (account_id) VALUES {rows}")).await?)
    }

    /// Lets all of these accounts claim, as many at a time as there are connections.
    async fn claim_all(
        self: Arc<Self>,
        claimers: &mut Vec<Conn>,
        accounts: &[u64],
    ) -> anyhow::Result<Vec<(u64, Told)>> {
        let (accounts, next) = (Arc::new(accounts.to_vec()), Arc::new(AtomicUsize::new(0)));
        let mut claims = JoinSet::new();
        for mut conn in claimers.drain(..) {
            let this = Arc::clone(&self);
            let (accounts, next) = (Arc::clone(&accounts), Arc::clone(&next));
            claims.spawn(async move {
                let mut told = Vec::new();
                while let Some(&account) = accounts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    told.push((account, this.claim(&mut conn, account).await?));
                }
                Ok::<_, Error>((conn, told))
            });
        }
        let mut told = Vec::new();
        while let Some(claimed) = claims.join_next().await {
            let (conn, of_one) = claimed??;
            claimers.push(conn);
            told.extend(of_one);
        }
        Ok(told)
    }

    /// Claims until there is an answer: when the guard refuses, it tries again.
    async fn claim(&self, conn: &mut Conn, account: u64) -> Result<Told> {
        loop {
            let tried = match self.variant {
                Variant::ReadThenWrite => self.read_then_write(conn, account).await,
                Variant::CheckThenWrite => check_then_write(conn, account).await,
                Variant::EmptyMeansSoldOut => self.skip_locked(conn, account).await,
                Variant::BlindRefill => self.take_from_list(conn, account).await,
            };
            match tried {
                Ok(Some(told)) => return Ok(told),
                Ok(None) => {}
                // The account has got a coupon meanwhile.
                Err(error) if error.class() == Class::Duplicate => {}
                Err(error) if error.is_conflict() => conn.query_drop("ROLLBACK").await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_then_write(&self, conn: &mut Conn, account: u64) -> Result<Option<Told>> {
        match conn.query_first(FIRST_FREE).await? {
            Some(id) => Ok(write(conn, account, id, self.guarded).await?.then_some(Told::Issued(id))),
            None => Ok(Some(Told::SoldOut)),
        }
    }

    async fn skip_locked(&self, conn: &mut Conn, account: u64) -> Result<Option<Told>> {
        conn.query_drop("START TRANSACTION").await?;
        let Some(id) = conn.query_first(format!("{FIRST_FREE} FOR UPDATE SKIP LOCKED")).await? else {
            conn.query_drop("ROLLBACK").await?;
            let is_free = self.guarded && conn.query_first::<u32, _>(FIRST_FREE).await?.is_some();
            return Ok((!is_free).then_some(Told::SoldOut));
        };
        write(conn, account, id, true).await?;
        if account.is_multiple_of(GONE_EVERY) {
            conn.query_drop("ROLLBACK").await?;
            return Ok(Some(Told::Nothing));
        }
        conn.query_drop("COMMIT").await?;
        Ok(Some(Told::Issued(id)))
    }

    async fn take_from_list(&self, conn: &mut Conn, account: u64) -> Result<Option<Told>> {
        let Some(id) = self.pop() else {
            let free: Vec<u32> = conn.query(FIRST_FREE.replace("LIMIT 1", &format!("LIMIT {REFILL}"))).await?;
            if free.is_empty() {
                return Ok(Some(Told::SoldOut));
            }
            self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(free);
            return Ok(None);
        };
        Ok(write(conn, account, id, self.guarded).await?.then_some(Told::Issued(id)))
    }

    fn pop(&self) -> Option<u32> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Compares the answers to clients with the rows.
    async fn count_wrong(&self, conn: &mut Conn, told: &[(u64, Told)]) -> Result<usize> {
        let rows: Vec<(u32, Option<u64>)> = conn.query("SELECT id, account_id FROM coupon_unguarded").await?;
        Ok(match self.variant {
            Variant::ReadThenWrite | Variant::BlindRefill => {
                let holders: BTreeMap<u32, Option<u64>> = rows.into_iter().collect();
                let is_lost = |(account, told): &&(u64, Told)| matches!(told, Told::Issued(id) if holders.get(id) != Some(&Some(*account)));
                told.iter().filter(is_lost).count()
            }
            Variant::CheckThenWrite => {
                let mut coupons: BTreeMap<u64, usize> = BTreeMap::new();
                rows.into_iter().filter_map(|(_, holder)| holder).for_each(|one| *coupons.entry(one).or_default() += 1);
                coupons.values().filter(|coupons| **coupons > 1).count()
            }
            Variant::EmptyMeansSoldOut => {
                let free = rows.iter().filter(|(_, holder)| holder.is_none()).count();
                told.iter().filter(|(_, told)| *told == Told::SoldOut).count().min(free)
            }
        })
    }
}

async fn check_then_write(conn: &mut Conn, account: u64) -> Result<Option<Told>> {
    let held = format!("SELECT id FROM coupon_unguarded WHERE account_id = {account} LIMIT 1");
    if let Some(id) = conn.query_first(held).await? {
        return Ok(Some(Told::Issued(id)));
    }
    match conn.query_first(FIRST_FREE).await? {
        Some(id) => Ok(write(conn, account, id, true).await?.then_some(Told::Issued(id))),
        None => Ok(Some(Told::SoldOut)),
    }
}

/// Writes an account into a coupon and returns whether it did. With the condition, it writes only into a free coupon.
async fn write(conn: &mut Conn, account: u64, id: u32, only_if_free: bool) -> Result<bool> {
    let condition = if only_if_free { " AND account_id IS NULL" } else { "" };
    conn.query_drop(format!("UPDATE coupon_unguarded SET account_id = {account} WHERE id = {id}{condition}")).await?;
    Ok(!only_if_free || conn.affected_rows() == 1)
}

impl Results for Vec<Shown> {
    fn print(&self) -> io::Result<()> {
        let mut table = table(["a service that", "what goes wrong", "claims", "without a guard", "with", "the guard"]);
        for Shown { variant, claims, goes_wrong, guard, wrong_without, wrong_with } in self {
            let mut cells = row(variant.does(), []);
            cells.push((*goes_wrong).into());
            cells.extend(row("", [claims, wrong_without, wrong_with].map(ToString::to_string)).into_iter().skip(1));
            cells.push((*guard).into());
            table.add_row(cells);
        }
        print(&table)
    }

    /// Whether each variant goes wrong without its guard, and never with it.
    fn is_clean(&self) -> bool {
        self.iter().all(|shown| shown.wrong_without > 0 && shown.wrong_with == 0)
    }
}
