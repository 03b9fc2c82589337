//! A lookup: Redis and MySQL are asked about all claims that are due, in one round trip each.
//!
//! Invariant: which campaigns are sold out is read before MySQL is asked who holds a coupon; the other way round, a
//! coupon issued in between would be missed.

use std::collections::{HashMap, HashSet};

use mysql_async::Conn;
use tokio::time::Instant;

use super::waiting::{Due, Found, LookedUp};
use crate::api::campaigns::Campaigns;
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

impl Servers {
    /// Looks these claims up.
    pub(super) async fn look_up(&self, due: Vec<Due>, began: Instant) -> LookedUp {
        let records = self.read_records(&due).await;
        let pushed = due.iter().filter(|due| due.may_be_sold_out).map(|due| due.claim.campaign_id);
        self.read_sold_out(records.sold_out.iter().copied().chain(pushed)).await;
        let sold_out = self.sold_out_among(&due).await;
        let is_asked = |due: &&Due| {
            let is_wanted = due.ask_mysql || records.are_unknown || sold_out.contains(&due.claim.campaign_id);
            is_wanted && !records.issued.contains_key(&due.claim)
        };
        let asked: Vec<ClaimKey> = due.iter().filter(is_asked).map(|due| due.claim).collect();
        let in_mysql = self.coupons_of(&asked).await;
        let in_mysql = in_mysql.inspect_err(|error| tracing::debug!(%error, "cannot look claims up in MySQL")).ok();
        let asked: HashSet<ClaimKey> = asked.into_iter().collect();
        let found = |claim: ClaimKey| {
            if let Some(&coupon_id) = records.issued.get(&claim) {
                return Found::Outcome(Outcome::Issued { coupon_id });
            }
            let Some(issued) = in_mysql.as_ref().filter(|_| asked.contains(&claim)) else { return Found::Unknown };
            match Outcome::of(sold_out.contains(&claim.campaign_id), issued.get(&claim).copied()) {
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
        for campaign in campaigns {
            if !self.is_sold_out(campaign).await {
                self.campaigns.notice_change();
            }
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

    /// Has campaigns that may be sold out read again, and waits for that, if one of them is not known to be.
    async fn read_sold_out(&self, campaigns: impl Iterator<Item = CampaignId>) {
        for campaign in campaigns.collect::<HashSet<_>>() {
            if !self.is_sold_out(campaign).await {
                return self.campaigns.read_again().await;
            }
        }
    }

    /// The campaigns of these claims that are known to be sold out.
    async fn sold_out_among(&self, due: &[Due]) -> HashSet<CampaignId> {
        let campaigns: HashSet<CampaignId> = due.iter().map(|due| due.claim.campaign_id).collect();
        let mut sold_out = HashSet::new();
        for campaign in campaigns {
            if self.is_sold_out(campaign).await {
                sold_out.insert(campaign);
            }
        }
        sold_out
    }

    async fn is_sold_out(&self, campaign: CampaignId) -> bool {
        self.campaigns.known(campaign).await.is_some_and(|state| state.is_sold_out())
    }

    async fn coupons_of(&self, claims: &[ClaimKey]) -> Result<HashMap<ClaimKey, CouponId>> {
        if claims.is_empty() {
            return Ok(HashMap::new());
        }
        let claims = claims.to_vec();
        self.mysql
            .run(async move |mut conn: Conn| {
                let mut issued = HashMap::new();
                for claims in claims.chunks(CLAIMS_PER_STATEMENT) {
                    issued.extend(mysql::coupons::coupons_of(&mut conn, claims).await?);
                }
                Ok(issued)
            })
            .await
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
