//! The history of campaigns: what was changed, when, and by which operator.
//!
//! Invariant: a line is written in the transaction of its change, so there is never one without the other.

use comfy_table::Cell;
use coupon_core::mysql::Mysql;
use coupon_core::terminal::{self, print, print_json, printable};
use coupon_core::{Campaign, CampaignId, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction};
use serde::Serialize;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::output::{Printed, table};

/// The most characters that the table holds for an operator's name.
const WHO_MAX: usize = 400;

/// The instant of a change, in UTC and with all its milliseconds, so that lines are aligned.
const AT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The change that creates a campaign.
pub const CREATE: &str = "create";

/// A change of a campaign.
#[derive(Debug, Serialize)]
pub struct Change {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub campaign_id: CampaignId,
    /// The command: `create`, `add-coupons`, `update`, `pause`, `resume` or `close`.
    pub what: String,
    /// The state before, if there was one.
    pub old: Option<String>,
    pub new: String,
    /// The user and the host that ran the command.
    pub who: String,
}

/// Writes a line of the history, which is kept when the transaction commits.
pub async fn write(
    transaction: &mut Transaction<'_>,
    campaign: CampaignId,
    what: &str,
    (old, new): (Option<String>, String),
) -> Result<()> {
    let insert = "INSERT INTO campaign_change (campaign_id, changed_at, what, old, new, who) \
                  VALUES (?, UTC_TIMESTAMP(3), ?, ?, ?, ?)";
    Ok(transaction.exec_drop(insert, (campaign.0, what, old, new, who())).await?)
}

/// The history of a campaign, oldest first.
pub async fn of(mysql: &Mysql, campaign: CampaignId) -> Result<Vec<Change>> {
    type Row = (PrimitiveDateTime, u64, String, Option<String>, String, String);

    let select = "SELECT changed_at, campaign_id, what, old, new, who FROM campaign_change \
                  WHERE campaign_id = ? ORDER BY id";
    let rows: Vec<Row> = mysql.run(async move |mut conn: Conn| Ok(conn.exec(select, (campaign.0,)).await?)).await?;
    let change = |(at, campaign, what, old, new, who): Row| Change {
        at: at.assume_utc(),
        campaign_id: CampaignId(campaign),
        what,
        old,
        new,
        who,
    };
    Ok(rows.into_iter().map(change).collect())
}

/// The words in which a campaign was described when it was created, if that is recorded.
pub async fn created_as(mysql: &Mysql, campaign: CampaignId) -> Result<Option<String>> {
    let changes = of(mysql, campaign).await?;
    Ok(changes.into_iter().rfind(|change| change.what == CREATE).map(|change| change.new))
}

/// Prints the changes of a campaign, one line each.
pub fn show(changes: &[Change], json: bool) -> Printed {
    if json {
        return print_json(&changes);
    }
    let mut table = table(["at", "what", "old", "new", "who"]);
    for Change { at, campaign_id: _, what, old, new, who } in changes {
        table.add_row([
            Cell::new(at.format(AT).unwrap_or_default()),
            Cell::new(printable(what)),
            Cell::new(printable(old.as_deref().unwrap_or("-"))),
            Cell::new(printable(new)),
            Cell::new(printable(who)),
        ]);
    }
    print(&table)
}

/// A campaign in words, without its number.
pub fn described(campaign: &Campaign) -> String {
    [name(campaign), opens_at(campaign), closes_at(campaign), format!("{} coupons", campaign.coupons)].join(", ")
}

/// The differences between two states of a campaign, in words: before and after.
pub fn differences(old: &Campaign, new: &Campaign) -> (String, String) {
    let fields: [fn(&Campaign) -> String; 4] = [name, opens_at, closes_at, paused];
    let pairs = fields.iter().map(|field| (field(old), field(new))).filter(|(old, new)| old != new);
    let (old, new): (Vec<String>, Vec<String>) = pairs.unzip();
    (old.join(", "), new.join(", "))
}

fn name(campaign: &Campaign) -> String {
    format!("name '{}'", campaign.name)
}

fn opens_at(campaign: &Campaign) -> String {
    format!("opens at {}", instant(campaign.opens_at))
}

fn closes_at(campaign: &Campaign) -> String {
    format!("closes at {}", instant(campaign.closes_at))
}

fn paused(campaign: &Campaign) -> String {
    String::from(if campaign.paused { "paused" } else { "not paused" })
}

/// An instant for people to read; `-` for none.
pub fn instant(instant: Option<OffsetDateTime>) -> String {
    instant.and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_else(|| String::from("-"))
}

/// The user and the host that run this command.
fn who() -> String {
    let unknown = |_| String::from("unknown");
    let (user, host) = (whoami::username().unwrap_or_else(unknown), whoami::hostname().unwrap_or_else(unknown));
    format!("{user}@{host}").chars().filter(|c| !terminal::is_control(*c)).take(WHO_MAX).collect()
}
