//! The questions that wait for an outcome, and when the claim of each is looked up.
//!
//! Invariants: each question is answered with an outcome or, once its time is over, with the result of a lookup that
//! began after that; every claim that somebody waits for is scheduled, or part of the lookup in flight.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::Question;
use crate::api::recent::Recent;
use crate::domain::{ClaimKey, CouponId, Outcome};
use crate::error::{Error, Result};

/// The pause before the second lookup; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The pause before the first lookup of a claim whose outcome is to be pushed to this instance: longer than a push
/// takes at the highest rate.
const PUSHED_WITHIN: Duration = Duration::from_millis(200);

/// The longest pause. With it, 10,000 people who wait cost 2,000 keys a second.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Lookups after a pause are aligned to multiples of this, so that one serves many claims.
const TOGETHER: Duration = Duration::from_millis(20);

/// How long a pushed coupon is answered from memory. It is short, because an operator may reset an installation or
/// forget an account meanwhile.
const PUSHED_FOR: Duration = Duration::from_secs(10);

/// The most questions waiting in one process; further ones are refused.
const WAITING_MAX: usize = 50_000;

/// The unanswered questions of a process.
pub(super) struct Waiting {
    began: Instant,
    claims: HashMap<ClaimKey, Asked>,
    /// May hold claims that have been answered or rescheduled since.
    schedule: BTreeMap<Instant, Vec<ClaimKey>>,
    questions: usize,
    /// Claims that this instance takes on and for which nothing has been pushed yet.
    expected: Recent<()>,
    /// Pushed coupons, and when each was pushed. Only coupons: one never changes hands, while "sold out" may be over
    /// when somebody asks.
    pushed: Recent<(CouponId, Instant)>,
    /// Whether outcomes are recorded in Redis, so that MySQL need not be asked in each lookup.
    has_records: bool,
}

/// A claim that somebody waits for.
struct Asked {
    questions: Vec<Question>,
    /// `None` while the claim is being looked up.
    lookup_at: Option<Instant>,
    /// The pause before the last lookup.
    pause: Duration,
    /// Whether to ask MySQL next time, whatever Redis says.
    ask_mysql: bool,
}

/// A claim to look up.
pub(super) struct Due {
    pub claim: ClaimKey,
    /// Whether to ask MySQL whatever Redis says.
    pub ask_mysql: bool,
    /// Whether to read as well whether a coupon of its campaign is free, because somebody is to be answered. For lookups
    /// before that, memory is good enough.
    pub with_stock: bool,
}

/// What a lookup has found about a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Its outcome, which is not `Pending`.
    Outcome(Outcome),
    /// MySQL holds no coupon for it.
    Nothing,
    /// MySQL was not asked, or did not answer.
    Unknown,
}

/// The result of a lookup.
pub(super) struct LookedUp {
    pub began: Instant,
    pub found: Vec<(ClaimKey, Found)>,
}

impl Waiting {
    pub(super) fn new(began: Instant, has_records: bool) -> Self {
        Self {
            began,
            claims: HashMap::new(),
            schedule: BTreeMap::new(),
            questions: 0,
            expected: Recent::default(),
            pushed: Recent::default(),
            has_records,
        }
    }

    /// Remembers that the outcome of a claim is to be pushed to this instance, and forgets any pushed before: it
    /// belongs to an earlier claim of this account, which an operator may have undone since.
    pub(super) fn expect(&mut self, claim: ClaimKey) {
        self.pushed.remove(&claim);
        self.expected.insert(claim, ());
    }

    /// Adds a question, or answers it at once. Returns whether its lookup is due sooner than any other.
    ///
    /// # Errors
    /// Too many questions wait already.
    pub(super) fn ask(&mut self, question: Question) -> Result<bool> {
        let pushed = self.pushed.get(&question.claim);
        if let Some((coupon_id, _)) = pushed.filter(|(_, at)| question.asked_at.duration_since(*at) < PUSHED_FOR) {
            // A client that has disconnected meanwhile needs no answer.
            let _ = question.answer.send(Outcome::Issued { coupon_id });
            return Ok(false);
        }
        if self.questions >= WAITING_MAX {
            return Err(Error::Full { what: "the list of waiting requests" });
        }
        self.questions += 1;
        let claim = question.claim;
        let is_expected = self.expected.get(&claim).is_some();
        let next = self.next_lookup();
        let (pause, lookup_at) = if is_expected {
            (PUSHED_WITHIN, self.together(question.asked_at + PUSHED_WITHIN).min(question.until))
        } else {
            (Duration::ZERO, question.asked_at)
        };
        let asked = self.claims.entry(claim).or_insert_with(Asked::new);
        asked.ask_mysql |= !is_expected;
        asked.pause = pause;
        asked.questions.push(question);
        self.schedule(claim, lookup_at);
        Ok(next.is_none_or(|next| lookup_at < next))
    }

