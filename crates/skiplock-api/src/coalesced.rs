//! `coalesced`: claims that wait in this process at the same moment share one statement, and its commit.
//!
//! Invariants: a free worker takes what waits and never waits for more, so a lone claim is as quick as any; claims of many
//! campaigns share a group, so a thousand small campaigns cost about what a large one does; instances pass over each
//! other's rows, so any number of them work side by side; every claim of a group is answered, whatever befalls the group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use coupon_core::mysql::{Mysql, coupons, sql};
use coupon_core::telemetry::metrics;
use coupon_core::{ClaimKey, CouponId, Error, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::oneshot;

use crate::ahead::Ahead;
use crate::steps;
use crate::strategy::{CONFLICTS_FOR, Claimed, Group, pauses_after_conflicts, without_rows};

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
        let ahead = Ahead::default();
        for _ in 0..workers {
            tokio::spawn(work(mysql.clone(), ahead.clone(), claims.clone(), group_max));
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
async fn work(mysql: Mysql, ahead: Ahead, claims: flume::Receiver<Waiting>, group_max: usize) {
    while let Ok(first) = claims.recv_async().await {
        let mut taken = vec![first];
        taken.extend(claims.try_iter().take(group_max - 1));
        // Whoever stopped waiting claims again if they still want a coupon.
        taken.retain(|waiting| !waiting.answer.is_closed());
        if taken.is_empty() {
            continue;
        }
        let group = Group::new(taken.len(), taken.iter().any(|waiting| waiting.is_sampled));
        let claimed = claim_all(&mysql, &ahead, &group, distinct(&taken)).await;
        answer(taken, &group, claimed);
    }
}

/// Claims for a group, again for those who lost against others.
async fn claim_all(
    mysql: &Mysql,
    ahead: &Ahead,
    group: &Arc<Group>,
    claims: Vec<ClaimKey>,
) -> Result<HashMap<ClaimKey, Claimed>> {
    let mut claimed = HashMap::with_capacity(claims.len());
    let mut pauses = pauses_after_conflicts().build();
    let began = Instant::now();
    loop {
        let (open, ahead) = (without_answer(&claims, &claimed), ahead.clone());
        let work = async move |mut conn: Conn, group: Arc<Group>| claim_group(&mut conn, &group, &ahead, &open).await;
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

/// One try for a group. Those missing in the answer must try again; an error leaves nothing half done.
async fn claim_group(
    conn: &mut Conn,
    group: &Group,
    ahead: &Ahead,
    claims: &[ClaimKey],
) -> Result<HashMap<ClaimKey, Claimed>> {
    let taken = ahead.take(conn, group, claims).await?;
    let mut claimed = issue(conn, group, ahead, &taken).await?;
    let tried: HashSet<ClaimKey> = taken.into_iter().map(|(claim, _)| claim).collect();
    let without: Vec<ClaimKey> = claims.iter().copied().filter(|claim| !tried.contains(claim)).collect();
    if !without.is_empty() {
        claimed.extend(without_rows(conn, group, &without).await?);
    }
    Ok(claimed)
}

/// Writes the accounts into these rows, as far as nobody else holds them, all in one statement.
async fn issue(
    conn: &mut Conn,
    group: &Group,
    ahead: &Ahead,
    rows: &[(ClaimKey, CouponId)],
) -> Result<HashMap<ClaimKey, Claimed>> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    group.step(&steps::ISSUE, conn.query_drop(sql::issue_skip_locked(rows))).await?;
    if conn.affected_rows() == rows.len() as u64 {
        return Ok(rows.iter().map(|&(claim, coupon)| (claim, Claimed::Issued(coupon))).collect());
    }
    // Some accounts held a coupon already, or some rows were others'.
    let claims: Vec<ClaimKey> = rows.iter().map(|(claim, _)| *claim).collect();
    let held = group.step(&steps::HELD, coupons::coupons_of(conn, &claims)).await?;
    let mut lost: HashMap<ClaimKey, CouponId> = rows.iter().copied().collect();
    let mut told = |(claim, coupon)| {
        let is_ours = lost.remove(&claim) == Some(coupon);
        (claim, if is_ours { Claimed::Issued(coupon) } else { Claimed::Held(coupon) })
    };
    let claimed = held.into_iter().map(&mut told).collect();
    ahead.move_away(&lost).await;
    Ok(claimed)
}
