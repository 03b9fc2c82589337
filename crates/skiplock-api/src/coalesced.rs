//! `coalesced`: claims that wait in this process at the same moment share one transaction: n rows, one UPDATE, one
//! commit.
//!
//! Invariants: a free worker takes what waits and never waits for more, so a lone claim is as quick as any, and goes by
//! the single statement; claims of many campaigns share a group, so a thousand small campaigns cost about what a large one
//! does; instances skip each other's rows, so any number of them work side by side; every claim of a group is answered,
//! whatever befalls the group.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use coupon_core::mysql::sql::{self, Wanted};
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::telemetry::metrics;
use coupon_core::{CampaignId, ClaimKey, CouponId, Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::marks::Marks;
use crate::strategy::{CONFLICTS_FOR, Claimed, Group, Look, pauses_after_conflicts, without_rows};
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
        let marks = Marks::default();
        for _ in 0..workers {
            tokio::spawn(work(mysql.clone(), marks.clone(), claims.clone(), group_max));
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
async fn work(mysql: Mysql, marks: Marks, claims: flume::Receiver<Waiting>, group_max: usize) {
    while let Ok(first) = claims.recv_async().await {
        let mut taken = vec![first];
        taken.extend(claims.try_iter().take(group_max - 1));
        // Whoever stopped waiting claims again if they still want a coupon.
        taken.retain(|waiting| !waiting.answer.is_closed());
        if taken.is_empty() {
            continue;
        }
        let group = Group::new(taken.len(), taken.iter().any(|waiting| waiting.is_sampled));
        let claimed = claim_all(&mysql, &marks, &group, distinct(&taken)).await;
        answer(taken, &group, claimed);
    }
}

/// Claims for a group, again for those who lost against others.
async fn claim_all(
    mysql: &Mysql,
    marks: &Marks,
    group: &Arc<Group>,
    claims: Vec<ClaimKey>,
) -> Result<HashMap<ClaimKey, Claimed>> {
    let mut claimed = HashMap::with_capacity(claims.len());
    let mut pauses = pauses_after_conflicts().build();
    let began = Instant::now();
    loop {
        let (open, marks) = (without_answer(&claims, &claimed), marks.clone());
        let work = async move |mut conn: Conn, group: Arc<Group>| claim_group(&mut conn, &group, &marks, &open).await;
        match group.run(mysql, work).await {
            Ok(more) => claimed.extend(more),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        if claimed.len() == claims.len() {
            return Ok(claimed);
        }
        metrics::retry(Error::Held.class().name());
        // A conflict may be five seconds of waiting for a lock.
        let pause = pauses.next().filter(|_| began.elapsed() < CONFLICTS_FOR);
        tokio::time::sleep(pause.ok_or(Error::Held)?).await;
    }
}

fn without_answer(claims: &[ClaimKey], claimed: &HashMap<ClaimKey, Claimed>) -> Vec<ClaimKey> {
    claims.iter().copied().filter(|claim| !claimed.contains_key(claim)).collect()
}

/// Each claim once, in order of arrival.
fn distinct(taken: &[Waiting]) -> Vec<ClaimKey> {
    let mut seen = HashSet::with_capacity(taken.len());
    taken.iter().map(|waiting| waiting.claim).filter(|claim| seen.insert(*claim)).collect()
}

/// Answers everyone. Of several claims of one account the first is the one that was issued the coupon.
fn answer(taken: Vec<Waiting>, group: &Arc<Group>, claimed: Result<HashMap<ClaimKey, Claimed>>) {
    let mut claimed = match claimed {
        Ok(claimed) => claimed,
        Err(error) => {
            tracing::warn!(%error, claims = taken.len(), "a group of claims failed");
            // No answer is an answer for most: they share one failure.
            return refuse(taken, group, &error);
        }
    };
    for Waiting { claim, answer, .. } in taken {
        let got = claimed.get_mut(&claim).map_or_else(
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

/// Claims for a group in one transaction: behind the marks and, for those who found too little there, from the beginning
/// in another. Those missing in the answer must try again; an error leaves nothing half done.
async fn claim_group(
    conn: &mut Conn,
    group: &Group,
    marks: &Marks,
    claims: &[ClaimKey],
) -> Result<HashMap<ClaimKey, Claimed>> {
    if let &[claim] = claims {
        return Ok(HashMap::from([(claim, claim_alone(conn, group, marks, claim).await?)]));
    }
    let mut claimed = HashMap::with_capacity(claims.len());
    let mut open = claims.to_vec();
    for _ in 0..2 {
        let wanted = wanted(&open, marks);
        claimed.extend(issue_rows(conn, group, marks, &wanted, &open).await?);
        open = without_answer(claims, &claimed);
        if open.is_empty() || wanted.iter().all(|wanted| wanted.behind.is_none()) {
            break;
        }
    }
    if !open.is_empty() {
        claimed.extend(without_rows(conn, group, &open).await?);
    }
    Ok(claimed)
}

/// A claim alone in its group is quicker by the one statement that does it all.
async fn claim_alone(conn: &mut Conn, group: &Group, marks: &Marks, claim: ClaimKey) -> Result<Claimed> {
    let look = marks.of(claim.campaign_id).map_or(Look::FromTheBeginning, Look::Behind);
    let claimed = single_statement::attempt(conn, group, claim, look).await?;
    if let Claimed::Issued(coupon) = claimed {
        marks.put(claim.campaign_id, coupon);
    }
    Ok(claimed)
}

/// As many coupons of each campaign as there are claims.
fn wanted(claims: &[ClaimKey], marks: &Marks) -> Vec<Wanted> {
    let mut counts: BTreeMap<CampaignId, usize> = BTreeMap::new();
    for claim in claims {
        *counts.entry(claim.campaign_id).or_default() += 1;
    }
    let wanted = |(campaign_id, count)| Wanted { campaign_id, count, behind: marks.of(campaign_id) };
    counts.into_iter().map(wanted).collect()
}

/// Locks as many rows as wanted, or as there are to be had, and writes the first accounts into them.
async fn issue_rows(
    conn: &mut Conn,
    group: &Group,
    marks: &Marks,
    wanted: &[Wanted],
    claims: &[ClaimKey],
) -> Result<HashMap<ClaimKey, Claimed>> {
    let is_behind = wanted.iter().any(|wanted| wanted.behind.is_some());
    let step = if is_behind { &steps::LOCK_BEHIND } else { &steps::LOCK };
    let mut transaction = group.step(&steps::BEGIN, conn.start_transaction(TxOpts::default())).await?;
    let locked = group.step(step, transaction.query(sql::lock_free_coupons(wanted))).await?;
    let rows = pair(claims, locked);
    marks.learn(wanted, &rows);
    if rows.is_empty() {
        group.step(&steps::ROLLBACK, transaction.rollback()).await?;
        return Ok(HashMap::new());
    }
    group.step(&steps::UPDATE, transaction.query_drop(sql::issue(&rows))).await?;
    let all_written = transaction.affected_rows() == rows.len() as u64;
    let claimed = if all_written {
        rows.iter().map(|&(claim, coupon)| (claim, Claimed::Issued(coupon))).collect()
    } else {
        group.step(&steps::HELD, held_or_issued(&mut transaction, &rows)).await?
    };
    group.step(&steps::COMMIT, transaction.commit()).await?;
    Ok(claimed)
}

/// The rows of a campaign for the first of its claims. In order of accounts as well as of rows: two groups with the same
/// accounts then meet in one order, not crosswise.
fn pair(claims: &[ClaimKey], mut locked: Vec<(u64, Uuid)>) -> Vec<(ClaimKey, CouponId)> {
    let mut left: HashMap<CampaignId, usize> = HashMap::new();
    for (campaign, _) in &locked {
        *left.entry(CampaignId(*campaign)).or_default() += 1;
    }
    let mut take = |claim: &ClaimKey| match left.get_mut(&claim.campaign_id) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    let mut claims: Vec<ClaimKey> = claims.iter().copied().filter(|claim| take(claim)).collect();
    claims.sort_unstable();
    locked.sort_unstable();
    claims.into_iter().zip(locked).map(|(claim, (_, id))| (claim, CouponId(id))).collect()
}

/// Some accounts held a coupon already: looks up which, inside the transaction, which sees its own rows.
async fn held_or_issued(
    transaction: &mut mysql_async::Transaction<'_>,
    rows: &[(ClaimKey, CouponId)],
) -> Result<HashMap<ClaimKey, Claimed>> {
    let claims: Vec<ClaimKey> = rows.iter().map(|(claim, _)| *claim).collect();
    let held = coupons::coupons_of(transaction, &claims).await?;
    let ours: HashMap<ClaimKey, CouponId> = rows.iter().copied().collect();
    let told = |(claim, coupon)| {
        let is_ours = ours.get(&claim) == Some(&coupon);
        (claim, if is_ours { Claimed::Issued(coupon) } else { Claimed::Held(coupon) })
    };
    Ok(held.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use coupon_core::AccountId;

    use super::*;

    #[test]
    fn rows_go_to_the_first_claims_of_their_campaign() {
        let claim = |campaign, account| ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
        let row = |campaign, id| (campaign, Uuid::from_u128(id));

        let rows = pair(
            &[claim(2, 9), claim(1, 7), claim(2, 8), claim(1, 3), claim(2, 1), claim(3, 5)],
            vec![row(2, 20), row(1, 11), row(2, 21), row(1, 10)],
        );

        let coupon = |id| CouponId(Uuid::from_u128(id));
        let expected = [
            (claim(1, 3), coupon(10)),
            (claim(1, 7), coupon(11)),
            (claim(2, 8), coupon(20)),
            (claim(2, 9), coupon(21)),
        ];
        assert_eq!(rows, expected);
    }
}
