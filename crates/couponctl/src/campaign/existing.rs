//! Finds a campaign that must exist.

use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Error, Result};
use mysql_async::Conn;

/// The error for a campaign that does not exist.
pub fn no_campaign(id: CampaignId) -> Error {
    Error::Broken(format!("there is no campaign {id}"))
}

/// Finds a campaign, or fails if it does not exist.
pub async fn must_exist(mysql: &Mysql, id: CampaignId) -> Result<Campaign> {
    let found = mysql.run(async move |mut conn: Conn| campaigns::find(&mut conn, id).await).await?;
    found.ok_or_else(|| no_campaign(id))
}
