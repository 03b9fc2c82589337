//! Reading what became of a claim, for both APIs: one task polls for everyone who waits in this process.
//!
//! Each round asks Redis (where there is one) and MySQL about all claims that are due, in one round trip each; claims that
//! wait longer are asked for again at a pace. So 10,000 waiting people cost two statements a round, not 10,000.
//! Invariant: "sold out" is answered only when the campaign was seen sold out *before* MySQL was seen to hold no coupon of
//! that account; the other way round, a coupon issued in between would be missed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mysql_async::Conn;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::campaigns::Campaigns;
use crate::domain::{CampaignId, ClaimKey, CouponId, Outcome};
use crate::error::{Error, Result};
use crate::mysql::{self, Mysql};
use crate::redis::outcomes::Outcomes;

/// How often Redis is asked for those who wait.
const PACE: Duration = Duration::from_millis(20);

/// How often MySQL is asked for those who wait, in case that Redis lost an outcome.
const PACE_MYSQL: Duration = Duration::from_secs(1);

/// How often MySQL is asked where there is no Redis.
const PACE_MYSQL_ONLY: Duration = Duration::from_millis(100);

/// A look takes milliseconds; servers that take longer than this are as good as away.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// Claims waited for in one process; further ones are refused.
const WAITING_MAX: usize = 50_000;

/// Claims in one statement or command.
const CLAIMS_PER_LOOK: usize = 1_000;

/// Reads outcomes. Cheap to clone.
#[derive(Clone)]
pub struct OutcomeReader {
    campaigns: Campaigns,
    questions: mpsc::Sender<Question>,
}

struct Question {
    claim: ClaimKey,
    until: Instant,
    answer: oneshot::Sender<Outcome>,
}

impl OutcomeReader {
    /// Starts the task that looks; it ends when the last clone is dropped. `recorded` are the outcomes in Redis, on the
    /// way that has them.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn start(campaigns: Campaigns, mysql: Mysql, recorded: Option<Outcomes>) -> Self {
        let (questions, asked) = mpsc::channel(4096);
        let looking = Looking { campaigns: campaigns.clone(), mysql, recorded, waiting: Vec::new() };
        tokio::spawn(looking.run(asked));
        Self { campaigns, questions }
    }

    /// The outcome of a claim, waiting up to `wait` for one; `None` when there is no such campaign.
    ///
    /// # Errors
    /// Redis's and MySQL's, or too many wait already.
    pub async fn outcome(&self, claim: ClaimKey, wait: Duration) -> Result<Option<Outcome>> {
        let state = self.campaigns.state(claim.campaign_id).await?;
        if state.campaign.is_none() {
            return Ok(None);
        }
        if state.is_sold_out_for(claim.account_id) {
            return Ok(Some(Outcome::SoldOut));
        }
        let (answer, answered) = oneshot::channel();
        let question = Question { claim, until: Instant::now() + wait, answer };
        self.questions.try_send(question).map_err(|_| Error::Full { what: "the list of waiting requests" })?;
        // No answer: MySQL was away until the wait was over.
        let limit = wait + LOOK_DEADLINE;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(outcome)) => Ok(Some(outcome)),
            Ok(Err(_)) | Err(_) => Err(Error::Deadline { what: "reading a claim", limit }),
        }
    }
}

struct Waiting {
    question: Question,
    look_at: Instant,
    look_in_mysql_at: Instant,
}

struct Looking {
    campaigns: Campaigns,
    mysql: Mysql,
    recorded: Option<Outcomes>,
    waiting: Vec<Waiting>,
}

impl Looking {
    async fn run(mut self, mut asked: mpsc::Receiver<Question>) {
        let mut questions = Vec::new();
        loop {
            let next_look = self.waiting.iter().map(|waiting| waiting.look_at).min();
            let received = tokio::select! {
                received = asked.recv_many(&mut questions, CLAIMS_PER_LOOK) => received,
                () = sleep_until(next_look) => 1,
            };
            if received == 0 {
                return;
            }
            let now = Instant::now();
            self.waiting.extend(questions.drain(..).map(|question| Waiting {
                question,
                look_at: now,
                look_in_mysql_at: now,
            }));
            // The newest are refused: dropping their question is the answer.
            self.waiting.truncate(WAITING_MAX);
            self.look(now).await;
        }
    }

