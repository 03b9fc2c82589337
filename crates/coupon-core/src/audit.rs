//! The audit: each invariant of the system, checked in MySQL and against the answers that clients got.
//!
//! It reads one snapshot, so it can run while claims flow. Answers must be collected *before* it starts: every coupon
//! in them was committed by then.

use std::collections::{BTreeMap, HashMap, HashSet};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, IsolationLevel, TxOpts};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::{AccountId, CampaignId, ClaimKey, CouponId, Outcome};
use crate::error::Result;
use crate::mysql::Mysql;

/// Examples shown for each broken invariant.
const EXAMPLES_MAX: usize = 5;

/// The answers that clients got, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Every answer; one claim may have several.
    pub outcomes: Vec<(ClaimKey, Outcome)>,
    /// Whether no coupons were added since the first of these answers: only then does a free coupon prove that "sold
    /// out" was wrong.
    pub no_restock: bool,
}

/// What the broker holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broker {
    /// Messages that could not be handled.
    pub dead_letters: u64,
}

/// The result of an audit.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every invariant that was checked holds.
    pub clean: bool,
    /// The campaigns that were audited.
    pub campaigns: Vec<Stock>,
    /// What was found for each invariant.
    pub invariants: Vec<Finding>,
}

/// A campaign's rows.
#[derive(Clone, Debug, Serialize)]
pub struct Stock {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// Its stock, as recorded in the campaign.
    pub coupons: u64,
    /// Its coupons that have an account.
    pub issued: u64,
    /// Its coupons that have none.
    pub free: u64,
}

/// An invariant and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Stable name.
    pub invariant: &'static str,
    /// What the invariant says.
    pub says: &'static str,
    /// How many things were checked.
    pub checked: u64,
    /// How many of them break it.
    pub broken: u64,
    /// Some of those that break it.
    pub examples: Vec<String>,
}

impl Finding {
    fn new(invariant: &'static str, says: &'static str) -> Self {
        Self { invariant, says, checked: 0, broken: 0, examples: Vec::new() }
    }

    fn check(&mut self, count: u64) {
        self.checked += count;
    }

