//! `coalesced`: claims waiting in this process at the same moment share one statement and its commit.
//!
//! Invariants: a free worker takes the waiting claims and never waits for more, so a single claim is as fast as under
//! any other strategy; claims of many campaigns share a group, so a thousand small campaigns cost about as much as one
//! large one; instances skip each other's rows, so any number of them can run; every claim of a group is answered,
//! whatever happens to the group.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff};
use coupon_core::mysql::conflicts::{Lost, pauses_after_conflicts};
use coupon_core::mysql::{Mysql, coupons};
use coupon_core::telemetry::metrics;
use coupon_core::{CampaignId, ClaimKey, CouponId, Error, Result};
use flume::{Receiver, Sender, WeakSender};
use mysql_async::Conn;
use tokio::sync::oneshot;

use crate::ahead::Ahead;
use crate::group::{Claimed, Group, without_rows};
use crate::steps;

/// Claims that may wait for a worker; further ones are refused.
const WAITING_MAX: usize = 16_384;

/// The longest a claim waits in total.
const DEADLINE: Duration = Duration::from_secs(15);

struct Waiting {
    claim: ClaimKey,
    is_sampled: bool,
    lost: Lost,
    pauses: ExponentialBackoff,
    answer: oneshot::Sender<(Result<Claimed>, Arc<Group>)>,
}

/// The workers that take groups. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    waiting: Sender<Waiting>,
}

impl Groups {
    /// Starts the workers on the current runtime; they end when the last clone of `Groups` is dropped.
    pub fn start(mysql: &Mysql, workers: usize, group_max: usize) -> Self {
        let (waiting, claims) = flume::bounded(WAITING_MAX);
        let ahead = Ahead::default();
        for _ in 0..workers {
            let (mysql, ahead, again) = (mysql.clone(), ahead.clone(), waiting.downgrade());
            tokio::spawn(Worker { mysql, ahead, again }.run(claims.clone(), group_max));
        }
        Self { waiting }
    }

    /// Takes a coupon for an account, together with the other claims of the same moment. Also returns the group, if the
    /// claim got into one.
    pub async fn claim(&self, claim: ClaimKey, is_sampled: bool) -> (Result<Claimed>, Option<Arc<Group>>) {
        let (answer, answered) = oneshot::channel();
        let (lost, pauses) = (Lost::default(), pauses_after_conflicts().build());
        if self.waiting.try_send(Waiting { claim, is_sampled, lost, pauses, answer }).is_err() {
            return (Err(Error::Full { what: "the line of claims" }), None);
        }
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok((claimed, group))) => (claimed, Some(group)),
            Ok(Err(_)) => (Err(Error::Broken(String::from("a group ended without an answer"))), None),
            Err(_) => (Err(Error::Deadline { what: "a claim in line", limit: DEADLINE }), None),
        }
    }
}

struct Worker {
    mysql: Mysql,
    ahead: Ahead,
    /// The line that claims go back to if they must try again.
    again: WeakSender<Waiting>,
}

impl Worker {
    /// Takes the waiting claims, up to a group at a time, until the line is closed.
    async fn run(self, claims: Receiver<Waiting>, group_max: usize) {
        while let Ok(first) = claims.recv_async().await {
            let mut taken = vec![first];
            taken.extend(claims.try_iter().take(group_max - 1));
            // A client that stopped waiting claims again if it still wants a coupon.
            taken.retain(|waiting| !waiting.answer.is_closed());
            if !taken.is_empty() {
                self.serve(taken).await;
            }
        }
    }

    /// Makes one attempt for a group. Claims that are answered by it do not wait for the others.
    async fn serve(&self, taken: Vec<Waiting>) {
        let group = Group::new(taken.len(), taken.iter().any(|waiting| waiting.is_sampled));
        let (claims, ahead) = (distinct(&taken), self.ahead.clone());
        let work = async move |mut conn: Conn, group: Arc<Group>| claim_group(&mut conn, &group, &ahead, &claims).await;
        match group.run(&self.mysql, work).await {
            Ok(claimed) => self.answer(taken, &group, claimed),
            Err(error) if error.is_conflict() => self.answer(taken, &group, HashMap::new()),
            Err(error) => {
                tracing::debug!(%error, claims = taken.len(), "a group of claims failed");
                // They all share one failure.
                for waiting in taken {
                    let _ = waiting.answer.send((Err(error.shared()), Arc::clone(&group)));
                }
            }
        }
    }

