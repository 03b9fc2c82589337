//! The arguments that describe a campaign, each value checked as it is read.

use clap::Args;
use coupon_core::{Campaign, CampaignId, terminal};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// The most coupons in one load.
const COUPONS_MAX: u64 = 1_000_000_000;

/// The most characters in a campaign's name; the table holds no more.
const NAME_MAX: usize = 200;

/// The most characters in the key of a restock.
const KEY_MAX: usize = 64;

/// The years that MySQL can store.
const YEARS: std::ops::RangeInclusive<i32> = 1000..=9999;

#[derive(Args, Debug)]
pub struct Create {
    /// The campaign's number; by default, that after the highest there is.
    #[arg(long)]
    pub id: Option<CampaignId>,
    /// The campaign's name.
    #[arg(long, default_value = "campaign", value_parser = name)]
    pub name: String,
    /// How many coupons it has.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=COUPONS_MAX))]
    pub coupons: u64,
    /// Claims are refused before this instant, such as 2030-01-01T12:00:00Z.
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

/// The goal of a restock.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Goal {
    /// A name for this restock, such as second-wave: coupons are added under it once, however often the command is run.
    #[arg(long, value_name = "NAME", value_parser = key, requires = "coupons")]
    pub key: Option<String>,
    /// Raise the stock to this many coupons, those with an account included; it is never lowered.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=COUPONS_MAX))]
    pub total: Option<u64>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct Changed {
    /// The campaign's new name.
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// Claims are refused before this instant, such as 2030-01-01T12:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_opens_at")]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on.
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "no_closes_at")]
    pub closes_at: Option<OffsetDateTime>,
    /// Remove the opening time: the campaign is open from the start.
    #[arg(long)]
    pub no_opens_at: bool,
    /// Remove the closing time: the campaign never closes.
    #[arg(long)]
    pub no_closes_at: bool,
}

impl Create {
    /// Checks the values against each other.
    pub fn check(&self) -> Result<(), String> {
        check_window(self.opens_at, self.closes_at)
    }

    /// The campaign that these arguments describe.
    pub fn campaign(&self, id: CampaignId) -> Campaign {
        let Self { name, coupons, opens_at, closes_at, .. } = self;
        let (name, opens_at, closes_at) = (name.clone(), *opens_at, *closes_at);
        Campaign { id, name, opens_at, closes_at, coupons: *coupons, paused: false }
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > NAME_MAX {
        return Err(format!("must have 1 to {NAME_MAX} characters, and not only spaces"));
    }
    if text.chars().any(terminal::is_control) {
        return Err(String::from(
            "must not contain control characters, such as line breaks, bidirectional marks or zero-width characters",
        ));
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
    if text.contains(":60") {
        return Err(String::from("must not be a leap second, which the database does not know"));
    }
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(
        |_| "must be a day that exists, a time and a zone, as 2030-01-01T12:00:00Z or 2030-01-01T12:00:00+09:00",
    )?;
    let instant = instant.checked_to_offset(UtcOffset::UTC).filter(|instant| YEARS.contains(&instant.year()));
    let instant = instant.ok_or_else(|| format!("must be in the years {} to {} of UTC", YEARS.start(), YEARS.end()))?;
    if instant.nanosecond() % 1_000_000 != 0 {
        return Err(String::from(
            "must have no more than three digits after the second: the database stores milliseconds",
        ));
    }
    Ok(instant)
}

/// Checks that a campaign opens before it closes.
pub fn check_window(opens_at: Option<OffsetDateTime>, closes_at: Option<OffsetDateTime>) -> Result<(), String> {
    match (opens_at, closes_at) {
        (Some(opens_at), Some(closes_at)) if closes_at <= opens_at => {
            Err(String::from("--closes-at must be after --opens-at"))
        }
        _ => Ok(()),
    }
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
