//! `couponctl campaign …` and `couponctl setup`: what operators do with campaigns.
//!
//! Invariants: no coupon is added that nobody asked for: each load is recorded under a key, and repeating a command
//! finishes its own load and no other. Each change has its line in the history.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Error, terminal};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::output::CampaignCounts;
use crate::{changes, load, output};

/// Most coupons of one load.
const COUPONS_MAX: u64 = 1_000_000_000;

/// Characters of a campaign's name at most; the table takes no more.
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
    /// Add coupons to a campaign that is there, each time under a new key; or raise its stock to a total. Run again with
    /// the same values, both finish a load that was cut off and add nothing to one that was not.
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
    /// Show what operators changed about a campaign, when, and who it was.
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
    /// Its number; the next free one unless told.
    #[arg(long)]
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

#[derive(Args, Debug)]
pub struct AddCoupons {
    /// The campaign.
    #[arg(long)]
    id: CampaignId,
    #[command(flatten)]
    goal: Goal,
    /// How many to add under the key.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX), requires = "key", conflicts_with = "total")]
    coupons: Option<u64>,
}

/// What a restock is measured by.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Goal {
    /// A name for this restock, such as second-wave: coupons are added under it once, however often this is run.
    #[arg(long, value_name = "NAME", value_parser = key, requires = "coupons")]
    key: Option<String>,
    /// Raise the stock to this many coupons, those with an account included; it is never lowered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX))]
    total: Option<u64>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Changed {
    /// Its new name.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Claims are refused before this instant, as 2030-01-01T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_opens_at")]
    opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_closes_at")]
    closes_at: Option<OffsetDateTime>,
    /// It is open from the start.
    #[arg(long)]
    no_opens_at: bool,
    /// It never closes.
    #[arg(long)]
    no_closes_at: bool,
}

