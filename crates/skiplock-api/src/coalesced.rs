//! `coalesced`: claims that wait in this process at the same moment share one transaction: n rows, one UPDATE, one
//! commit.
//!
//! Invariants: a free worker takes what waits and never waits for more, so a lone claim is as quick as any, and goes by the
//! single statement; instances
//! skip each other's rows, so any number of them work side by side; every claim of a group is answered, whatever befalls
//! the group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use coupon_core::mysql::{Mysql, coupons, sql};
use coupon_core::telemetry::metrics;
use coupon_core::{AccountId, CampaignId, ClaimKey, CouponId, Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::strategy::{CONFLICTS_FOR, Claimed, Group, pauses_after_conflicts, without_rows};
use crate::{single_statement, steps};

/// Claims that may wait for a worker; further ones are refused.
const WAITING_MAX: usize = 16_384;

/// A claim waits no longer than this in all.
const DEADLINE: Duration = Duration::from_secs(15);

struct Waiting {
    claim: ClaimKey,
    is_sampled: bool,
    answer: oneshot::Sender<(Result<Claimed>, Arc<Group>)>,
}

/// The workers that take groups. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    waiting: flume::Sender<Waiting>,
}

impl Groups {
    /// Starts the workers on the current runtime; they end when the last clone is dropped.
    pub fn start(mysql: &Mysql, workers: usize, group_max: usize) -> Self {
        let (waiting, claims) = flume::bounded(WAITING_MAX);
        for _ in 0..workers {
            tokio::spawn(work(mysql.clone(), claims.clone(), group_max));
        }
        Self { waiting }
    }

    /// Takes a coupon for an account, together with whoever claims at the same moment: the group, if it came to one.
    pub async fn claim(&self, claim: ClaimKey, is_sampled: bool) -> (Result<Claimed>, Option<Arc<Group>>) {
        let (answer, answered) = oneshot::channel();
        if self.waiting.try_send(Waiting { claim, is_sampled, answer }).is_err() {
            return (Err(Error::Full { what: "the line of claims" }), None);
        }
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok((claimed, group))) => (claimed, Some(group)),
            Ok(Err(_)) => (Err(Error::Broken(String::from("a group ended without an answer"))), None),
            Err(_) => (Err(Error::Deadline { what: "a claim in line", limit: DEADLINE }), None),
        }
    }
}

/// One worker: takes what waits, up to a group, again and again.
async fn work(mysql: Mysql, claims: flume::Receiver<Waiting>, group_max: usize) {
    while let Ok(first) = claims.recv_async().await {
        let mut taken = vec![first];
        taken.extend(claims.try_iter().take(group_max - 1));
        // Whoever stopped waiting claims again if they still want a coupon.
        taken.retain(|waiting| !waiting.answer.is_closed());
        for (campaign, taken) in by_campaign(taken) {
            let group = Group::new(taken.len(), taken.iter().any(|waiting| waiting.is_sampled));
            let claimed = claim_all(&mysql, &group, campaign, distinct(&taken)).await;
            answer(taken, &group, claimed);
        }
    }
}

/// Claims for a group, again for those who lost against others.
async fn claim_all(
    mysql: &Mysql,
    group: &Arc<Group>,
    campaign: CampaignId,
    accounts: Vec<AccountId>,
) -> Result<HashMap<AccountId, Claimed>> {
    let mut claimed: HashMap<AccountId, Claimed> = HashMap::with_capacity(accounts.len());
    let mut pauses = pauses_after_conflicts().build();
    let began = Instant::now();
    loop {
        let open: Vec<AccountId> = accounts.iter().copied().filter(|account| !claimed.contains_key(account)).collect();
        let work = async move |mut conn: Conn, group: Arc<Group>| claim_group(&mut conn, &group, campaign, &open).await;
        match group.run(mysql, work).await {
            Ok(more) => claimed.extend(more),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        if claimed.len() == accounts.len() {
            return Ok(claimed);
        }
        metrics::retry(Error::Held.class().name());
        // A conflict may be five seconds of waiting for a lock.
        let pause = pauses.next().filter(|_| began.elapsed() < CONFLICTS_FOR);
        tokio::time::sleep(pause.ok_or(Error::Held)?).await;
    }
}

fn by_campaign(taken: Vec<Waiting>) -> HashMap<CampaignId, Vec<Waiting>> {
    let mut groups: HashMap<CampaignId, Vec<Waiting>> = HashMap::new();
    for waiting in taken {
        groups.entry(waiting.claim.campaign_id).or_default().push(waiting);
    }
    groups
}

/// Each account once, in order of arrival.
fn distinct(taken: &[Waiting]) -> Vec<AccountId> {
    let mut seen = HashSet::with_capacity(taken.len());
    taken.iter().map(|waiting| waiting.claim.account_id).filter(|account| seen.insert(*account)).collect()
}

/// Answers everyone. Of several claims of one account the first is the one that was issued the coupon.
fn answer(taken: Vec<Waiting>, group: &Arc<Group>, claimed: Result<HashMap<AccountId, Claimed>>) {
    let mut claimed = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            tracing::warn!(%error, claims = taken.len(), "a group of claims failed");
            // No answer is an answer for most: they share one failure.
            return refuse(taken, group, &error);
        }
    };
    for Waiting { claim, answer, .. } in taken {
        let got = claimed.get_mut(&claim.account_id).map_or_else(
            || Err(Error::Broken(String::from("a claim of the group has no answer"))),
            |claimed| {
                let now = *claimed;
                if let Claimed::Issued(coupon) = now {
                    *claimed = Claimed::Held(coupon);
                }
                Ok(now)
            },
        );
        // Who has gone meanwhile needs no answer; a repeated claim gets the same coupon.
        let _ = answer.send((got, Arc::clone(group)));
    }
}