    /// Of several claims of one account, the first counts as the one that was issued the coupon. A client that has hung
    /// up needs no answer: if it claims again, it gets the same coupon.
    fn answer(&self, taken: Vec<Waiting>, group: &Arc<Group>, mut claimed: HashMap<ClaimKey, Claimed>) {
        for waiting in taken {
            let Some(claimed) = claimed.get_mut(&waiting.claim) else {
                self.try_again(waiting, group);
                continue;
            };
            let now = *claimed;
            if let Claimed::Issued(coupon) = now {
                *claimed = Claimed::Held(coupon);
            }
            let _ = waiting.answer.send((Ok(now), Arc::clone(group)));
        }
    }

    /// Puts a claim that lost against others back into the line after a pause.
    fn try_again(&self, mut waiting: Waiting, group: &Arc<Group>) {
        metrics::retry(Error::Held.class().name());
        let pause = waiting.pauses.next().filter(|_| waiting.lost.may_try_again());
        let (Some(pause), Some(again)) = (pause, self.again.upgrade()) else {
            let _ = waiting.answer.send((Err(Error::Held), Arc::clone(group)));
            return;
        };
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // If the line is full by now, the claim is dropped and its client gets an error.
            let _ = again.try_send(waiting);
        });
    }
}

/// Each claim once, in order of arrival.
fn distinct(taken: &[Waiting]) -> Vec<ClaimKey> {
    let mut seen = HashSet::with_capacity(taken.len());
    taken.iter().map(|waiting| waiting.claim).filter(|claim| seen.insert(*claim)).collect()
}

/// Claims missing from the result must try again. After an error, some may have been issued a coupon, which they get
/// when they claim again.
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

/// Writes the accounts into those of these rows that nobody else holds, all in one statement.
async fn issue(
    conn: &mut Conn,
    group: &Group,
    ahead: &Ahead,
    rows: &[(ClaimKey, CouponId)],
) -> Result<HashMap<ClaimKey, Claimed>> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    if group.step(&steps::ISSUE, coupons::issue_skip_locked(conn, rows)).await? {
        return Ok(rows.iter().map(|&(claim, coupon)| (claim, Claimed::Issued(coupon))).collect());
    }
    // Some accounts already held a coupon, or other transactions held some of the rows.
    let claims: Vec<ClaimKey> = rows.iter().map(|(claim, _)| *claim).collect();
    let held = group.step(&steps::HELD, coupons::coupons_of(conn, &claims)).await?;
    tidy(ahead, rows, &held);
    let told = |(claim, coupon): &(ClaimKey, CouponId)| match held.get(claim) {
        Some(holds) if holds == coupon => Some((*claim, Claimed::Issued(*coupon))),
        Some(holds) => Some((*claim, Claimed::Held(*holds))),
        None => None,
    };
    Ok(rows.iter().filter_map(told).collect())
}

/// Tells the read-ahead what it can learn from a group in which not all claims were issued their coupon.
fn tidy(ahead: &Ahead, rows: &[(ClaimKey, CouponId)], held: &HashMap<ClaimKey, CouponId>) {
    let lost: BTreeSet<CampaignId> =
        rows.iter().filter(|(claim, _)| !held.contains_key(claim)).map(|(claim, _)| claim.campaign_id).collect();
    let is_unused = |(claim, coupon): &&(ClaimKey, CouponId)| {
        !lost.contains(&claim.campaign_id) && held.get(claim).is_some_and(|holds| holds != coupon)
    };
    ahead.give_back(&rows.iter().filter(is_unused).copied().collect::<Vec<_>>());
    ahead.move_away(&lost);
}