    async fn look(&mut self, now: Instant) {
        let due: HashSet<ClaimKey> = self.due(|waiting| waiting.look_at <= now);
        let issued = self.look_in_redis(&due).await;
        self.settle(|claim| issued.get(&claim).map(|&coupon_id| Outcome::Issued { coupon_id }));

        let sold_out = self.sold_out_campaigns().await;
        let due = self.due(|waiting| {
            // "Pending" is said only to those that MySQL was asked about when their time was over.
            let is_last_look = waiting.question.until <= now;
            let is_sold_out = sold_out.contains(&waiting.question.claim.campaign_id);
            waiting.look_in_mysql_at <= now || is_last_look || is_sold_out
        });
        let looked = self.look_in_mysql(&due).await;
        match looked {
            Ok(issued) => self.settle(|claim| match issued.get(&claim) {
                Some(&coupon_id) => Some(Outcome::Issued { coupon_id }),
                None => (due.contains(&claim) && sold_out.contains(&claim.campaign_id)).then_some(Outcome::SoldOut),
            }),
            Err(error) => {
                tracing::debug!(%error, "cannot look for claims in MySQL");
                self.waiting.retain(|waiting| waiting.question.until > now || !due.contains(&waiting.question.claim));
            }
        }
        self.put_off(now, &due);
    }

    fn due(&self, is_due: impl Fn(&Waiting) -> bool) -> HashSet<ClaimKey> {
        self.waiting.iter().filter(|waiting| is_due(waiting)).map(|waiting| waiting.question.claim).collect()
    }

    /// Answers everyone whose claim has an outcome now.
    fn settle(&mut self, outcome: impl Fn(ClaimKey) -> Option<Outcome>) {
        for waiting in self.waiting.extract_if(.., |waiting| outcome(waiting.question.claim).is_some()) {
            if let Some(outcome) = outcome(waiting.question.claim) {
                // Who has gone meanwhile needs no answer.
                let _ = waiting.question.answer.send(outcome);
            }
        }
    }

    /// Plans the next look for those who still wait, and tells "pending" those whose time is over.
    fn put_off(&mut self, now: Instant, looked_in_mysql: &HashSet<ClaimKey>) {
        let (pace, pace_mysql) =
            if self.recorded.is_some() { (PACE, PACE_MYSQL) } else { (PACE_MYSQL_ONLY, PACE_MYSQL_ONLY) };
        for waiting in self.waiting.extract_if(.., |waiting| waiting.question.until <= now) {
            let _ = waiting.question.answer.send(Outcome::Pending);
        }
        self.waiting.retain(|waiting| !waiting.question.answer.is_closed());
        for waiting in &mut self.waiting {
            if looked_in_mysql.contains(&waiting.question.claim) {
                waiting.look_in_mysql_at = now + pace_mysql;
            }
            if waiting.look_at <= now {
                waiting.look_at = (now + pace).min(waiting.question.until);
            }
        }
    }

    async fn look_in_redis(&self, due: &HashSet<ClaimKey>) -> HashMap<ClaimKey, CouponId> {
        let mut issued = HashMap::new();
        let Some(recorded) = &self.recorded else { return issued };
        let due: Vec<ClaimKey> = due.iter().copied().collect();
        for claims in due.chunks(CLAIMS_PER_LOOK) {
            match recorded.read(claims).await {
                Ok(outcomes) => {
                    for (claim, outcome) in claims.iter().zip(outcomes) {
                        match outcome {
                            Outcome::Issued { coupon_id } => drop(issued.insert(*claim, coupon_id)),
                            // A hint that the campaign's state in memory is behind.
                            Outcome::SoldOut => self.campaigns.notice_change(),
                            Outcome::Pending => {}
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read outcomes from Redis; MySQL is asked");
                    break;
                }
            }
        }
        issued
    }

    /// Those of the campaigns waited for that are known to be sold out.
    async fn sold_out_campaigns(&self) -> HashSet<CampaignId> {
        let campaigns: HashSet<CampaignId> =
            self.waiting.iter().map(|waiting| waiting.question.claim.campaign_id).collect();
        let mut sold_out = HashSet::new();
        for campaign in campaigns {
            if self.campaigns.known(campaign).await.is_some_and(|state| state.is_sold_out()) {
                sold_out.insert(campaign);
            }
        }
        sold_out
    }

    async fn look_in_mysql(&self, due: &HashSet<ClaimKey>) -> Result<HashMap<ClaimKey, CouponId>> {
        if due.is_empty() {
            return Ok(HashMap::new());
        }
        let due: Vec<ClaimKey> = due.iter().copied().collect();
        self.mysql
            .run(async move |mut conn: Conn| {
                let mut issued = HashMap::new();
                for claims in due.chunks(CLAIMS_PER_LOOK) {
                    issued.extend(mysql::coupons::coupons_of(&mut conn, claims).await?);
                }
                Ok(issued)
            })
            .await
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