fn refuse(taken: Vec<Waiting>, group: &Arc<Group>, error: &Error) {
    for waiting in taken {
        let _ = waiting.answer.send((Err(error.shared()), Arc::clone(group)));
    }
}

/// Claims for a group of accounts in one transaction. Those missing in the answer must try again; an error leaves nothing
/// half done.
async fn claim_group(
    conn: &mut Conn,
    group: &Group,
    campaign: CampaignId,
    accounts: &[AccountId],
) -> Result<HashMap<AccountId, Claimed>> {
    // Alone, a claim is quicker by the one statement that does it all.
    if let &[account_id] = accounts {
        let claim = ClaimKey { campaign_id: campaign, account_id };
        return Ok(HashMap::from([(account_id, single_statement::attempt(conn, group, claim).await?)]));
    }
    let mut claimed = issue_rows(conn, group, campaign, accounts).await?;
    let without: Vec<AccountId> = accounts.iter().copied().filter(|account| !claimed.contains_key(account)).collect();
    if !without.is_empty() {
        claimed.extend(without_rows(conn, group, campaign, &without).await?);
    }
    Ok(claimed)
}

/// Locks as many rows as there are accounts, or as there are to be had, and writes the first accounts into them.
async fn issue_rows(
    conn: &mut Conn,
    group: &Group,
    campaign: CampaignId,
    accounts: &[AccountId],
) -> Result<HashMap<AccountId, Claimed>> {
    let mut transaction = group.step(&steps::BEGIN, conn.start_transaction(TxOpts::default())).await?;
    let lock = transaction.query(sql::lock_free_coupons(campaign, accounts.len()));
    let ids: Vec<Uuid> = group.step(&steps::LOCK, lock).await?;
    let mut rows: Vec<(CouponId, AccountId)> = ids.into_iter().map(CouponId).zip(accounts.iter().copied()).collect();
    if rows.is_empty() {
        group.step(&steps::ROLLBACK, transaction.rollback()).await?;
        return Ok(HashMap::new());
    }
    // Ordered by account as well as by row: two groups with the same accounts then meet in one order, not crosswise.
    let (mut coupons, mut claimers): (Vec<CouponId>, Vec<AccountId>) = rows.iter().copied().unzip();
    coupons.sort_unstable();
    claimers.sort_unstable();
    rows = coupons.into_iter().zip(claimers).collect();

    group.step(&steps::UPDATE, transaction.query_drop(sql::issue(&rows))).await?;
    let all_written = transaction.affected_rows() == rows.len() as u64;
    let claimed = if all_written {
        rows.iter().map(|&(coupon, account)| (account, Claimed::Issued(coupon))).collect()
    } else {
        group.step(&steps::HELD, held_or_issued(&mut transaction, campaign, &rows)).await?
    };
    group.step(&steps::COMMIT, transaction.commit()).await?;
    Ok(claimed)
}

/// Some accounts held a coupon already: looks up which, inside the transaction, which sees its own rows.
async fn held_or_issued(
    transaction: &mut mysql_async::Transaction<'_>,
    campaign: CampaignId,
    rows: &[(CouponId, AccountId)],
) -> Result<HashMap<AccountId, Claimed>> {
    let claims: Vec<ClaimKey> =
        rows.iter().map(|&(_, account_id)| ClaimKey { campaign_id: campaign, account_id }).collect();
    let held = coupons::coupons_of(transaction, &claims).await?;
    let ours: HashSet<(CouponId, AccountId)> = rows.iter().copied().collect();
    Ok(held
        .into_iter()
        .map(|(claim, coupon)| {
            let is_ours = ours.contains(&(coupon, claim.account_id));
            (claim.account_id, if is_ours { Claimed::Issued(coupon) } else { Claimed::Held(coupon) })
        })
        .collect())
}
