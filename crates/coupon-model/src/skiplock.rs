//! The skiplock way with the strategy `coalesced`: a worker takes the waiting claims, gives each an id that was read
//! ahead, and one statement locks the rows that nobody else holds, writes them and commits.
//!
//! Each worker stands for an instance with its own read-ahead. Invariant: a statement takes its locks in one action and
//! commits in another, because others may read in between, and they read only committed rows.

use std::collections::BTreeMap;

use coupon_core::{AccountId, ClaimKey, CouponId, Outcome};
use stateright::{Model, Property};

use crate::guards::Guard;
use crate::mysql::{Mysql, claim_of};
use crate::properties::{
    HOLDERS_ARE_KNOWN, ISSUED_AS_SAID, KEEPS_ITS_ACCOUNT, ONE_EACH, SETTLED_IN_THE_END, SOLD_OUT_IS_TRUE, any_said,
    chosen,
};
use crate::said::{Judged, Said};

/// The size of the model, and the guard left out of it.
#[derive(Clone, Debug)]
pub struct Skiplock {
    /// The number of workers.
    pub workers: usize,
    /// The accounts that claim, in this order; one may claim again.
    pub accounts: Vec<u64>,
    /// Coupons at the start.
    pub coupons: u8,
    /// The most claims in a group.
    pub group_max: usize,
    /// The number of faults that may happen in a run.
    pub faults: u8,
    /// Coupons that may be added in a run.
    pub restocks: u8,
    /// The guard that is left out.
    pub without: Option<Guard>,
    /// The only property to check; otherwise all.
    pub only: Option<&'static str>,
}

/// The state of everything at one moment.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    /// The committed rows.
    pub mysql: Mysql,
    /// The rows locked by a statement in progress, each with its worker.
    pub locks: BTreeMap<CouponId, usize>,
    /// The claims in order of arrival.
    pub claims: Vec<Judged>,
    /// The waiting claims, by their place in `claims`.
    pub line: Vec<usize>,
    /// The workers.
    pub workers: Vec<Worker>,
    faults: u8,
    restocks: u8,
}

/// A worker.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Worker {
    /// The next thing it does.
    pub step: Step,
    taken: Vec<usize>,
    /// Ids read ahead, the next first.
    ahead: Vec<CouponId>,
    /// Claims with an id, in the statement.
    rows: Vec<(ClaimKey, CouponId)>,
    /// Claims for which there was no id left.
    without_row: Vec<ClaimKey>,
    is_sold_out: bool,
    /// The coupons looked up too early, without [`Guard::ProofBeforeLookup`].
    looked_up: Vec<(ClaimKey, CouponId)>,
}

/// The next step of a worker.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Step {
    /// Waits for claims.
    #[default]
    Idle,
    /// SELECT of free ids with SKIP LOCKED, committed immediately.
    ReadAhead,
    /// The statement takes the locks of its rows, and skips those that others hold.
    Lock,
    /// The statement writes its rows and commits.
    Commit,
    /// SELECT of the coupons that the accounts with a row hold.
    LookUp,
    /// Plain SELECT that checks whether a row is free.
    ReadFree,
    /// SELECT of the coupons that the accounts without a row hold.
    LookUpOthers,
}

/// An event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// An account claims.
    Claim(AccountId),
    /// A worker takes this many claims.
    Take(usize, usize),
    /// A worker does its next step.
    Do(usize, Step),
    /// A worker dies: MySQL rolls back, and its clients claim again.
    Crash(usize),
    /// MySQL rolls a statement back, as the victim of a deadlock: its claims try again.
    RollBack(usize),
    /// An operator adds a coupon.
    Restock,
}

impl Default for Skiplock {
    /// The smallest model worth searching: two workers, two accounts and one coupon, and nothing fails.
    fn default() -> Self {
        let accounts = vec![1, 2];
        Self { workers: 2, accounts, coupons: 1, group_max: 1, faults: 0, restocks: 0, without: None, only: None }
    }
}

