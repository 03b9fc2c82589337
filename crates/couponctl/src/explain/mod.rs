//! `couponctl explain`: shows how this server runs the statements of both ways: for each, its plan, the rows it reads,
//! the locks it takes, and what happens to a second claimer meanwhile.
//!
//! ```text
//! statements  what both ways run, with values of a campaign ─> observe  on this server ─> show
//! ```
//! Invariant: nothing is changed. Each statement runs in a transaction that is rolled back right away.

mod observe;
mod show;
mod statements;

use std::process::ExitCode;

use clap::Args;
use coupon_core::mysql::sql::Wanted;
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::{CampaignId, Error};

use self::observe::observe;
use self::statements::Values;
use crate::campaign::must_exist;

#[derive(Args, Debug)]
pub struct Arguments {
    /// The campaign on whose coupons the statements run. Some of its free coupons are locked for up to a second;
    /// claimers of the same campaign skip them or wait for them.
    #[arg(long, value_name = "ID")]
    campaign: CampaignId,
    /// Claims in a batch.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: u16,
}

pub async fn run(mysql: &Mysql, arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let Arguments { campaign, batch } = *arguments;
    let wanted = Wanted { campaign_id: campaign, count: usize::from(batch), after: None };
    must_exist(mysql, campaign).await?;
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
        observed.push(observe(&mut first, &mut second, statement).await.map_err(Error::from)?);
    }
    show::show(&observed, json)?;
    first.disconnect().await?;
    second.disconnect().await?;
    Ok(ExitCode::SUCCESS)
}
