//! The campaigns of a run, and the choice of which one a claim is for.
//!
//! Invariant: campaigns are created before anything is broken; coupons added later are first ordered under a key, so
//! that an addition whose end was not seen is finished, not made twice.

use std::sync::Arc;
use std::time::Duration;

use coupon_core::mysql::Mysql;
use coupon_core::mysql::loads::{self, Limit};
use coupon_core::{CampaignId, Result};
use coupon_testkit::TestSpace;
use mysql_async::{Conn, TxOpts};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;
use tokio::sync::watch;

use crate::journal::{Journal, Micros, Restock};

/// How the stock of a campaign develops.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It has a coupon for everyone: each accepted claim must get one, and "sold out" is always wrong.
    Endless,
    /// It sells out and is restocked, again and again.
    Restocked,
    /// It sells out once, and stays sold out.
    Once,
}

/// How long a campaign that sells out once is claimed from.
const ONCE_LASTS: Duration = Duration::from_secs(10);

/// How often one of the campaigns is restocked.
const RESTOCK_EVERY: Duration = Duration::from_secs(2);

const RESTOCKED: usize = 3;

/// Shares of the claims, in percent; the rest goes to the campaigns that sell out once.
const ENDLESS_PERCENT: u32 = 45;
const RESTOCKED_PERCENT: u32 = 35;

/// The endless campaign has this many times the coupons it needs, for a run that takes longer than planned.
const ENDLESS_SPARE: usize = 2;

/// The campaigns of a run.
pub struct Campaigns {
    endless: CampaignId,
    restocked: Vec<CampaignId>,
    once: Vec<CampaignId>,
    /// Coupons that one restock adds.
    restock: u64,
}

impl Campaigns {
    /// Creates the campaigns for this rate of claims over this time. Also returns their first stock.
    pub async fn make(space: &TestSpace, rate: u32, load: Duration) -> (Self, Vec<Restock>) {
        let claims = rate as usize * usize::try_from(load.as_secs()).unwrap_or(0).max(10);
        let mut stock = Vec::new();
        let mut make = async |coupons: usize| {
            let id = space.campaign(0).await;
            // In chunks that fit into one statement.
            for begin in (0..coupons).step_by(5_000) {
                space.add_coupons(id, (coupons - begin).min(5_000)).await;
            }
            stock.push(Restock { campaign: id.0, begun: 0, ended: 0, coupons: coupons as u64 });
            id
        };
        let endless = make(claims * ENDLESS_SPARE * ENDLESS_PERCENT as usize / 100).await;
        let half = |percent: u32, seconds: u64| u64::from(rate) * u64::from(percent) * seconds / 200;
        let restock = half(RESTOCKED_PERCENT, RESTOCK_EVERY.as_secs());
        let of_once = half(100 - ENDLESS_PERCENT - RESTOCKED_PERCENT, ONCE_LASTS.as_secs());
        let (mut restocked, mut once) = (Vec::new(), Vec::new());
        for _ in 0..RESTOCKED {
            restocked.push(make(usize::try_from(restock).unwrap_or(0)).await);
        }
        for _ in 0..=load.as_secs() / ONCE_LASTS.as_secs() {
            once.push(make(usize::try_from(of_once).unwrap_or(0)).await);
        }
        (Self { endless, restocked, once, restock }, stock)
    }

    /// Chooses the campaign that a new claim is for at this time.
    pub fn choose(&self, rng: &mut StdRng, now: Micros) -> CampaignId {
        let turn = usize::try_from(now / u64::try_from(ONCE_LASTS.as_micros()).unwrap_or(1)).unwrap_or(0);
        let once = self.once.get(turn).or_else(|| self.once.last()).copied().unwrap_or(self.endless);
        match rng.random_range(0..100) {
            0..ENDLESS_PERCENT => self.endless,
            n if n < ENDLESS_PERCENT + RESTOCKED_PERCENT => {
                self.restocked.get(rng.random_range(0..RESTOCKED)).copied().unwrap_or(self.endless)
            }
            _ => once,
        }
    }

    /// How a campaign's stock develops.
    #[must_use]
    pub fn role(&self, campaign: u64) -> Role {
        if campaign == self.endless.0 {
            Role::Endless
        } else if self.restocked.iter().any(|restocked| restocked.0 == campaign) {
            Role::Restocked
        } else {
            Role::Once
        }
    }

    /// The numbers of all campaigns.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        [self.endless].into_iter().chain(self.restocked.clone()).chain(self.once.clone()).map(|campaign| campaign.0)
    }

    /// Restocks one after the other until told to stop; finishes a restock that has begun.
    pub async fn restock_in_turns(self: Arc<Self>, mysql: Mysql, journal: Arc<Journal>, stop: watch::Receiver<bool>) {
        for (turn, campaign) in self.restocked.iter().cycle().enumerate() {
            tokio::time::sleep(RESTOCK_EVERY).await;
            if *stop.borrow() {
                return;
            }
            let (begun, key) = (journal.now(), format!("restock {turn}"));
            while add(&mysql, *campaign, &key, self.restock).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let ended = journal.now();
            journal.restocked(Restock { campaign: campaign.0, begun, ended, coupons: self.restock });
        }
    }
}

/// Adds coupons under a key, as far as they have not been added yet.
async fn add(mysql: &Mysql, campaign: CampaignId, key: &str, coupons: u64) -> Result<()> {
    let (name, limit) = (key.to_owned(), Limit::Ordered(key.to_owned()));
    let left = mysql
        .run(async move |mut conn: Conn| {
            if let Some(load) = loads::find(&mut conn, campaign, &name).await? {
                return Ok(load.left());
            }
            let mut transaction = conn.start_transaction(TxOpts::default()).await?;
            loads::order(&mut transaction, campaign, &name, coupons).await?;
            transaction.commit().await?;
            Ok(coupons)
        })
        .await?;
    loads::add_in_chunks(mysql, campaign, left, &limit, |_| {}).await
}
