//! A lookup: Redis and MySQL are asked about all claims that are due, in one or two round trips each.
//!
//! Invariant: which campaigns are sold out is read before MySQL is asked who holds a coupon; the other way round, a
//! coupon issued in between would be missed.

use std::collections::{HashMap, HashSet};

use mysql_async::Conn;
use tokio::time::Instant;

use super::waiting::{Due, Found, LookedUp};
use crate::api::campaigns::{CAMPAIGNS_PER_STATEMENT, Campaigns};
use crate::domain::{CampaignId, ClaimKey, CouponId, Outcome};
use crate::error::Result;
use crate::mysql::{self, Mysql};
use crate::redis::outcomes::Outcomes;

/// The most claims in one statement or command.
const CLAIMS_PER_STATEMENT: usize = 1_000;

/// Where outcomes are found.
pub(super) struct Servers {
    pub campaigns: Campaigns,
    pub mysql: Mysql,
    pub recorded: Option<Outcomes>,
}

/// What Redis says about the claims that are due.
#[derive(Default)]
struct Records {
    issued: HashMap<ClaimKey, CouponId>,
    /// Campaigns that are sold out, or were.
    sold_out: HashSet<CampaignId>,
    /// Whether the records could not be read.
    are_unknown: bool,
}

/// What MySQL says about the claims that it was asked about.
struct Stored {
    /// Campaigns without a free coupon, read first.
    sold_out: HashSet<CampaignId>,
    issued: HashMap<ClaimKey, CouponId>,
}

impl Servers {
    /// Looks these claims up.
    pub(super) async fn look_up(&self, due: Vec<Due>, began: Instant) -> LookedUp {
        let records = self.read_records(&due).await;
        let known = self.known_to_be_sold_out(&due.iter().map(|due| due.claim.campaign_id).collect()).await;
        let is_asked = |due: &&Due| {
            let campaign = &due.claim.campaign_id;
            let may_be_sold_out = records.sold_out.contains(campaign) || known.contains(campaign);
            (due.ask_mysql || may_be_sold_out || records.are_unknown) && !records.issued.contains_key(&due.claim)
        };
        let asked: Vec<ClaimKey> = due.iter().filter(is_asked).map(|due| due.claim).collect();
        let may_be_open = |due: &&Due| due.with_stock || records.sold_out.contains(&due.claim.campaign_id);
        let campaigns = due.iter().filter(is_asked).filter(may_be_open).map(|due| due.claim.campaign_id);
        let unsure: HashSet<CampaignId> = campaigns.filter(|campaign| !known.contains(campaign)).collect();
        let in_mysql = self.ask_mysql(&asked, known, unsure).await;
        let in_mysql = in_mysql.inspect_err(|error| tracing::debug!(%error, "cannot look claims up in MySQL")).ok();
        let asked: HashSet<ClaimKey> = asked.into_iter().collect();
        let found = |claim: ClaimKey| {
            if let Some(&coupon_id) = records.issued.get(&claim) {
                return Found::Outcome(Outcome::Issued { coupon_id });
            }
            let Some(stored) = in_mysql.as_ref().filter(|_| asked.contains(&claim)) else { return Found::Unknown };
            match Outcome::of(stored.sold_out.contains(&claim.campaign_id), stored.issued.get(&claim).copied()) {
                Outcome::Pending => Found::Nothing,
                outcome => Found::Outcome(outcome),
            }
        };
        LookedUp { began, found: due.iter().map(|due| (due.claim, found(due.claim))).collect() }
    }

    /// Has campaigns read again if a claim of theirs was pushed as sold out, unless that is known already.
    pub(super) async fn notice_sold_out(&self, pushed: &[(ClaimKey, Outcome)]) {
        let sold_out = pushed.iter().filter(|(_, outcome)| *outcome == Outcome::SoldOut);
        let campaigns: HashSet<CampaignId> = sold_out.map(|(claim, _)| claim.campaign_id).collect();
        if !self.are_known_to_be_sold_out(&campaigns).await {
            self.campaigns.notice_change();
        }
    }

    async fn read_records(&self, due: &[Due]) -> Records {
        let mut records = Records::default();
        let Some(recorded) = &self.recorded else { return records };
        let due: Vec<ClaimKey> = due.iter().map(|due| due.claim).collect();
        for claims in due.chunks(CLAIMS_PER_STATEMENT) {
            match recorded.read(claims).await {
                Ok(outcomes) => records.add(claims, &outcomes),
                Err(error) => {
                    tracing::debug!(%error, "cannot read outcomes from Redis; MySQL is asked");
                    records.are_unknown = true;
                    break;
                }
            }
        }
        records
    }

    /// Those of these campaigns that are known to be sold out.
    async fn known_to_be_sold_out(&self, campaigns: &HashSet<CampaignId>) -> HashSet<CampaignId> {
        let mut sold_out = HashSet::new();
        for campaign in campaigns {
            if self.campaigns.known(*campaign).await.is_some_and(|state| state.is_sold_out()) {
                sold_out.insert(*campaign);
            }
        }
        sold_out
    }

    async fn are_known_to_be_sold_out(&self, campaigns: &HashSet<CampaignId>) -> bool {
        self.known_to_be_sold_out(campaigns).await.len() == campaigns.len()
    }

    /// Asks which of the campaigns that are not known to be sold out are, and then who holds a coupon. What is in memory is
    /// half a second old: another instance may have answered "sold out" since, and nobody who has seen that should be told
    /// "pending" here.
    async fn ask_mysql(
        &self,
        claims: &[ClaimKey],
        known: HashSet<CampaignId>,
        unsure: HashSet<CampaignId>,
    ) -> Result<Stored> {
        let mut stored = Stored { sold_out: known, issued: HashMap::new() };
        if claims.is_empty() {
            return Ok(stored);
        }
        let (claims, unsure) = (claims.to_vec(), Vec::from_iter(unsure));
        let ask = async move |mut conn: Conn| {
            for campaigns in unsure.chunks(CAMPAIGNS_PER_STATEMENT) {
                let campaigns = mysql::campaigns::with_stock(&mut conn, campaigns).await?;
                stored.sold_out.extend(campaigns.iter().filter(|found| !found.free).map(|found| found.campaign.id));
            }
            for claims in claims.chunks(CLAIMS_PER_STATEMENT) {
                stored.issued.extend(mysql::coupons::coupons_of(&mut conn, claims).await?);
            }
            Ok(stored)
        };
        let stored = self.mysql.run(ask).await?;
        if !self.are_known_to_be_sold_out(&stored.sold_out).await {
            // Whoever is answered "sold out" gets the same answer to the next claim at this instance.
            self.campaigns.read_again().await;
        }
        Ok(stored)
    }
}

impl Records {
    fn add(&mut self, claims: &[ClaimKey], outcomes: &[Outcome]) {
        for (claim, outcome) in claims.iter().zip(outcomes) {
            match outcome {
                Outcome::Issued { coupon_id } => drop(self.issued.insert(*claim, *coupon_id)),
                Outcome::SoldOut => drop(self.sold_out.insert(claim.campaign_id)),
                Outcome::Pending => {}
            }
        }
    }
}