#[derive(Args, Debug)]
pub struct Update {
    /// The campaign.
    #[arg(long)]
    id: CampaignId,
    #[command(flatten)]
    changed: Changed,
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

fn check_window(opens_at: Option<OffsetDateTime>, closes_at: Option<OffsetDateTime>) -> Result<(), String> {
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

    fn campaign(&self, id: CampaignId) -> Campaign {
        let Self { name, coupons, opens_at, closes_at, .. } = self;
        let (name, opens_at, closes_at) = (name.clone(), *opens_at, *closes_at);
        Campaign { id, name, opens_at, closes_at, coupons: *coupons, paused: false }
    }
}

pub async fn run(mysql: &Mysql, command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    let id = match command {
        Command::Create(create) => self::create(mysql, create, Maker::Create).await?,
        Command::AddCoupons(restock) => add_coupons(mysql, restock).await?,
        Command::Update(Update { id, changed }) => {
            change(mysql, *id, "update", |campaign, _| changed.apply(campaign)).await?
        }
        Command::Pause(One { id }) => {
            change(mysql, *id, "pause", |campaign, _| Ok(Campaign { paused: true, ..campaign })).await?
        }
        Command::Resume(One { id }) => {
            change(mysql, *id, "resume", |campaign, _| Ok(Campaign { paused: false, ..campaign })).await?
        }
        Command::Close(One { id }) => change(mysql, *id, "close", close).await?,
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
            output::history(&changes::of(mysql, *id).await?, json)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    output::campaigns(&[counts(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}

/// `couponctl setup` after the migration.
pub async fn set_up(mysql: &Mysql, create: &Create, json: bool) -> anyhow::Result<ExitCode> {
    let id = self::create(mysql, create, Maker::Setup).await?;
    output::campaigns(&[counts(mysql, id).await?], json)?;
    Ok(ExitCode::SUCCESS)
}

/// Which command makes a campaign: it finishes what it has begun itself, and nothing else.
#[derive(Clone, Copy)]
enum Maker {
    /// Refuses a campaign that is there and is not as wanted.
    Create,
    /// Keeps a campaign that is there, whatever became of it since.
    Setup,
}

impl Maker {
    fn key(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Setup => "setup",
        }
    }
}

/// Makes a campaign with its coupons, or finishes that.
async fn create(mysql: &Mysql, create: &Create, maker: Maker) -> anyhow::Result<CampaignId> {
    let lock = campaigns::lock_for_operator(mysql).await?;
    let id = match create.id {
        Some(id) => id,
        None => mysql.run(async |mut conn: Conn| campaigns::next_id(&mut conn).await).await?,
    };
    let wanted = create.campaign(id);
    let limit = Limit::Ordered(maker.key().to_owned());
    let found = mysql.run(async move |mut conn: Conn| campaigns::find(&mut conn, id).await).await?;
    let left = match found {
        None => {
            let what = (None, changes::described(&wanted));
            begin(mysql, "create", Some(&wanted), Order { id, coupons: wanted.coupons, limit: &limit, what }).await?
        }
        Some(found) => match (left_of(mysql, &found, &wanted, maker).await, maker) {
            (Ok(left), _) => left,
            (Err(reason), Maker::Setup) => {
                terminal::note(&format!("{reason:#}"));
                0
            }
            (Err(reason), Maker::Create) => return Err(reason),
        },
    };
    load::coupons(mysql, id, left, &limit).await?;
    lock.release().await;
    Ok(id)
}

/// How many coupons are left to load into a campaign that is there: those that its maker has ordered and did not get.
async fn left_of(mysql: &Mysql, found: &Campaign, wanted: &Campaign, maker: Maker) -> anyhow::Result<u64> {
    let id = found.id;
    let order = mysql.run(async move |mut conn: Conn| loads::find(&mut conn, id, maker.key()).await).await?;
    let is_as_wanted = as_wanted(found, wanted);
    match (order, maker) {
        // Its own load, whatever became of the campaign since.
        (Some(order), Maker::Setup) if order.left() > 0 => Ok(order.left()),
        _ => {
            is_as_wanted?;
            let ordered = order.map_or(found.coupons, |order| order.coupons);
            if ordered != wanted.coupons {
                bail!(
                    "campaign {id} is there with {ordered} coupons; to add some, use `couponctl campaign add-coupons`"
                );
            }
            Ok(order.map_or(0, loads::Load::left))
        }
    }
}

fn as_wanted(found: &Campaign, wanted: &Campaign) -> anyhow::Result<()> {
    let differs = [
        ("--name", found.name != wanted.name),
        ("--opens-at", found.opens_at != wanted.opens_at),
        ("--closes-at", found.closes_at != wanted.closes_at),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if !differs.is_empty() {
        bail!("campaign {} is there with another {}; nothing was changed", found.id, differs.join(", "));
    }
    Ok(())
}

/// Restocks a campaign, or finishes that.
async fn add_coupons(mysql: &Mysql, restock: &AddCoupons) -> anyhow::Result<CampaignId> {
    let id = restock.id;
    let lock = campaigns::lock_for_operator(mysql).await?;
    let found = must_exist(mysql, id).await?;
    let (limit, left) = match &restock.goal {
        Goal { key: Some(key), .. } => {
            let coupons = restock.coupons.context("--key needs --coupons")?;
            // A key of an operator is none of a maker.
            let limit = Limit::Ordered(format!("key:{key}"));
            let left = restock_once(mysql, &found, key, coupons, &limit).await?;
            (limit, left)
        }
        Goal { total, .. } => {
            let total = total.context("--total is missing")?;
            let limit = Limit::Stock(total);
            let missing = total.saturating_sub(found.coupons);
            let what = (Some(format!("{} coupons", found.coupons)), format!("{total} coupons"));
            let left = match missing {
                0 => 0,
                _ => begin(mysql, "add-coupons", None, Order { id, coupons: missing, limit: &limit, what }).await?,
            };
            (limit, left)
        }
    };
    load::coupons(mysql, id, left, &limit).await?;
    lock.release().await;
    Ok(id)
}

/// How many coupons are left to load under a key, which is recorded if it is new.
async fn restock_once(mysql: &Mysql, found: &Campaign, key: &str, coupons: u64, limit: &Limit) -> anyhow::Result<u64> {
    let (id, load_key) = (found.id, format!("key:{key}"));
    match mysql.run(async move |mut conn: Conn| loads::find(&mut conn, id, &load_key).await).await? {
        Some(order) if order.coupons == coupons => Ok(order.left()),
        Some(order) => bail!(
            "--key {key} has added {} coupons to campaign {id} already, not {coupons}; give another restock another key",
            order.coupons
        ),
        None => {
            let new = format!("{} coupons, key {key}", found.coupons + coupons);
            let what = (Some(format!("{} coupons", found.coupons)), new);
            begin(mysql, "add-coupons", None, Order { id, coupons, limit, what }).await
        }
    }
}

/// A load that begins.
struct Order<'a> {
    id: CampaignId,
    coupons: u64,
    limit: &'a Limit,
    /// Before and after, for the history.
    what: (Option<String>, String),
}

/// Begins a load: in one transaction a new campaign, the record of the load, its line in the history, and the first
/// coupons, so that nobody sees a campaign that has none yet. Gives the number of coupons that are left to load.
async fn begin(mysql: &Mysql, command: &'static str, new: Option<&Campaign>, order: Order<'_>) -> anyhow::Result<u64> {
    let Order { id, coupons, limit, what } = order;
    let (new, limit) = (new.cloned(), limit.clone());
    let work = async move |mut conn: Conn| {
        let chunk = loads::chunk_size(&mut conn).await?;
        let first = usize::try_from(coupons).unwrap_or(usize::MAX).min(chunk);
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        if let Some(campaign) = &new {
            campaigns::insert(&mut transaction, campaign).await?;
        }
        if let Limit::Ordered(key) = &limit {
            loads::order(&mut transaction, id, key, coupons).await?;
        }
        changes::write(&mut transaction, id, command, what).await?;
        loads::add(&mut transaction, id, &loads::new_coupons(first), &limit).await?;
        transaction.commit().await?;
        Ok(coupons - first as u64)
    };
    Ok(mysql.run(work).await?)
}

impl Changed {
    fn apply(&self, campaign: Campaign) -> coupon_core::Result<Campaign> {
        let bound = |removed: bool, new: Option<OffsetDateTime>, old| if removed { None } else { new.or(old) };
        let changed = Campaign {
            name: self.name.clone().unwrap_or_else(|| campaign.name.clone()),
            opens_at: bound(self.no_opens_at, self.opens_at, campaign.opens_at),
            closes_at: bound(self.no_closes_at, self.closes_at, campaign.closes_at),
            ..campaign
        };
        let window_is_new = (changed.opens_at, changed.closes_at) != (campaign.opens_at, campaign.closes_at);
        if window_is_new && let Err(reason) = check_window(changed.opens_at, changed.closes_at) {
            let bounds = [changes::instant(changed.opens_at), changes::instant(changed.closes_at)];
            return Err(Error::Broken(format!("{reason}: it would be open from {}", bounds.join(" to "))));
        }
        Ok(changed)
    }
}

fn close(campaign: Campaign, now: OffsetDateTime) -> coupon_core::Result<Campaign> {
    let is_over = campaign.closes_at.is_some_and(|closes_at| closes_at <= now);
    let closes_at = if is_over { campaign.closes_at } else { Some(now) };
    Ok(Campaign { closes_at, ..campaign })
}

/// Changes a campaign, with a line in its history; one that is as wanted stays as it is. It needs no [`OperatorLock`]: a
/// campaign can be paused while coupons are loaded.
///
/// [`OperatorLock`]: campaigns::OperatorLock
async fn change(
    mysql: &Mysql,
    id: CampaignId,
    command: &str,
    changed: impl FnOnce(Campaign, OffsetDateTime) -> coupon_core::Result<Campaign>,
) -> anyhow::Result<CampaignId> {
    let work = async {
        let mut conn = mysql.connection().await?;
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        transaction.exec_drop("SELECT id FROM campaign WHERE id = ? FOR UPDATE", (id.0,)).await?;
        let old = campaigns::find(&mut transaction, id).await?.ok_or_else(|| no_campaign(id))?;
        // Of the database, as everybody's clock is nearer to it than to an operator's.
        let now: Option<PrimitiveDateTime> = transaction.query_first("SELECT UTC_TIMESTAMP(3)").await?;
        let now = now.map_or_else(OffsetDateTime::now_utc, PrimitiveDateTime::assume_utc);
        let new = changed(old.clone(), now)?;
        if new != old {
            let (old, differs) = changes::differences(&old, &new);
            let update = "UPDATE campaign SET name = ?, opens_at = ?, closes_at = ?, paused = ? WHERE id = ?";
            let (opens_at, closes_at) = (new.opens_at.map(campaigns::utc), new.closes_at.map(campaigns::utc));
            transaction.exec_drop(update, (new.name, opens_at, closes_at, new.paused, id.0)).await?;
            changes::write(&mut transaction, id, command, (Some(old), differs)).await?;
        }
        Ok(transaction.commit().await?)
    };
    mysql.within(work).await?;
    Ok(id)
}

fn no_campaign(id: CampaignId) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(name: &str) -> Campaign {
        let name = String::from(name);
        Campaign { id: CampaignId(1), name, opens_at: None, closes_at: None, coupons: 10, paused: false }
    }

    #[test]
    fn another_campaign_of_the_same_number_is_told_from_the_wanted_one() {
        let error = as_wanted(&campaign("a"), &campaign("b")).unwrap_err();

        assert!(error.to_string().contains("--name"), "{error}");
        assert!(as_wanted(&campaign("a"), &Campaign { coupons: 600, paused: true, ..campaign("a") }).is_ok());
    }

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
            assert!(instant(text).is_err(), "{text} was taken");
        }
        assert_eq!(instant("9999-12-31T23:59:59.999Z").unwrap().year(), 9999);
        assert_eq!(instant("1000-01-01T00:00:00Z").unwrap().year(), 1000);
    }

    #[test]
    fn a_campaign_that_is_over_stays_as_it_is_when_closed_again() {
        let now = OffsetDateTime::now_utc();
        let closed = close(campaign("a"), now).unwrap();

        assert_eq!(closed.closes_at, Some(now));
        assert_eq!(close(closed.clone(), now + time::Duration::SECOND).unwrap(), closed);
    }
}
