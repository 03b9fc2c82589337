//! A campaign that has to be there.

use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Error, Result};
use mysql_async::Conn;

/// What is said of one that is not.
pub fn no_campaign(id: CampaignId) -> Error {
    Error::Broken(format!("there is no campaign {id}"))
}

/// A campaign that is there.
pub async fn must_exist(mysql: &Mysql, id: CampaignId) -> Result<Campaign> {
    let found = mysql.run(async move |mut conn: Conn| campaigns::find(&mut conn, id).await).await?;
    found.ok_or_else(|| no_campaign(id))
}