impl Model for Skiplock {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            mysql: Mysql::with_stock(self.coupons),
            locks: BTreeMap::new(),
            claims: Vec::new(),
            line: Vec::new(),
            workers: vec![Worker::default(); self.workers],
            faults: self.faults,
            restocks: self.restocks,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.work(state, actions);
        if state.restocks > 0 {
            actions.push(Action::Restock);
        }
        let busy = state.workers.iter().enumerate().filter(|(_, worker)| state.faults > 0 && worker.step != Step::Idle);
        for (n, worker) in busy {
            actions.push(Action::Crash(n));
            if worker.step == Step::Commit {
                actions.push(Action::RollBack(n));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Claim(account) => {
                next.line.push(next.claims.len());
                next.claims.push(Judged::new(account, &next.mysql));
            }
            Action::Take(n, count) => next.take(n, count, self.without),
            Action::Do(n, _) => next.act(n, self.without)?,
            Action::Restock => {
                next.restocks -= 1;
                next.mysql.restock();
            }
            Action::Crash(n) | Action::RollBack(n) => {
                next.faults -= 1;
                next.locks.retain(|_, holder| *holder != n);
                let worker = std::mem::take(next.workers.get_mut(n)?);
                next.line.extend(worker.taken);
            }
        }
        let State { mysql, claims, .. } = &mut next;
        for judged in claims {
            judged.watch(mysql);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        chosen(properties(), Vec::new(), self.only)
    }
}

impl Skiplock {
    /// The actions possible while there is work and nothing fails.
    pub fn work(&self, state: &State, actions: &mut Vec<Action>) {
        if let Some(&account) = self.accounts.get(state.claims.len()) {
            actions.push(Action::Claim(AccountId(account)));
        }
        for (n, worker) in state.workers.iter().enumerate() {
            match worker.step {
                // Of several identical workers, one is enough.
                Step::Idle if state.workers.iter().take(n).any(|other| other == worker) => {}
                Step::Idle => {
                    let count = state.line.len().min(self.group_max);
                    actions.extend((1..=count).map(|count| Action::Take(n, count)));
                }
                step => actions.push(Action::Do(n, step)),
            }
        }
    }
}

impl State {
    fn take(&mut self, n: usize, count: usize, without: Option<Guard>) {
        let Self { line, workers, claims, .. } = self;
        let Some(worker) = workers.get_mut(n) else { return };
        worker.taken = line.drain(..count).collect();
        for judged in worker.taken.iter().filter_map(|place| claims.get(*place)) {
            let claim = claim_of(judged.account);
            if !worker.without_row.contains(&claim) {
                worker.without_row.push(claim);
            }
        }
        if worker.ahead.len() < worker.without_row.len() {
            worker.step = Step::ReadAhead;
        } else {
            self.assign(n, without);
        }
    }

    fn act(&mut self, n: usize, without: Option<Guard>) -> Option<()> {
        let Self { mysql, locks, claims, workers, .. } = self;
        let worker = workers.get_mut(n)?;
        match worker.step {
            Step::Idle => {}
            Step::ReadAhead => {
                worker.ahead = mysql.free(None).into_iter().filter(|id| !locks.contains_key(id)).collect();
                self.assign(n, without);
            }
            Step::Lock => {
                let can_lock = |(_, id): &&(ClaimKey, CouponId)| {
                    let is_wanted = mysql.is_free(*id) || without == Some(Guard::ConditionalUpdate);
                    is_wanted && !locks.contains_key(id)
                };
                let locked: Vec<CouponId> = worker.rows.iter().filter(can_lock).map(|(_, id)| *id).collect();
                locks.extend(locked.into_iter().map(|id| (id, n)));
                if without == Some(Guard::AnswerAfterCommit) {
                    let rows = worker.rows.iter().filter(|(_, id)| locks.get(id) == Some(&n));
                    say(claims, mysql, &worker.taken, rows.map(|(claim, id)| (*claim, issued(*id))).collect());
                }
                worker.step = Step::Commit;
            }
            Step::Commit => {
                let locked = worker.rows.iter().filter(|(_, id)| locks.get(id) == Some(&n));
                let locked: Vec<(ClaimKey, CouponId)> = locked.copied().collect();
                let all_written = mysql.issue(&locked, without) && locked.len() == worker.rows.len();
                locks.retain(|_, holder| *holder != n);
                worker.step = Step::LookUp;
                if all_written {
                    let told = worker.rows.drain(..).map(|(claim, id)| (claim, issued(id))).collect();
                    say(claims, mysql, &worker.taken, told);
                    self.go_on(n, without);
                }
            }
            Step::LookUp => {
                let rows = std::mem::take(&mut worker.rows);
                let asked: Vec<ClaimKey> = rows.iter().map(|(claim, _)| *claim).collect();
                let held = mysql.held(&asked);
                // Like `tidy` of coalesced.rs: ids go back unless others took some of them.
                if asked.iter().all(|claim| held.contains_key(claim)) {
                    let unused = rows.iter().filter(|(claim, id)| held.get(claim) != Some(id));
                    worker.ahead.splice(0..0, unused.map(|(_, id)| *id));
                } else {
                    worker.ahead.clear();
                }
                let told = held.into_iter().map(|(claim, id)| (claim, issued(id))).collect();
                say(claims, mysql, &worker.taken, told);
                self.go_on(n, without);
            }
            Step::ReadFree => {
                worker.is_sold_out = mysql.is_sold_out();
                worker.step = Step::LookUpOthers;
                if without == Some(Guard::ProofBeforeLookup) {
                    let held = std::mem::take(&mut worker.looked_up);
                    self.answer_others(n, &held);
                }
            }
            Step::LookUpOthers => {
                let mut held: Vec<(ClaimKey, CouponId)> = mysql.held(&worker.without_row).into_iter().collect();
                held.sort_unstable();
                if without == Some(Guard::ProofBeforeLookup) {
                    (worker.looked_up, worker.step) = (held, Step::ReadFree);
                } else {
                    self.answer_others(n, &held);
                }
            }
        }
        Some(())
    }