    fn breaks(&mut self, example: impl FnOnce() -> String) {
        self.broken += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// Checks every invariant, of one campaign or of all. Without a `broker` its part is left out.
///
/// # Errors
/// Any error from MySQL. A broken invariant is not an error: it is in the report.
pub async fn audit(
    mysql: &Mysql,
    campaign: Option<CampaignId>,
    answers: Answers,
    broker: Option<Broker>,
) -> Result<Report> {
    let mut conn = mysql.connection().await?;
    mysql.attended(&[conn.id()], audit_on(&mut conn, campaign, answers, broker)).await
}

async fn audit_on(
    conn: &mut Conn,
    campaign: Option<CampaignId>,
    answers: Answers,
    broker: Option<Broker>,
) -> Result<Report> {
    let mut options = TxOpts::default();
    options.with_isolation_level(IsolationLevel::RepeatableRead).with_consistent_snapshot(true).with_readonly(true);
    let mut snapshot = conn.start_transaction(options).await?;

    let stocks = stocks(&mut snapshot, campaign).await?;
    let holders = Holders::of(&answers, &mut snapshot).await?;
    let restocked = restocked(&mut snapshot).await?;
    let invariants = vec![
        coupon_keeps_its_account(&mut snapshot, campaign, &stocks, &answers, &holders).await?,
        account_has_one_coupon(&mut snapshot, campaign, &stocks, &answers).await?,
        issued_within_stock(&mut snapshot, campaign, &stocks).await?,
        accepted_claims_settle(&answers, broker),
        sold_out_only_when_true(&answers, &stocks, &holders, &restocked),
        repeated_claims_agree(&answers, &restocked),
    ];
    snapshot.rollback().await?;
    let clean = invariants.iter().all(|finding| finding.broken == 0);
    Ok(Report { clean, campaigns: stocks, invariants })
}

type Snapshot<'a> = mysql_async::Transaction<'a>;

async fn stocks(snapshot: &mut Snapshot<'_>, campaign: Option<CampaignId>) -> Result<Vec<Stock>> {
    let rows: Vec<(u64, u64, u64, u64)> = snapshot
        .exec(
            "SELECT campaign.id, campaign.coupons, COUNT(coupon.account_id), COUNT(coupon.id) \
             FROM campaign LEFT JOIN coupon ON coupon.campaign_id = campaign.id \
             WHERE ? IS NULL OR campaign.id = ? \
             GROUP BY campaign.id, campaign.coupons ORDER BY campaign.id",
            (campaign.map(|id| id.0), campaign.map(|id| id.0)),
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|(id, coupons, issued, rows)| Stock { campaign_id: CampaignId(id), coupons, issued, free: rows - issued })
        .collect())
}

/// The campaigns that an operator has restocked within a day, which is longer than answers are kept: their "sold out"
/// may be outdated, which is not wrong.
async fn restocked(snapshot: &mut Snapshot<'_>) -> Result<HashSet<CampaignId>> {
    let ids: Vec<u64> = snapshot
        .query(
            "SELECT DISTINCT campaign_id FROM campaign_change \
             WHERE what = 'add-coupons' AND changed_at > UTC_TIMESTAMP(3) - INTERVAL 1 DAY",
        )
        .await?;
    Ok(ids.into_iter().map(CampaignId).collect())
}

/// Which account holds which coupon, of the campaigns that answers are about.
struct Holders {
    by_coupon: HashMap<CouponId, ClaimKey>,
    by_claim: HashMap<ClaimKey, CouponId>,
}

impl Holders {
    async fn of(answers: &Answers, snapshot: &mut Snapshot<'_>) -> Result<Self> {
        let mut campaigns: Vec<u64> = answers.outcomes.iter().map(|(claim, _)| claim.campaign_id.0).collect();
        campaigns.sort_unstable();
        campaigns.dedup();
        let mut holders = Self { by_coupon: HashMap::new(), by_claim: HashMap::new() };
        for campaign in campaigns {
            let rows: Vec<(Uuid, u64)> = snapshot
                .exec("SELECT id, account_id FROM coupon WHERE campaign_id = ? AND account_id IS NOT NULL", (campaign,))
                .await?;
            for (id, account) in rows {
                let claim = ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
                holders.by_coupon.insert(CouponId(id), claim);
                holders.by_claim.insert(claim, CouponId(id));
            }
        }
        Ok(holders)
    }
}

async fn coupon_keeps_its_account(
    snapshot: &mut Snapshot<'_>,
    campaign: Option<CampaignId>,
    stocks: &[Stock],
    answers: &Answers,
    holders: &Holders,
) -> Result<Finding> {
    let mut finding =
        Finding::new("coupon_keeps_its_account", "A coupon has at most one account, and once set it never changes.");
    finding.check(stocks.iter().map(|stock| stock.issued).sum());
    if unique_columns(snapshot, "PRIMARY").await? != 2 {
        finding.breaks(|| String::from("the primary key of coupon, which holds this within a campaign, is missing"));
    }
    if campaign.is_none() {
        let twice: Vec<(Uuid, u64)> = snapshot
            .query("SELECT id, COUNT(*) AS times FROM coupon WHERE account_id IS NOT NULL GROUP BY id HAVING times > 1")
            .await?;
        for (id, times) in twice {
            finding.breaks(|| format!("coupon {id} is held in {times} campaigns"));
        }
    }
    for (claim, outcome) in &answers.outcomes {
        if let Outcome::Issued { coupon_id } = outcome {
            finding.check(1);
            match holders.by_coupon.get(coupon_id) {
                // `couponctl forget` gives a coupon a number above those of accounts.
                Some(holder) if holder == claim || holder.account_id > AccountId::MAX => {}
                Some(holder) => finding.breaks(|| {
                    format!(
                        "account {} was given coupon {coupon_id}, which account {} holds",
                        claim.account_id, holder.account_id
                    )
                }),
                None => finding.breaks(|| {
                    format!("account {} was given coupon {coupon_id}, which nobody holds", claim.account_id)
                }),
            }
        }
    }
    Ok(finding)
}

/// How many columns a unique key of `coupon` has; 0 if there is no such key.
async fn unique_columns(snapshot: &mut Snapshot<'_>, key: &str) -> Result<u64> {
    let columns: Option<u64> = snapshot
        .exec_first(
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() \
             AND table_name = 'coupon' AND index_name = ? AND non_unique = 0",
            (key,),
        )
        .await?;
    Ok(columns.unwrap_or(0))
}

async fn account_has_one_coupon(
    snapshot: &mut Snapshot<'_>,
    campaign: Option<CampaignId>,
    stocks: &[Stock],
    answers: &Answers,
) -> Result<Finding> {
    let mut finding = Finding::new("account_has_one_coupon", "An account has at most one coupon of a campaign.");
    finding.check(stocks.iter().map(|stock| stock.issued).sum());
    let twice: Vec<(u64, u64, u64)> = snapshot
        .exec(
            "SELECT campaign_id, account_id, COUNT(*) AS times FROM coupon \
             WHERE account_id IS NOT NULL AND (? IS NULL OR campaign_id = ?) \
             GROUP BY campaign_id, account_id HAVING times > 1",
            (campaign.map(|id| id.0), campaign.map(|id| id.0)),
        )
        .await?;
    for (campaign, account, times) in twice {
        finding.breaks(|| format!("account {account} holds {times} coupons of campaign {campaign}"));
    }
    if unique_columns(snapshot, "coupon_campaign_account").await? != 2 {
        finding.breaks(|| String::from("the unique key coupon_campaign_account, which holds this, is missing"));
    }
    let mut first: HashMap<ClaimKey, CouponId> = HashMap::new();
    for (claim, outcome) in &answers.outcomes {
        if let Outcome::Issued { coupon_id } = outcome {
            let before = *first.entry(*claim).or_insert(*coupon_id);
            if before != *coupon_id {
                finding.breaks(|| format!("account {} was given {before} and {coupon_id}", claim.account_id));
            }
        }
    }
    Ok(finding)
}

async fn issued_within_stock(
    snapshot: &mut Snapshot<'_>,
    campaign: Option<CampaignId>,
    stocks: &[Stock],
) -> Result<Finding> {
    let mut finding = Finding::new(
        "issued_within_stock",
        "No more coupons are issued than a campaign has, and it has as many as were put into it.",
    );
    for stock in stocks {
        finding.check(1);
        let rows = stock.issued + stock.free;
        if stock.issued > stock.coupons {
            finding.breaks(|| format!("campaign {}: {} issued of {}", stock.campaign_id, stock.issued, stock.coupons));
        } else if rows != stock.coupons {
            finding.breaks(|| {
                format!("campaign {}: {rows} coupons where its stock says {}", stock.campaign_id, stock.coupons)
            });
        }
    }
    let strays: Vec<(u64, u64)> = snapshot
        .exec(
            "SELECT campaign_id, COUNT(*) FROM coupon LEFT JOIN campaign ON campaign.id = coupon.campaign_id \
             WHERE campaign.id IS NULL AND (? IS NULL OR campaign_id = ?) GROUP BY campaign_id",
            (campaign.map(|id| id.0), campaign.map(|id| id.0)),
        )
        .await?;
    for (campaign, coupons) in strays {
        finding.breaks(|| format!("{coupons} coupons of campaign {campaign}, which is not there"));
    }
    Ok(finding)
}

fn accepted_claims_settle(answers: &Answers, broker: Option<Broker>) -> Finding {
    let mut finding = Finding::new(
        "accepted_claims_settle",
        "A claim that was accepted reaches a final outcome; none ends among the dead letters.",
    );
    finding.check(answers.outcomes.len() as u64);
    for (claim, outcome) in &answers.outcomes {
        if *outcome == Outcome::Pending {
            finding.breaks(|| {
                format!("account {} of campaign {} is left without an outcome", claim.account_id, claim.campaign_id)
            });
        }
    }
    if let Some(broker) = broker {
        finding.check(broker.dead_letters);
        if broker.dead_letters > 0 {
            finding.broken += broker.dead_letters;
            finding.examples.push(format!("{} messages among the dead letters", broker.dead_letters));
        }
    }
    finding
}

fn sold_out_only_when_true(
    answers: &Answers,
    stocks: &[Stock],
    holders: &Holders,
    restocked: &HashSet<CampaignId>,
) -> Finding {
    let mut finding = Finding::new(
        "sold_out_only_when_true",
        "Sold out is said only when no coupon is free, and never to an account that holds one.",
    );
    let free: HashMap<CampaignId, u64> = stocks.iter().map(|stock| (stock.campaign_id, stock.free)).collect();
    let mut undersold: BTreeMap<CampaignId, u64> = BTreeMap::new();
    for (claim, _) in answers.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::SoldOut) {
        finding.check(1);
        if restocked.contains(&claim.campaign_id) {
            continue;
        }
        if let Some(coupon) = holders.by_claim.get(claim) {
            finding.breaks(|| format!("account {} was refused as sold out and holds {coupon}", claim.account_id));
        } else if answers.no_restock && free.get(&claim.campaign_id).is_some_and(|free| *free > 0) {
            *undersold.entry(claim.campaign_id).or_default() += 1;
        }
    }
    for (campaign, claims) in undersold {
        let free = free.get(&campaign).copied().unwrap_or(0);
        finding.breaks(|| {
            format!("campaign {campaign}: {claims} claims were refused as sold out with {free} coupons free")
        });
    }
    finding
}

fn repeated_claims_agree(answers: &Answers, restocked: &HashSet<CampaignId>) -> Finding {
    let mut finding = Finding::new("repeated_claims_agree", "A repeated claim gets the same answer.");
    let mut first: HashMap<ClaimKey, Outcome> = HashMap::new();
    for (claim, outcome) in &answers.outcomes {
        let before = *first.entry(*claim).or_insert(*outcome);
        finding.check(1);
        // After a restock, an account that was refused may claim again, and get a coupon.
        let was_refused = [before, *outcome].contains(&Outcome::SoldOut) && restocked.contains(&claim.campaign_id);
        if before != *outcome && !was_refused {
            finding.breaks(|| format!("account {} was answered {before:?} and {outcome:?}", claim.account_id));
        }
    }
    finding
}
