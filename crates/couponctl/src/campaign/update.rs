//! Changes an existing campaign: its name, its window, and whether it is paused.

use coupon_core::domain::Window;
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Error, Result};
use mysql_async::TxOpts;
use mysql_async::prelude::Queryable;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::arguments::{Changed, check_window};
use super::existing::no_campaign;
use super::history;

/// The change that an operator wants.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    Update(&'a Changed),
    Pause,
    Resume,
    Close,
}

impl Wish<'_> {
    fn command(self) -> &'static str {
        match self {
            Self::Update(_) => "update",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Close => "close",
        }
    }

    /// The campaign after the change.
    fn applied_to(self, campaign: &Campaign, now: OffsetDateTime) -> Result<Campaign> {
        match self {
            Self::Update(changed) => changed.applied_to(campaign),
            Self::Pause => Ok(Campaign { paused: true, ..campaign.clone() }),
            Self::Resume => Ok(Campaign { paused: false, ..campaign.clone() }),
            Self::Close if campaign.window(now) == Window::Closed => Ok(campaign.clone()),
            Self::Close if campaign.window(now) == Window::NotOpen => Err(Error::Broken(format!(
                "campaign {} opens only at {}: pause it, or change its window with `update`",
                campaign.id,
                history::instant(campaign.opens_at)
            ))),
            Self::Close => Ok(Campaign { closes_at: Some(now), ..campaign.clone() }),
        }
    }
}

impl Changed {
    fn applied_to(&self, campaign: &Campaign) -> Result<Campaign> {
        let bound = |removed: bool, new: Option<OffsetDateTime>, old| if removed { None } else { new.or(old) };
        let changed = Campaign {
            name: self.name.clone().unwrap_or_else(|| campaign.name.clone()),
            opens_at: bound(self.no_opens_at, self.opens_at, campaign.opens_at),
            closes_at: bound(self.no_closes_at, self.closes_at, campaign.closes_at),
            ..campaign.clone()
        };
        let window_is_new = (changed.opens_at, changed.closes_at) != (campaign.opens_at, campaign.closes_at);
        if window_is_new && let Err(reason) = check_window(changed.opens_at, changed.closes_at) {
            let bounds = [history::instant(changed.opens_at), history::instant(changed.closes_at)];
            return Err(Error::Broken(format!("{reason}: it would be open from {}", bounds.join(" to "))));
        }
        Ok(changed)
    }
}

/// Changes a campaign, with a line in its history; does nothing if it is already as wanted. Needs no [`OperatorLock`]:
/// a campaign can be paused while coupons are loaded.
///
/// [`OperatorLock`]: campaigns::OperatorLock
pub async fn change(mysql: &Mysql, id: CampaignId, wish: Wish<'_>) -> Result<CampaignId> {
    let work = async {
        let mut conn = mysql.connection().await?;
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        transaction.exec_drop("SELECT id FROM campaign WHERE id = ? FOR UPDATE", (id.0,)).await?;
        let old = campaigns::find(&mut transaction, id).await?.ok_or_else(|| no_campaign(id))?;
        // The database's time, because the services' clocks are closer to it than to an operator's.
        let now: Option<PrimitiveDateTime> = transaction.query_first("SELECT UTC_TIMESTAMP(3)").await?;
        let now = now.map_or_else(OffsetDateTime::now_utc, PrimitiveDateTime::assume_utc);
        let new = wish.applied_to(&old, now)?;
        if new != old {
            let (old, differs) = history::differences(&old, &new);
            let update = "UPDATE campaign SET name = ?, opens_at = ?, closes_at = ?, paused = ? WHERE id = ?";
            let (opens_at, closes_at) = (new.opens_at.map(campaigns::utc), new.closes_at.map(campaigns::utc));
            transaction.exec_drop(update, (new.name, opens_at, closes_at, new.paused, id.0)).await?;
            history::write(&mut transaction, id, wish.command(), (Some(old), differs)).await?;
        }
        transaction.commit().await?;
        Ok(id)
    };
    mysql.within(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::arguments::named;

    #[test]
    fn a_campaign_that_is_over_stays_as_it_is_when_closed_again() {
        let now = OffsetDateTime::now_utc();
        let closed = Wish::Close.applied_to(&named("a"), now).unwrap();

        assert_eq!(closed.closes_at, Some(now));
        let later = now + time::Duration::SECOND;
        assert_eq!(Wish::Close.applied_to(&closed, later).unwrap(), closed);
    }

    #[test]
    fn a_campaign_that_has_not_opened_is_not_closed() {
        let now = OffsetDateTime::now_utc();
        let planned = Campaign { opens_at: Some(now + time::Duration::HOUR), ..named("a") };

        let refused = Wish::Close.applied_to(&planned, now).unwrap_err().to_string();

        assert!(refused.contains("opens only at") && refused.contains("pause it"), "{refused}");
    }
}