    /// Takes pushed outcomes, and returns whether a campaign may be sold out according to them.
    pub(super) fn pushed(&mut self, outcomes: &[(ClaimKey, Outcome)], now: Instant) -> bool {
        let mut may_be_sold_out = false;
        for (claim, outcome) in outcomes {
            self.expected.remove(claim);
            match outcome {
                Outcome::Issued { coupon_id } => {
                    self.pushed.insert(*claim, (*coupon_id, now));
                    self.answer(*claim, *outcome, |_| true);
                }
                Outcome::SoldOut => {
                    may_be_sold_out = true;
                    if let Some(asked) = self.claims.get_mut(claim) {
                        (asked.ask_mysql, asked.pause) = (true, Duration::ZERO);
                        self.schedule(*claim, now);
                    }
                }
                Outcome::Pending => {}
            }
        }
        may_be_sold_out
    }

    /// Stops expecting pushes for the claims accepted so far, and schedules a lookup of every claim, in MySQL as well.
    pub(super) fn pushes_missed(&mut self, now: Instant) {
        self.expected = Recent::default();
        let claims: Vec<ClaimKey> = self.claims.keys().copied().collect();
        for claim in claims {
            if let Some(asked) = self.claims.get_mut(&claim) {
                (asked.ask_mysql, asked.pause) = (true, Duration::ZERO);
            }
            self.schedule(claim, now);
        }
    }

    /// When the next lookup is due.
    pub(super) fn next_lookup(&self) -> Option<Instant> {
        self.schedule.first_key_value().map(|(at, _)| *at)
    }

    /// Takes the claims whose lookup is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        while let Some(scheduled) = self.schedule.first_entry().filter(|scheduled| *scheduled.key() <= now) {
            let (at, claims) = scheduled.remove_entry();
            for claim in claims {
                due.extend(self.take_due(claim, at, now));
            }
        }
        due
    }

    fn take_due(&mut self, claim: ClaimKey, scheduled: Instant, now: Instant) -> Option<Due> {
        self.forget(claim, |question| question.answer.is_closed());
        let asked = self.claims.get_mut(&claim).filter(|asked| asked.lookup_at == Some(scheduled))?;
        asked.lookup_at = None;
        let is_last_for_somebody = asked.questions.iter().any(|question| question.until <= now);
        let ask_mysql = std::mem::take(&mut asked.ask_mysql) || is_last_for_somebody || asked.pause >= PAUSE_MAX;
        Some(Due { claim, ask_mysql: ask_mysql || !self.has_records, with_stock: is_last_for_somebody })
    }

    /// Answers questions with the result of a lookup, and schedules the next one for those that still wait.
    pub(super) fn looked_up(&mut self, done: LookedUp, now: Instant) {
        let LookedUp { began, found } = done;
        for (claim, found) in found {
            match found {
                Found::Outcome(outcome @ Outcome::Issued { .. }) => self.answer(claim, outcome, |_| true),
                Found::Outcome(outcome) => self.answer(claim, outcome, |question| question.asked_at <= began),
                Found::Nothing => self.answer(claim, Outcome::Pending, |question| question.until <= began),
                Found::Unknown => self.forget(claim, |question| question.until <= began),
            }
            let Some(asked) = self.claims.get_mut(&claim) else { continue };
            asked.pause = (asked.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            let (pause, until) = (asked.pause, asked.questions.iter().map(|question| question.until).min());
            let lookup_at = self.together(now + pause);
            self.schedule(claim, until.map_or(lookup_at, |until| until.min(lookup_at)));
        }
    }

    /// Schedules a lookup, unless an earlier one is scheduled.
    fn schedule(&mut self, claim: ClaimKey, at: Instant) {
        let Some(asked) = self.claims.get_mut(&claim) else { return };
        if asked.lookup_at.is_none_or(|lookup_at| at < lookup_at) {
            asked.lookup_at = Some(at);
            self.schedule.entry(at).or_default().push(claim);
        }
    }

    /// The next multiple of [`TOGETHER`] after an instant.
    fn together(&self, at: Instant) -> Instant {
        let over = at.duration_since(self.began).as_nanos() % TOGETHER.as_nanos();
        at + TOGETHER - Duration::from_nanos(u64::try_from(over).unwrap_or_default())
    }

    fn answer(&mut self, claim: ClaimKey, outcome: Outcome, whom: impl Fn(&Question) -> bool) {
        self.take(claim, whom, |question| {
            let _ = question.answer.send(outcome);
        });
    }

    /// Drops questions without an answer, which is an error for those who asked.
    fn forget(&mut self, claim: ClaimKey, whom: impl Fn(&Question) -> bool) {
        self.take(claim, whom, drop);
    }

    fn take(&mut self, claim: ClaimKey, whom: impl Fn(&Question) -> bool, take: impl Fn(Question)) {
        let Some(asked) = self.claims.get_mut(&claim) else { return };
        let before = asked.questions.len();
        asked.questions.extract_if(.., |question| whom(question)).for_each(take);
        self.questions -= before - asked.questions.len();
        if asked.questions.is_empty() {
            self.claims.remove(&claim);
        }
    }
}

impl Asked {
    fn new() -> Self {
        Self { questions: Vec::new(), lookup_at: None, pause: Duration::ZERO, ask_mysql: false }
    }
}
