//! Applies the load of a crowd to one API, waits for every outcome and audits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use coupon_core::audit::{self, Answers};
use coupon_core::mysql::{Mysql, campaigns};
use coupon_core::terminal::{self, print, printable};
use coupon_core::{CampaignId, ClaimKey, Outcome};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use crate::crowd::client::{self, Client, Target};
use crate::crowd::{Campaigns, Course, Crowd, Order, Seen};
use crate::lab::campaigns::make_campaign;
use crate::lab::stand::Stand;
use crate::output::{Results, row, table};

/// The audit verdict of a load when no invariant is broken.
const CLEAN: &str = "clean";

#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Address of the API.
    #[arg(long, value_parser = client::address, default_value = "http://127.0.0.1:8080")]
    pub url: Url,
    /// The campaign to claim from; the first one, if there are several.
    #[arg(long, value_name = "ID")]
    pub campaign: CampaignId,
    #[command(flatten)]
    pub crowd: Crowd,
}

/// The result of a load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadResult {
    /// The name of the load: a way, or a way with settings of its own.
    #[serde(rename = "way")]
    pub name: String,
    /// The first campaign.
    pub campaign_id: CampaignId,
    /// How many campaigns there were.
    pub campaigns: u64,
    /// The total stock of these campaigns.
    pub coupons: u64,
    /// Claims sent.
    pub claims: u64,
    /// Accounts that got a coupon.
    pub issued: u64,
    /// Accounts that were told "sold out".
    pub sold_out: u64,
    /// Claims after an account's first, which got the same answer as the first.
    pub repeated: u64,
    /// Claims answered with an error, or not at all.
    pub errors: u64,
    /// Of these, the claims that the API refused for now, with 429 or 503.
    pub refused: u64,
    /// The time from the first claim to the answer of the last.
    pub accept_seconds: f64,
    /// The time from the first claim to the last outcome.
    pub outcome_seconds: f64,
    /// Half of the claims were answered within this.
    pub p50_ms: f64,
    /// 99 % of the claims were answered within this.
    pub p99_ms: f64,
    /// Half of the claims had their outcome within this.
    pub outcome_p50_ms: f64,
    /// 99 % had their outcome within this.
    pub outcome_p99_ms: f64,
    /// `clean`, or the names of the invariants that are broken.
    pub audit: String,
    /// 99.9 % of the claims were answered within this.
    pub p999_ms: f64,
    /// 99.9 % had their outcome within this.
    pub outcome_p999_ms: f64,
    /// Outcomes per second in the last tenth of the claims / in the first tenth.
    pub last_tenth_to_first: f64,
    /// Share of the claims that were traced.
    pub trace_ratio: f64,
    /// Some of the traces.
    pub trace_ids: Vec<String>,
    /// The status of the first answer that let a claim in.
    #[serde(skip)]
    pub lets_in_with: Option<StatusCode>,
    /// Some of the errors.
    pub error_examples: Vec<String>,
    /// The broken invariants that the audit found, with examples.
    pub findings: Vec<audit::Finding>,
    /// How far the load was from first come, first served.
    #[serde(flatten)]
    pub order: Order,
    /// Everything observed.
    #[serde(skip)]
    pub course: Option<Box<Course>>,
}

impl LoadResult {
    fn new(name: &str, campaigns: Campaigns, trace_ratio: f64, seen: Seen, audits: &[audit::Report]) -> Self {
        let Seen { claims, answered_in, decided_in, reported, figures } = seen;
        let (issued, sold_out) = by_account(&reported);
        let found = audits.iter().flat_map(|audit| &audit.invariants);
        let findings: Vec<audit::Finding> = found.filter(|finding| finding.broken > 0).cloned().collect();
        Self {
            name: name.to_owned(),
            campaign_id: campaigns.first,
            campaigns: campaigns.count,
            coupons: audits.iter().flat_map(|audit| &audit.campaigns).map(|stock| stock.coupons).sum(),
            claims: claims as u64,
            issued,
            sold_out,
            repeated: reported.outcomes.len() as u64 - issued - sold_out,
            errors: figures.errors,
            refused: figures.refused,
            accept_seconds: answered_in.as_secs_f64(),
            outcome_seconds: decided_in.as_secs_f64(),
            p50_ms: figures.to_answer_ms.p50,
            p99_ms: figures.to_answer_ms.p99,
            outcome_p50_ms: figures.to_outcome_ms.p50,
            outcome_p99_ms: figures.to_outcome_ms.p99,
            audit: verdict(&findings),
            p999_ms: figures.to_answer_ms.p999,
            outcome_p999_ms: figures.to_outcome_ms.p999,
            last_tenth_to_first: figures.last_tenth_to_first,
            trace_ratio,
            trace_ids: figures.trace_ids,
            lets_in_with: figures.lets_in_with,
            error_examples: figures.error_examples,
            findings,
            order: figures.course.order,
            course: Some(Box::new(figures.course)),
        }
    }