    /// Gives the first claims the first ids, both in order.
    fn assign(&mut self, n: usize, without: Option<Guard>) {
        let Some(worker) = self.workers.get_mut(n) else { return };
        let count = worker.without_row.len().min(worker.ahead.len());
        let mut claims: Vec<ClaimKey> = worker.without_row.drain(..count).collect();
        claims.sort_unstable();
        worker.rows = claims.into_iter().zip(worker.ahead.drain(..count)).collect();
        worker.step = Step::Lock;
        if worker.rows.is_empty() {
            self.go_on(n, without);
        }
    }

    /// Continues with the claims without an id.
    fn go_on(&mut self, n: usize, without: Option<Guard>) {
        let Some(worker) = self.workers.get_mut(n) else { return };
        worker.is_sold_out = without == Some(Guard::ReadCommittedRows);
        worker.step = match without {
            _ if worker.without_row.is_empty() => return self.end(n),
            Some(Guard::ReadCommittedRows | Guard::ProofBeforeLookup) => Step::LookUpOthers,
            _ => Step::ReadFree,
        };
    }

    fn answer_others(&mut self, n: usize, held: &[(ClaimKey, CouponId)]) {
        let Some(worker) = self.workers.get_mut(n) else { return };
        let coupon = |claim: ClaimKey| held.iter().find(|(holder, _)| *holder == claim).map(|(_, id)| *id);
        let others = std::mem::take(&mut worker.without_row).into_iter();
        let told = others.map(|claim| (claim, Outcome::of(worker.is_sold_out, coupon(claim)))).collect();
        say(&mut self.claims, &self.mysql, &worker.taken, told);
        self.end(n);
    }

    /// Ends the group. Claims without an answer go back into the line.
    fn end(&mut self, n: usize) {
        let Self { line, workers, claims, .. } = self;
        let Some(worker) = workers.get_mut(n) else { return };
        let open = |place: &usize| claims.get(*place).is_some_and(|judged| judged.said.is_none());
        line.extend(worker.taken.drain(..).filter(open));
        *worker = Worker { ahead: std::mem::take(&mut worker.ahead), ..Worker::default() };
    }
}

impl Worker {
    /// Whether it has found that a row is free after getting none.
    pub fn finds_a_row_free(&self) -> bool {
        self.step == Step::LookUpOthers && !self.is_sold_out
    }
}

fn issued(coupon_id: CouponId) -> Outcome {
    Outcome::Issued { coupon_id }
}

fn say(claims: &mut [Judged], mysql: &Mysql, taken: &[usize], outcomes: Vec<(ClaimKey, Outcome)>) {
    for (claim, outcome) in outcomes {
        for place in taken {
            if let Some(judged) = claims.get_mut(*place).filter(|judged| judged.account == claim.account_id) {
                judged.say(outcome, mysql);
            }
        }
    }
}

/// The properties of the skiplock way.
fn properties() -> Vec<Property<Skiplock>> {
    vec![
        Property::always(KEEPS_ITS_ACCOUNT, |_, state: &State| !state.mysql.has_changed_hands),
        Property::always(ONE_EACH, |_, state: &State| !state.mysql.has_an_account_twice()),
        Property::always(ISSUED_AS_SAID, |_, state: &State| {
            // A statement in progress counts as not committed.
            state.claims.iter().all(|judged| judged.is_issued_as_said(&state.mysql))
        }),
        Property::always(SOLD_OUT_IS_TRUE, |_, state: &State| !any_said(&state.claims, Said::SoldOutWhileFree)),
        Property::always(HOLDERS_ARE_KNOWN, |_, state: &State| !any_said(&state.claims, Said::SoldOutToAHolder)),
        Property::always(SETTLED_IN_THE_END, |model: &Skiplock, state: &State| {
            let mut work = Vec::new();
            model.work(state, &mut work);
            !work.is_empty() || state.claims.iter().all(|judged| judged.said.is_some())
        }),
        Property::sometimes("all coupons are issued", |_, state: &State| state.mysql.is_sold_out()),
        Property::sometimes("sold out is said", |_, state: &State| any_said(&state.claims, Said::SoldOut)),
        Property::sometimes("all rows are locked while one is free", |_, state: &State| {
            let free = state.mysql.free(None);
            !free.is_empty() && free.iter().all(|id| state.locks.contains_key(id))
        }),
        Property::sometimes("a claim without a row tries again", |_, state: &State| {
            state.workers.iter().any(Worker::finds_a_row_free)
        }),
        Property::sometimes("a row that was read ahead is taken", |_, state: &State| {
            state.workers.iter().any(|worker| worker.step == Step::LookUp)
        }),
        Property::sometimes("a restocked coupon is issued", |_, state: &State| state.mysql.restocked_to().is_some()),
    ]
}
