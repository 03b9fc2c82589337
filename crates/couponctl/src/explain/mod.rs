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
use coupon_core::{CampaignId, CouponId, Error};
use mysql_async::prelude::Queryable as _;
use uuid::Uuid;

use self::observe::observe;
use self::statements::Values;
use crate::campaign::must_exist;

/// The coupons that the statements run on. Claims take the first free ones, so the last are free until nearly all have
/// gone.
const LAST_FREE: &str = "SELECT id FROM coupon FORCE INDEX (coupon_campaign_account) \
                         WHERE campaign_id = ? AND account_id IS NULL ORDER BY id DESC LIMIT ?";

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
    let read = async { Ok(first.exec::<Uuid, _, _>(LAST_FREE, (campaign.0, batch)).await?) };
    let free = mysql.within(read).await?;
    let free: Vec<CouponId> = free.into_iter().rev().map(CouponId).collect();
    anyhow::ensure!(
        free.len() == wanted.count,
        "campaign {campaign} has {} free coupons, and {batch} are wanted: `couponctl campaign create --coupons 10000` makes \
         one to try, --batch takes fewer",
        free.len()
    );
    let values = Values { wanted, free };
    let ids = [first.id(), second.id()];
    let observe_all = async {
        let mut observed = Vec::new();
        for statement in values.statements() {
            observed.push(observe(&mut first, &mut second, statement).await?);
        }
        Ok(observed)
    };
    let observed = match mysql.attended(&ids, observe_all).await {
        Err(Error::Mysql(mysql_async::Error::Server(error))) if coupons::is_taken(&error) => {
            anyhow::bail!("the last free coupons of campaign {campaign} were issued meanwhile: run this again")
        }
        observed => observed?,
    };
    show::show(&observed, json)?;
    first.disconnect().await?;
    second.disconnect().await?;
    Ok(ExitCode::SUCCESS)
}
