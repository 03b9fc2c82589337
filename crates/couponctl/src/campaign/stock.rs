//! Creates campaigns with their coupons, and restocks them.
//!
//! Invariant: no coupon is added that was not ordered. Each load is recorded under a key, and repeating a command
//! finishes the load that its values ordered and no other, where `create` and `setup` order the same one; only a new total
//! takes the place of all loads that were cut off.

use anyhow::{Context, bail};
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::{Campaign, CampaignId, Result, terminal};
use mysql_async::{Conn, TxOpts};

use super::arguments::{AddCoupons, Create, Goal};
use super::existing::must_exist;
use super::{history, load};

/// The command that creates a campaign, or finishes creating it: either of the two finishes what the other began.
#[derive(Clone, Copy)]
pub enum Maker {
    /// Refuses an existing campaign that differs from the wanted one.
    Create,
    /// Keeps an existing campaign, whatever has happened to it since.
    Setup,
}

/// The key of the load that creates a campaign.
const CREATION: &str = "create";

/// Creates a campaign with its coupons, or finishes creating it.
pub async fn create(mysql: &Mysql, create: &Create, maker: Maker) -> anyhow::Result<CampaignId> {
    let lock = campaigns::lock_for_operator(mysql).await?;
    let id = if let Some(id) = create.id {
        id
    } else {
        let (next, last) =
            (mysql.run(async |mut conn: Conn| campaigns::next_id(&mut conn).await).await?, CampaignId::MAX);
        next.with_context(|| format!("campaign {last} has the highest number possible: choose a free one with --id"))?
    };
    let wanted = create.campaign(id);
    let limit = Limit::Ordered(CREATION.to_owned());
    let found = mysql.run(async move |mut conn: Conn| campaigns::find(&mut conn, id).await).await?;
    let left = match found {
        None => {
            let what = (None, history::described(&wanted));
            begin(mysql, history::CREATE, Some(&wanted), Order { id, coupons: wanted.coupons, limit: &limit, what })
                .await?
        }
        Some(found) => match (left_of(mysql, &found, &wanted).await?, maker) {
            (Ok(left), _) => left,
            (Err(difference), Maker::Setup) => {
                terminal::note(&difference);
                0
            }
            (Err(difference), Maker::Create) => bail!(difference),
        },
    };
    load::coupons(mysql, id, left, &limit).await?;
    lock.release().await;
    Ok(id)
}

/// How many coupons are left to load into an existing campaign, of those ordered when it was created; or in what it
/// differs from the wanted one.
async fn left_of(mysql: &Mysql, found: &Campaign, wanted: &Campaign) -> Result<Result<u64, String>> {
    let id = found.id;
    let order = mysql.run(async move |mut conn: Conn| loads::find(&mut conn, id, CREATION).await).await?;
    let left = order.map_or(0, loads::Load::left);
    // What is left is ordered by the same values again, whatever has happened to the campaign since.
    let is_repeated =
        history::created_as(mysql, id).await?.is_some_and(|as_what| as_what == history::described(wanted));
    if left > 0 && is_repeated {
        return Ok(Ok(left));
    }
    let coupons = order.map_or(found.coupons, |order| order.coupons);
    Ok(as_wanted(&Campaign { coupons, ..found.clone() }, wanted, left).map(|()| left))
}

/// Checks that an existing campaign is the wanted one; `left` of its coupons are ordered and not loaded.
fn as_wanted(found: &Campaign, wanted: &Campaign, left: u64) -> Result<(), String> {
    let coupons = format!("--coupons ({} coupons)", found.coupons);
    let differs = [
        (coupons.as_str(), found.coupons != wanted.coupons),
        ("--name", found.name != wanted.name),
        ("--opens-at", found.opens_at != wanted.opens_at),
        ("--closes-at", found.closes_at != wanted.closes_at),
    ];
    let differs: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if differs.is_empty() {
        return Ok(());
    }
    let remedy = if left > 0 {
        format!(
            "; {left} of its coupons are not there yet, and a repetition with the values that it was created with adds them"
        )
    } else if differs == [&coupons] {
        String::from("; `couponctl campaign add-coupons` adds some")
    } else {
        String::new()
    };
    let differs = differs.join(", ");
    Err(format!("campaign {} already exists with a different {differs}; nothing was changed{remedy}", found.id))
}