    /// Whether the audit found nothing, even if claims were answered with an error.
    pub fn keeps_promises(&self) -> bool {
        self.audit == CLEAN
    }

    /// Whether the audit found nothing and every claim was answered.
    pub fn is_clean(&self) -> bool {
        self.keeps_promises() && self.errors == 0
    }

    /// Claims per second, up to the last outcome.
    pub fn claims_per_second(&self) -> f64 {
        self.claims as f64 / self.outcome_seconds
    }
}

/// Applies the load to an API and audits the result.
pub async fn run(mysql: &Mysql, name: &str, arguments: &Arguments) -> anyhow::Result<LoadResult> {
    let Arguments { url, campaign, crowd } = arguments;
    let target = Target::new(url)?.trusting(&crowd.tls);
    let campaigns = Campaigns { first: *campaign, count: crowd.campaigns };
    let seen = crowd.claim(&target, campaigns, name).await?;
    let audits = audit_each(mysql, campaigns, &seen.reported).await?;
    Ok(LoadResult::new(name, campaigns, crowd.trace_ratio, seen, &audits))
}

/// Waits until the services have nothing left to do: once a campaign is sold out, its clients are answered before their
/// claims reach the end of the queue, and whatever runs next would have to work them off. A claim at the end of the queue
/// shows when that is.
pub async fn drain(mysql: &Mysql, stand: &Stand) -> anyhow::Result<()> {
    let campaign = make_campaign(mysql, "the end of the queue", 1).await?;
    let last = Arguments { url: stand.api().url.clone(), campaign, crowd: Crowd::of(1, 1, 0.0) };
    let result = run(mysql, "the end of the queue", &last).await?;
    ensure!(result.is_clean() && result.issued == 1, "the queue does not empty: {:?}", result.error_examples);
    Ok(())
}

