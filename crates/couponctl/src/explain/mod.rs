//! `couponctl explain`: how this server runs the statements of both ways. For each its plan, the rows that it reads, the locks
//! that it takes, and what becomes of a second claimer meanwhile.
//!
//! ```text
//! statements  what both ways run, with values of a campaign ─> observe  on this server ─> show
//! ```
//! Invariant: nothing is changed. Each statement runs in a transaction that is rolled back at once.

mod observe;
mod show;
mod statements;

use std::process::ExitCode;

use clap::Args;
use coupon_core::CampaignId;
use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, coupons};

use self::observe::observe;
use self::statements::Values;

#[derive(Args, Debug)]
pub struct Arguments {
    /// The campaign on whose coupons they run. Some of its free coupons are locked for up to a second, which claimers of the
    /// same campaign skip or wait for.
    #[arg(long, value_name = "ID")]
    campaign: CampaignId,
    /// Claims in a batch.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: u16,
}

pub async fn run(mysql: &Mysql, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let Arguments { campaign, batch } = *arguments;
    let wanted = Wanted { campaign_id: campaign, count: usize::from(batch), after: None };
    let mut first = mysql.connection_of_its_own().await?;
    let mut second = mysql.connection_of_its_own().await?;
    let free = coupons::free_coupons(&mut first, wanted).await?;
    anyhow::ensure!(
        free.len() == wanted.count,
        "campaign {campaign} has {} free coupons, and {batch} are wanted: `couponctl campaign create --coupons 10000` makes \
         one to try, --batch takes fewer",
        free.len()
    );
    let values = Values { wanted, free };
    let mut observed = Vec::new();
    for statement in values.statements() {
        observed.push(observe(&mut first, &mut second, statement).await?);
    }
    show::show(&observed, json)?;
    first.disconnect().await?;
    second.disconnect().await?;
    Ok(ExitCode::SUCCESS)
}
