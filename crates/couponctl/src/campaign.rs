//! `couponctl campaign …` and `couponctl setup`: what operators can say about campaigns, and what they are shown.
//!
//! [`stock`] makes and restocks, [`crate::update`] changes the rest; both write to the [`history`].

use std::process::ExitCode;

use clap::{Args, Subcommand};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Error, terminal};
use mysql_async::Conn;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::output::{self, CampaignCounts};
use crate::stock::Maker;
use crate::update::{Wish, change};
use crate::{history, stock};

/// Most coupons of one load.
const COUPONS_MAX: u64 = 1_000_000_000;

/// Characters of a campaign's name at most; the table holds no more.
const NAME_MAX: usize = 200;

/// Characters of the key of a restock at most.
const KEY_MAX: usize = 64;

/// The years that MySQL keeps.
const YEARS: std::ops::RangeInclusive<i32> = 1000..=9999;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a campaign with its coupons; run again with the same values, it finishes a load that was cut off.
    #[command(
        after_help = "Example:\n  couponctl campaign create --id 1 --name 'Noon rush' --coupons 1000 --opens-at 2030-01-01T12:00:00+09:00"
    )]
    Create(Create),
    /// Add coupons to a campaign that is there, each time under a new key; or raise its stock to a total. Run again
    /// with the same values, both finish a load that was cut off and add nothing to one that was not.
    #[command(
        after_help = "Example:\n  couponctl campaign add-coupons --id 1 --key second-wave --coupons 500\n  couponctl campaign add-coupons --id 1 --total 1500"
    )]
    AddCoupons(AddCoupons),
    /// Change the name or the window of a campaign.
    #[command(
        after_help = "Example:\n  couponctl campaign update --id 1 --name 'Evening rush' --closes-at 2030-01-01T20:00:00+09:00"
    )]
    Update(Update),
    /// Refuse claims until `resume`; those that were accepted are settled.
    #[command(after_help = "Example:\n  couponctl campaign pause --id 1")]
    Pause(One),
    /// Take claims again after `pause`.
    #[command(after_help = "Example:\n  couponctl campaign resume --id 1")]
    Resume(One),
    /// Let a campaign end now; `update` opens it again.
    #[command(after_help = "Example:\n  couponctl campaign close --id 1")]
    Close(One),
    /// Show one campaign.
    #[command(after_help = "Example:\n  couponctl campaign show --id 1")]
    Show(One),
    /// Show all campaigns.
    #[command(after_help = "Example:\n  couponctl campaign list --json")]
    List,
    /// Show what operators changed about a campaign, and when and by whom.
    #[command(after_help = "Example:\n  couponctl campaign history --id 1")]
    History(One),
}

/// Which campaign a command is about.
#[derive(Args, Debug)]
pub struct One {
    /// The campaign.
    #[arg(long)]
    id: CampaignId,
}

#[derive(Args, Debug)]
pub struct Create {
    /// Its number; the next free one unless given.
    #[arg(long)]
    pub id: Option<CampaignId>,
    /// Its name, for people.
    #[arg(long, default_value = "campaign", value_parser = name)]
    pub name: String,
    /// How many coupons it shall have.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=COUPONS_MAX))]
    pub coupons: u64,
    /// Claims are refused before this instant, as 2030-01-01T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    pub closes_at: Option<OffsetDateTime>,
}

#[derive(Args, Debug)]
pub struct AddCoupons {
    /// The campaign.
    #[arg(long)]
    pub id: CampaignId,
    #[command(flatten)]
    pub goal: Goal,
    /// How many to add under the key.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX), requires = "key", conflicts_with = "total")]
    pub coupons: Option<u64>,
}

/// What a restock is measured by.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Goal {
    /// A name for this restock, such as second-wave: coupons are added under it once, however often this is run.
    #[arg(long, value_name = "NAME", value_parser = key, requires = "coupons")]
    pub key: Option<String>,
    /// Raise the stock to this many coupons, those with an account included; it is never lowered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX))]
    pub total: Option<u64>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct Changed {
    /// Its new name.
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// Claims are refused before this instant, as 2030-01-01T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_opens_at")]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_closes_at")]
    pub closes_at: Option<OffsetDateTime>,
    /// It is open from the start.
    #[arg(long)]
    pub no_opens_at: bool,
    /// It never closes.
    #[arg(long)]
    pub no_closes_at: bool,
}

#[derive(Args, Debug)]
pub struct Update {
    /// The campaign.
    #[arg(long)]
    pub id: CampaignId,
    #[command(flatten)]
    pub changed: Changed,
}

fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > NAME_MAX {
        return Err(format!("must have 1 to {NAME_MAX} characters"));
    }
    if text.chars().any(terminal::is_control) {
        return Err(String::from("must have no control characters, such as line breaks or marks that turn text round"));
    }
    Ok(text.to_owned())
}

fn key(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > KEY_MAX || !text.chars().all(allowed) {
        return Err(format!("must be 1 to {KEY_MAX} letters, digits, -, _ or ., as in second-wave"));
    }
    Ok(text.to_owned())
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    let instant = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write it as 2030-01-01T12:00:00Z or 2030-01-01T12:00:00+09:00"))?;
    let instant = instant.checked_to_offset(UtcOffset::UTC).filter(|instant| YEARS.contains(&instant.year()));
    let instant = instant.ok_or_else(|| format!("must be in the years {} to {} of UTC", YEARS.start(), YEARS.end()))?;
    // The database keeps milliseconds.
    instant.replace_millisecond(instant.millisecond()).map_err(|error| error.to_string())
}

/// Whether a campaign opens before it closes.
pub fn check_window(opens_at: Option<OffsetDateTime>, closes_at: Option<OffsetDateTime>) -> Result<(), String> {
    match (opens_at, closes_at) {
        (Some(opens_at), Some(closes_at)) if closes_at <= opens_at => {
            Err(String::from("--closes-at must be after --opens-at"))
        }
        _ => Ok(()),
    }
}

impl Command {
    /// What is wrong with values that are right one by one.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Create(create) => create.check(),
            Self::Update(Update { changed, .. }) => check_window(changed.opens_at, changed.closes_at),
            _ => Ok(()),
        }
    }
}

impl Create {
    /// What is wrong with values that are right one by one.
    pub fn check(&self) -> Result<(), String> {
        check_window(self.opens_at, self.closes_at)
    }

    /// The campaign that is wanted.
    pub fn campaign(&self, id: CampaignId) -> Campaign {
        let Self { name, coupons, opens_at, closes_at, .. } = self;
        let (name, opens_at, closes_at) = (name.clone(), *opens_at, *closes_at);
        Campaign { id, name, opens_at, closes_at, coupons: *coupons, paused: false }
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
                all.push(counts(mysql, campaign.id).await?);
            }
            output::campaigns(&all, json)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::History(One { id }) => {
            must_exist(mysql, *id).await?;
            output::history(&history::of(mysql, *id).await?, json)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    output::campaigns(&[counts(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}

/// `couponctl setup` after the migration.
pub async fn set_up(mysql: &Mysql, create: &Create, json: bool) -> anyhow::Result<ExitCode> {
    let id = stock::create(mysql, create, Maker::Setup).await?;
    output::campaigns(&[counts(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}

pub fn no_campaign(id: CampaignId) -> Error {
    Error::Broken(format!("there is no campaign {id}"))
}

/// A campaign that is there.
pub async fn must_exist(mysql: &Mysql, id: CampaignId) -> coupon_core::Result<Campaign> {
    let found = mysql.run(async move |mut conn: Conn| campaigns::find(&mut conn, id).await).await?;
    found.ok_or_else(|| no_campaign(id))
}

async fn counts(mysql: &Mysql, id: CampaignId) -> anyhow::Result<CampaignCounts> {
    let campaign = must_exist(mysql, id).await?;
    let free = mysql.run(async move |mut conn: Conn| campaigns::count_free(&mut conn, id).await).await?;
    Ok(CampaignCounts { issued: campaign.coupons.saturating_sub(free), campaign, free })
}

/// A campaign for tests.
#[cfg(test)]
pub fn named(name: &str) -> Campaign {
    let name = String::from(name);
    Campaign { id: CampaignId(1), name, opens_at: None, closes_at: None, coupons: 10, paused: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_one_that_the_database_keeps() {
        for text in [
            "0000-01-01T00:00:00Z",
            "0999-12-31T23:59:59Z",
            "1000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:59-23:59",
            "-9999-01-01T00:00:00Z",
            "2030-02-29T00:00:00Z",
            "2030-01-01",
            "",
        ] {
            assert!(instant(text).is_err(), "{text} was accepted");
        }
        assert_eq!(instant("9999-12-31T23:59:59.999Z").unwrap().year(), 9999);
        assert_eq!(instant("1000-01-01T00:00:00Z").unwrap().year(), 1000);
    }
}