/// Fails before any load, with a reason that names the option with the address, if the API lacks any of the campaigns.
/// Otherwise the audit would blame an API that uses another database for coupons that nobody holds.
pub async fn probe(mysql: &Mysql, option: &str, arguments: &Arguments) -> anyhow::Result<()> {
    const ELSEWHERE: &str = "--mysql-url (COUPON_MYSQL_URL) may name another database than that of the API";

    // An API that was asked for a campaign just before it existed remembers for a second that it did not.
    const SEEN_WITHIN: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(100);

    #[derive(Deserialize)]
    struct Seen {
        name: String,
        issued: u64,
    }

    let Arguments { url, campaign, crowd } = arguments;
    let address = mysql.address();
    let mut client = Client::impatient(Target::new(url)?.trusting(&crowd.tls));
    let mut conn = mysql.connection().await?;
    let mut has_issued = false;
    for campaign in (Campaigns { first: *campaign, count: crowd.campaigns }).ids() {
        let ours = campaigns::find(&mut conn, campaign).await?;
        let ours = ours.with_context(|| format!("there is no campaign {campaign} in {address}; {ELSEWHERE}"))?;
        let path = format!("/v1/campaigns/{campaign}");
        let seen_by = Instant::now() + SEEN_WITHIN;
        let (status, body) = loop {
            let answer = client.send(Method::GET, &path, String::new(), []).await;
            let answer = answer.with_context(|| format!("{option} {url}"))?;
            if answer.0 != StatusCode::NOT_FOUND || Instant::now() > seen_by {
                break answer;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let body = String::from_utf8_lossy(&body);
        let seen: Option<Seen> = serde_json::from_str(&body).ok();
        match status {
            StatusCode::NOT_FOUND if body.contains("campaign_not_found") => {
                bail!("{option} {url}: there is no campaign {campaign}, but in {address}; {ELSEWHERE}")
            }
            StatusCode::OK if seen.as_ref().is_some_and(|seen| seen.name == ours.name) => {
                has_issued |= seen.is_some_and(|seen| seen.issued > 0);
            }
            StatusCode::OK => {
                bail!("{option} {url}: campaign {campaign} is another one than in {address}; {ELSEWHERE}")
            }
            _ => bail!("{option} {url}: GET {path} answered {status}: {body}"),
        }
    }
    if has_issued {
        terminal::note(&"coupons have been issued there before, so this load does not show who came first");
    }
    Ok(())
}

async fn audit_each(mysql: &Mysql, campaigns: Campaigns, reported: &Answers) -> anyhow::Result<Vec<audit::Report>> {
    let mut by_campaign: BTreeMap<CampaignId, Answers> = BTreeMap::new();
    for campaign in campaigns.ids() {
        by_campaign.insert(campaign, Answers { outcomes: Vec::new(), no_restock: reported.no_restock });
    }
    for &(claim, outcome) in &reported.outcomes {
        by_campaign.entry(claim.campaign_id).or_default().outcomes.push((claim, outcome));
    }
    let mut reports = Vec::with_capacity(by_campaign.len());
    for (campaign, reported) in by_campaign {
        reports.push(audit::audit(mysql, Some(campaign), reported, None).await?);
    }
    Ok(reports)
}

/// How many accounts were issued a coupon, and how many were told "sold out".
fn by_account(reported: &Answers) -> (u64, u64) {
    let mut accounts: HashMap<ClaimKey, Outcome> = HashMap::new();
    for &(claim, outcome) in &reported.outcomes {
        accounts.entry(claim).or_insert(outcome);
    }
    let count = |wanted: fn(&Outcome) -> bool| accounts.values().filter(|outcome| wanted(outcome)).count() as u64;
    (count(|outcome| matches!(outcome, Outcome::Issued { .. })), count(|outcome| *outcome == Outcome::SoldOut))
}

fn verdict(findings: &[audit::Finding]) -> String {
    let broken: BTreeSet<&str> = findings.iter().map(|finding| finding.invariant).collect();
    if broken.is_empty() {
        return String::from(CLEAN);
    }
    format!("broken: {}", broken.into_iter().collect::<Vec<_>>().join(", "))
}

/// Prints loads side by side, in one column each.
impl Results for Vec<LoadResult> {
    fn print(&self) -> io::Result<()> {
        let mut table = table([String::new()].into_iter().chain(self.iter().map(|load| load.name.clone())));
        for (name, figure) in ROWS {
            table.add_row(row(name, self.iter().map(figure)));
        }
        print(&table)?;
        self.iter().try_for_each(LoadResult::print_troubles)
    }

    fn is_clean(&self) -> bool {
        self.iter().all(LoadResult::is_clean)
    }
}

type Figure = fn(&LoadResult) -> String;

const ROWS: [(&str, Figure); 14] = [
    ("coupons", |load| load.coupons.to_string()),
    ("claims", |load| load.claims.to_string()),
    ("issued", |load| load.issued.to_string()),
    ("sold out", |load| load.sold_out.to_string()),
    ("repeated, same answer", |load| load.repeated.to_string()),
    ("errors", |load| load.errors.to_string()),
    ("seconds to accept", |load| format!("{:.2}", load.accept_seconds)),
    ("seconds to the last outcome", |load| format!("{:.2}", load.outcome_seconds)),
    ("claims a second", |load| format!("{:.0}", load.claims_per_second())),
    ("p50 / p99 to answer, ms", |load| format!("{:.1} / {:.1}", load.p50_ms, load.p99_ms)),
    ("p50 / p99 to outcome, ms", |load| format!("{:.1} / {:.1}", load.outcome_p50_ms, load.outcome_p99_ms)),
    ("coupons that went to somebody later", |load| format!("{:.1} %", load.order.displaced * 100.0)),
    ("traced", |load| format!("{} %", load.trace_ratio * 100.0)),
    ("audit", |load| load.audit.clone()),
];

impl LoadResult {
    fn print_troubles(&self) -> io::Result<()> {
        let name = &self.name;
        for example in &self.error_examples {
            print(&format!("{name}: error: {}", printable(example)))?;
        }
        for finding in &self.findings {
            print(&format!("{name}: {} is broken {} times: {}", finding.invariant, finding.broken, finding.says))?;
            for example in &finding.examples {
                print(&format!("  {example}"))?;
            }
        }
        Ok(())
    }
}
