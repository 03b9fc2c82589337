//! `couponctl campaign …` and `couponctl setup`: the commands about campaigns.
//!
//! [`stock`] creates and restocks campaigns, [`update`] changes the rest; both write to the [`history`].

mod arguments;
mod counts;
mod existing;
pub mod history;
mod load;
mod stock;
mod update;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use coupon_core::CampaignId;
use coupon_core::mysql::{Mysql, campaigns};
use mysql_async::Conn;

use self::arguments::{AddCoupons, Changed, check_window};
use self::stock::Maker;
use self::update::{Wish, change};

pub use self::arguments::Create;
pub use self::existing::must_exist;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a campaign with its coupons. Run again with the same values, it finishes a load that was cut off.
    #[command(
        after_help = "Example:\n  couponctl campaign create --id 1 --name 'Noon rush' --coupons 1000 --opens-at 2030-01-01T12:00:00+09:00"
    )]
    Create(Create),
    /// Add coupons to an existing campaign, each time under a new key; or raise its stock to a total. Run again with
    /// the same values, both finish a load that was cut off, and add nothing to one that was complete.
    #[command(
        after_help = "Example:\n  couponctl campaign add-coupons --id 1 --key second-wave --coupons 500\n  couponctl campaign add-coupons --id 1 --total 1500"
    )]
    AddCoupons(AddCoupons),
    /// Change the name or the window of a campaign.
    #[command(
        after_help = "Example:\n  couponctl campaign update --id 1 --name 'Evening rush' --closes-at 2030-01-01T20:00:00+09:00"
    )]
    Update(Update),
    /// Refuse claims until `resume`; claims accepted before are still settled.
    #[command(after_help = "Example:\n  couponctl campaign pause --id 1")]
    Pause(One),
    /// Take claims again after `pause`.
    #[command(after_help = "Example:\n  couponctl campaign resume --id 1")]
    Resume(One),
    /// Close a campaign now; `update` reopens it.
    #[command(after_help = "Example:\n  couponctl campaign close --id 1")]
    Close(One),
    /// Show one campaign.
    #[command(after_help = "Example:\n  couponctl campaign show --id 1")]
    Show(One),
    /// Show all campaigns.
    #[command(after_help = "Example:\n  couponctl campaign list --json")]
    List,
    /// Show what was changed about a campaign, when, and by which operator.
    #[command(after_help = "Example:\n  couponctl campaign history --id 1")]
    History(One),
}

/// The campaign that a command is about.
#[derive(Args, Debug)]
pub struct One {
    /// The campaign.
    #[arg(long)]
    id: CampaignId,
}

#[derive(Args, Debug)]
pub struct Update {
    /// The campaign.
    #[arg(long)]
    pub id: CampaignId,
    #[command(flatten)]
    pub changed: Changed,
}

impl Command {
    /// Checks the values against each other.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Create(create) => create.check(),
            Self::Update(Update { changed, .. }) => check_window(changed.opens_at, changed.closes_at),
            _ => Ok(()),
        }
    }
}

pub async fn run(mysql: &Mysql, command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    let id = match command {
        Command::Create(create) => stock::create(mysql, create, Maker::Create).await?,
        Command::AddCoupons(restock) => stock::add_coupons(mysql, restock).await?,
        Command::Update(Update { id, changed }) => change(mysql, *id, Wish::Update(changed)).await?,
        Command::Pause(One { id }) => change(mysql, *id, Wish::Pause).await?,
        Command::Resume(One { id }) => change(mysql, *id, Wish::Resume).await?,
        Command::Close(One { id }) => change(mysql, *id, Wish::Close).await?,
        Command::Show(One { id }) => *id,
        Command::List => {
            let found = mysql.run(async |mut conn: Conn| campaigns::all(&mut conn).await).await?;
            let mut all = Vec::with_capacity(found.len());
            for campaign in found {
                all.push(counts::count(mysql, campaign.id).await?);
            }
            counts::show(&all, json)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::History(One { id }) => {
            must_exist(mysql, *id).await?;
            history::show(&history::of(mysql, *id).await?, json)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    counts::show(&[counts::count(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}

/// Does the part of `couponctl setup` that follows the migration.
pub async fn set_up(mysql: &Mysql, create: &Create, json: bool) -> anyhow::Result<ExitCode> {
    let id = stock::create(mysql, create, Maker::Setup).await?;
    counts::show(&[counts::count(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}
