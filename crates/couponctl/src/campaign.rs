//! `couponctl campaign …`.
//!
//! Invariant: making a campaign twice makes it once, and a load that was cut off is finished by running it again.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId};
use mysql_async::Conn;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::load;
use crate::output::{self, CampaignCounts};

/// Most coupons of one campaign.
const COUPONS_MAX: u64 = 1_000_000_000;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a campaign with its coupons; run again, it adds the coupons that are missing.
    #[command(
        after_help = "Example:\n  couponctl campaign create --id 1 --name 'Noon rush' --coupons 1000 --opens-at 2030-01-01T12:00:00+09:00"
    )]
    Create(Create),
    /// Add coupons to a campaign that is there.
    #[command(after_help = "Example:\n  couponctl campaign add-coupons --id 1 --coupons 500")]
    AddCoupons {
        /// The campaign.
        #[arg(long, value_parser = campaign_id)]
        id: CampaignId,
        /// How many to add.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX))]
        coupons: u64,
    },
    /// Show one campaign.
    #[command(after_help = "Example:\n  couponctl campaign show --id 1")]
    Show {
        /// The campaign.
        #[arg(long, value_parser = campaign_id)]
        id: CampaignId,
    },
    /// Show all campaigns.
    #[command(after_help = "Example:\n  couponctl campaign list --json")]
    List,
}

#[derive(Args, Debug)]
pub struct Create {
    /// Its number; the next free one unless told.
    #[arg(long, value_parser = campaign_id)]
    id: Option<CampaignId>,
    /// For people.
    #[arg(long, default_value = "campaign", value_parser = name)]
    name: String,
    /// How many coupons it shall have.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=COUPONS_MAX))]
    coupons: u64,
    /// Claims are refused before this instant, as 2030-01-01T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    closes_at: Option<OffsetDateTime>,
}

fn campaign_id(text: &str) -> Result<CampaignId, String> {
    match text.parse() {
        Ok(CampaignId(id)) if id > 0 => Ok(CampaignId(id)),
        _ => Err(String::from("must be a whole number, 1 or above")),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > 200 {
        return Err(String::from("must have 1 to 200 characters"));
    }
    Ok(text.to_owned())
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    let instant = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write it as 2030-01-01T12:00:00Z or 2030-01-01T12:00:00+09:00"))?;
    // The database keeps milliseconds.
    instant.replace_millisecond(instant.millisecond()).map_err(|error| error.to_string())
}

pub async fn run(mysql: &Mysql, command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => {
            let id = ensure(mysql, create, Differing::Refused).await?;
            output::campaigns(&[counts(mysql, id).await?], json);
        }
        Command::AddCoupons { id, coupons } => {
            let mut conn = mysql.connection().await?;
            campaigns::lock_for_operator(&mut conn).await?;
            counts(mysql, *id).await?;
            load::coupons(mysql, *id, *coupons).await?;
            output::campaigns(&[counts(mysql, *id).await?], json);
        }
        Command::Show { id } => output::campaigns(&[counts(mysql, *id).await?], json),
        Command::List => {
            let found = mysql.run(async |mut conn: Conn| campaigns::all(&mut conn).await).await?;
            let mut all = Vec::with_capacity(found.len());
            for campaign in found {
                all.push(counts(mysql, campaign.id).await?);
            }
            output::campaigns(&all, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `couponctl setup` after the migration.
pub async fn set_up(mysql: &Mysql, create: &Create, json: bool) -> anyhow::Result<ExitCode> {
    let id = ensure(mysql, create, Differing::Kept).await?;
    output::campaigns(&[counts(mysql, id).await?], json);
    Ok(ExitCode::SUCCESS)
}

/// What to do about a campaign that is there, but not as wanted.
#[derive(Clone, Copy)]
enum Differing {
    Refused,
    /// It was changed since it was made, for instance restocked.
    Kept,
}

async fn ensure(mysql: &Mysql, create: &Create, differing: Differing) -> anyhow::Result<CampaignId> {
    if let (Some(opens_at), Some(closes_at)) = (create.opens_at, create.closes_at)
        && closes_at <= opens_at
    {
        bail!("--closes-at must be after --opens-at");
    }
    let mut conn = mysql.connection().await?;
    campaigns::lock_for_operator(&mut conn).await?;
    let id = match create.id {
        Some(id) => id,
        None => campaigns::next_id(&mut conn).await?,
    };
    let wanted = Campaign {
        id,
        name: create.name.clone(),
        opens_at: create.opens_at,
        closes_at: create.closes_at,
        coupons: create.coupons,
    };
    campaigns::create(&mut conn, &wanted).await?;
    let found = campaigns::find(&mut conn, id).await?.context("the campaign that was just made is gone")?;
    let missing = match (missing_coupons(&found, &wanted), differing) {
        (Ok(missing), _) => missing,
        (Err(reason), Differing::Kept) => {
            output::note(&format!("{reason}"));
            0
        }
        (Err(reason), Differing::Refused) => return Err(reason),
    };
    if missing > 0 && found.coupons > 0 {
        output::note(&format!("campaign {id} has {} coupons; adding the {missing} that are missing", found.coupons));
    }
    load::coupons(mysql, id, missing).await?;
    // Held until the load is done.
    drop(conn);
    Ok(id)
}

/// How many coupons a campaign that is there lacks to be the wanted one.
fn missing_coupons(found: &Campaign, wanted: &Campaign) -> anyhow::Result<u64> {
    let differs = [
        ("--name", found.name != wanted.name),
        ("--opens-at", found.opens_at != wanted.opens_at),
        ("--closes-at", found.closes_at != wanted.closes_at),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if !differs.is_empty() {
        bail!("campaign {} is there with another {}; nothing was changed", found.id, differs.join(", "));
    }
    wanted.coupons.checked_sub(found.coupons).with_context(|| {
        format!("campaign {} has {} coupons already, and none is ever taken away", found.id, found.coupons)
    })
}

async fn counts(mysql: &Mysql, id: CampaignId) -> anyhow::Result<CampaignCounts> {
    let (campaign, free) = mysql
        .run(async move |mut conn: Conn| {
            Ok((campaigns::find(&mut conn, id).await?, campaigns::count_free(&mut conn, id).await?))
        })
        .await?;
    let campaign = campaign.with_context(|| format!("there is no campaign {id}"))?;
    Ok(CampaignCounts { issued: campaign.coupons.saturating_sub(free), campaign, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(name: &str, coupons: u64) -> Campaign {
        Campaign { id: CampaignId(1), name: String::from(name), opens_at: None, closes_at: None, coupons }
    }

    #[test]
    fn an_interrupted_load_is_finished() {
        assert_eq!(missing_coupons(&campaign("a", 600), &campaign("a", 1000)).unwrap(), 400);
        assert_eq!(missing_coupons(&campaign("a", 1000), &campaign("a", 1000)).unwrap(), 0);
    }

    #[test]
    fn another_campaign_of_the_same_number_is_left_alone() {
        let error = missing_coupons(&campaign("a", 0), &campaign("b", 0)).unwrap_err();
        assert!(error.to_string().contains("--name"), "{error}");
        assert!(missing_coupons(&campaign("a", 10), &campaign("a", 5)).is_err());
    }
}