/// Restocks a campaign, or finishes restocking it.
pub async fn add_coupons(mysql: &Mysql, restock: &AddCoupons) -> anyhow::Result<CampaignId> {
    let id = restock.id;
    let lock = campaigns::lock_for_operator(mysql).await?;
    let found = must_exist(mysql, id).await?;
    let (limit, left) = match &restock.goal {
        Goal { key: Some(key), .. } => {
            let coupons = restock.coupons.context("--key needs --coupons")?;
            // The prefix keeps an operator's key from clashing with that of the creation.
            let limit = Limit::Ordered(format!("key:{key}"));
            let left = restock_once(mysql, &found, key, coupons, &limit).await?;
            (limit, left)
        }
        Goal { total, .. } => {
            let total = total.context("--total is missing")?;
            let limit = Limit::Total(total);
            let missing = total.saturating_sub(found.coupons);
            let what = (Some(format!("{} coupons", found.coupons)), format!("{total} coupons"));
            if total == found.coupons {
                mysql.run(async move |mut conn: Conn| loads::supersede(&mut conn, id).await).await?;
            }
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
            "--key {key} already stands for {} coupons of campaign {id}, not {coupons}; a new restock needs a new key",
            order.coupons
        ),
        None => {
            let new = format!("{} coupons, key {key}", found.coupons + coupons);
            let what = (Some(format!("{} coupons", found.coupons)), new);
            begin(mysql, "add-coupons", None, Order { id, coupons, limit, what }).await
        }
    }
}

/// A load that is about to begin.
struct Order<'a> {
    id: CampaignId,
    coupons: u64,
    limit: &'a Limit,
    /// The state before and after, for the history.
    what: (Option<String>, String),
}

/// Begins a load. Writes the campaign if it is new, the record of the load, its line in the history and the first
/// coupons in one transaction, so that nobody sees a campaign without coupons. Returns how many coupons are left to
/// load.
async fn begin(mysql: &Mysql, command: &'static str, new: Option<&Campaign>, order: Order<'_>) -> anyhow::Result<u64> {
    let Order { id, coupons, limit, what } = order;
    let (new, limit) = (new.cloned(), limit.clone());
    let work = async move |mut conn: Conn| {
        let chunk = loads::chunk_size(&mut conn).await?;
        let first = usize::try_from(coupons).unwrap_or(usize::MAX).min(chunk);
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        if let Some(campaign) = &new {
            campaigns::insert(&mut transaction, campaign).await?;
            loads::forget(&mut transaction, id).await?;
        }
        match &limit {
            Limit::Ordered(key) => loads::order(&mut transaction, id, key, coupons).await?,
            Limit::Total(_) => {
                loads::supersede(&mut transaction, id).await?;
                loads::order_total(&mut transaction, id, coupons).await?;
            }
            Limit::Stock(_) => {}
        }
        history::write(&mut transaction, id, command, what).await?;
        loads::add(&mut transaction, id, &loads::new_coupons(first), &limit).await?;
        transaction.commit().await?;
        Ok(coupons - first as u64)
    };
    Ok(mysql.run(work).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::arguments::named;

    #[test]
    fn another_campaign_of_the_same_number_is_not_taken_for_the_wanted_one() {
        let error = as_wanted(&named("a"), &Campaign { coupons: 600, ..named("b") }, 0).unwrap_err();

        assert!(error.contains("a different --coupons (10 coupons), --name;"), "{error}");
        assert!(as_wanted(&named("a"), &Campaign { paused: true, ..named("a") }, 0).is_ok());
    }
}
