//! The answers of an API to an account: from its memory of the campaign, from the records in Redis, and by looking up
//! MySQL. Both ways share this (`coupon_core::api`). Issuing is a single action here, [`Action::Settle`]; the other two
//! models cover it in detail.
//!
//! Invariant: time passes in steps of `SOLD_OUT_MAX_AGE`, and not in the middle of a lookup, which takes milliseconds.

use std::collections::BTreeMap;

use coupon_core::{AccountId, CouponId, Outcome};
use stateright::{Model, Property};

use crate::guards::Guard;
use crate::mysql::{Mysql, claim_of};
use crate::properties::{HOLDERS_ARE_KNOWN, ISSUED_AS_SAID, SOLD_OUT_IS_TRUE, STAYS_PENDING, any_said, chosen};
use crate::said::{Judged, Said};

/// The size of the model, and the guard left out of it.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The number of accounts, which are numbered from 1.
    pub accounts: u64,
    /// Coupons at the start.
    pub coupons: u8,
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
    /// The source of truth.
    pub mysql: Mysql,
    /// The last answer to each account, and whether it was true.
    pub told: Vec<Judged>,
    /// Accepted claims that are not settled yet.
    pub accepted: Vec<AccountId>,
    /// Accounts whose claim was settled as sold out and that have not been told yet.
    pub unheard: Vec<AccountId>,
    /// The outcomes in Redis.
    records: BTreeMap<AccountId, Outcome>,
    /// The API's memory of the campaign.
    memory: Option<Memory>,
    reading: Option<Reading>,
    lookup: Option<Lookup>,
    /// Whether no row was free at some moment in the last 1.5 s.
    was_sold_out_lately: bool,
    restocks: u8,
}

/// What the API knows about the campaign.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Memory {
    /// The holders of coupons, if none was free. Exact here, whereas the code has a filter with false positives.
    holders: Option<Vec<AccountId>>,
    /// Whether there was a restock since. An account that got a coupon after it is not known as a holder, for 1.5 s at
    /// most.
    is_outdated: bool,
}

/// A read of the campaign in progress, which takes two statements.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Reading {
    /// The campaign was seen sold out. `is_outdated` tells whether there was a restock since.
    SeenSoldOut { is_outdated: bool },
    /// The holders were read first, without [`Guard::HoldersAfterSellOut`].
    SeenHolders(Vec<AccountId>),
}

/// A lookup of an account's outcome, after its first step.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Lookup {
    account: AccountId,
    is_sold_out: bool,
    /// The coupon at the time of the first step. Used only without [`Guard::ProofBeforeLookup`].
    held: Option<CouponId>,
    /// Whether there was a restock since the memory that it relies on was read.
    is_outdated: bool,
}

/// An event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// An account claims: it is answered from memory, or accepted.
    Claim(AccountId),
    /// An accepted claim is settled, and its outcome recorded in Redis or not.
    Settle(AccountId, bool),
    /// An account asks for its outcome: it is answered from memory or from Redis, or a lookup begins.
    Ask(AccountId),
    /// The lookup reads MySQL and answers.
    LookUp,
    /// The API reads whether a row is free.
    ReadStock,
    /// The API reads who holds a coupon.
    ReadHolders,
    /// 1.5 s pass.
    Wait,
    /// An operator adds a coupon.
    Restock,
}

impl Default for Answers {
    /// Two accounts, one coupon, and one more that an operator adds.
    fn default() -> Self {
        Self { accounts: 2, coupons: 1, restocks: 1, without: None, only: None }
    }
}

impl Model for Answers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mysql = Mysql::with_stock(self.coupons);
        vec![State {
            told: (1..=self.accounts).map(|account| Judged::new(AccountId(account), &mysql)).collect(),
            mysql,
            accepted: Vec::new(),
            unheard: Vec::new(),
            records: BTreeMap::new(),
            memory: None,
            reading: None,
            lookup: None,
            was_sold_out_lately: false,
            restocks: self.restocks,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for account in (1..=self.accounts).map(AccountId) {
            if state.accepted.contains(&account) {
                actions.extend([Action::Settle(account, true), Action::Settle(account, false)]);
            } else if state.memory.is_some() {
                actions.push(Action::Claim(account));
            }
            if state.lookup.is_none() && state.memory.is_some() {
                actions.push(Action::Ask(account));
            }
        }
        actions.push(match (&state.reading, self.without) {
            (None, Some(Guard::HoldersAfterSellOut)) | (Some(Reading::SeenSoldOut { .. }), _) => Action::ReadHolders,
            (None | Some(Reading::SeenHolders(_)), _) => Action::ReadStock,
        });
        match state.lookup {
            Some(_) => actions.push(Action::LookUp),
            None => actions.push(Action::Wait),
        }
        if state.restocks > 0 {
            actions.push(Action::Restock);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Claim(account) => next.claim(account),
            Action::Settle(account, is_recorded) => next.settle(account, is_recorded),
            Action::Ask(account) => next.ask(account, self.without),
            Action::LookUp => next.look_up(self.without)?,
            Action::ReadStock => next.read_stock(self.without),
            Action::ReadHolders => next.read_holders(),
            Action::Wait => next.wait(self.without),
            Action::Restock => next.restock(),
        }
        next.was_sold_out_lately |= next.mysql.is_sold_out();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        chosen(properties(), Vec::new(), self.only)
    }
}

impl State {
    /// Corresponds to `State::admit` of `coupon_core::api::campaigns`.
    fn claim(&mut self, account: AccountId) {
        match self.memory.as_ref().map(|memory| &memory.holders) {
            None => {}
            Some(None) => self.accepted.push(account),
            Some(Some(holders)) if holders.contains(&account) => {
                let held = self.mysql.coupon_of(account);
                self.say(account, Outcome::of(true, held), true);
            }
            Some(Some(_)) => self.say(account, Outcome::SoldOut, self.is_outdated()),
        }
    }

    fn settle(&mut self, account: AccountId, is_recorded: bool) {
        self.accepted.retain(|accepted| *accepted != account);
        if let (None, Some(id)) = (self.mysql.coupon_of(account), self.mysql.free(None).first()) {
            self.mysql.issue(&[(claim_of(account), *id)], None);
        }
        let outcome = Outcome::of(self.mysql.is_sold_out(), self.mysql.coupon_of(account));
        if outcome == Outcome::SoldOut && !self.unheard.contains(&account) {
            self.unheard.push(account);
        }
        if is_recorded {
            self.records.insert(account, outcome);
        }
    }

    fn ask(&mut self, account: AccountId, without: Option<Guard>) {
        let holders = self.memory.as_ref().and_then(|memory| memory.holders.as_ref());
        let is_sold_out = holders.is_some();
        if holders.is_some_and(|holders| !holders.contains(&account)) {
            return self.say(account, Outcome::SoldOut, self.is_outdated());
        }
        match self.records.get(&account) {
            Some(&issued @ Outcome::Issued { .. }) => self.say(account, issued, false),
            Some(Outcome::SoldOut) if without == Some(Guard::RecordIsAHint) => {
                self.say(account, Outcome::SoldOut, false);
            }
            _ => {
                let held = self.mysql.coupon_of(account);
                self.lookup = Some(Lookup { account, is_sold_out, held, is_outdated: self.is_outdated() });
            }
        }
    }

    fn look_up(&mut self, without: Option<Guard>) -> Option<()> {
        let Lookup { account, mut is_sold_out, held, mut is_outdated } = self.lookup.take()?;
        let mut held_now = self.mysql.coupon_of(account);
        if without == Some(Guard::ProofBeforeLookup) {
            held_now = held;
            is_sold_out = self.memory.as_ref().is_some_and(|memory| memory.holders.is_some());
            is_outdated = self.is_outdated();
        }
        self.say(account, Outcome::of(is_sold_out, held_now), is_outdated);
        Some(())
    }

    fn read_stock(&mut self, without: Option<Guard>) {
        let is_sold_out = match without {
            Some(Guard::ReadFromThePrimary) => self.mysql.free_on_a_replica().is_empty(),
            _ => self.mysql.is_sold_out(),
        };
        match self.reading.take() {
            _ if !is_sold_out => self.memory = Some(Memory { holders: None, is_outdated: false }),
            Some(Reading::SeenHolders(holders)) => {
                self.memory = Some(Memory { holders: Some(holders), is_outdated: false });
            }
            _ => self.reading = Some(Reading::SeenSoldOut { is_outdated: false }),
        }
    }

    fn read_holders(&mut self) {
        let holders = self.mysql.holders();
        self.reading = match self.reading.take() {
            Some(Reading::SeenSoldOut { is_outdated }) => {
                self.memory = Some(Memory { holders: Some(holders), is_outdated });
                None
            }
            _ => Some(Reading::SeenHolders(holders)),
        };
    }

    fn wait(&mut self, without: Option<Guard>) {
        self.was_sold_out_lately = false;
        if without != Some(Guard::AgeLimit) {
            (self.memory, self.reading) = (None, None);
        }
    }

    fn restock(&mut self) {
        self.restocks -= 1;
        self.mysql.restock();
        if let Some(memory) = &mut self.memory {
            memory.is_outdated = true;
        }
        if let Some(lookup) = &mut self.lookup {
            lookup.is_outdated = true;
        }
        if let Some(Reading::SeenSoldOut { is_outdated }) = &mut self.reading {
            *is_outdated = true;
        }
    }

    fn is_outdated(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.is_outdated)
    }

    /// Answers an account. A holder may be told "sold out" from a memory that a restock has outdated.
    fn say(&mut self, account: AccountId, outcome: Outcome, may_be_a_holder: bool) {
        let is_sold_out = outcome == Outcome::SoldOut;
        if outcome != Outcome::Pending {
            self.unheard.retain(|unheard| *unheard != account);
        }
        let Some(judged) = self.told.iter_mut().find(|judged| judged.account == account) else { return };
        if is_sold_out && may_be_a_holder && self.mysql.coupon_of(account).is_some() {
            return;
        }
        judged.was_sold_out = self.was_sold_out_lately;
        judged.say(outcome, &self.mysql);
        judged.was_sold_out = false;
    }

    /// Whether an account would be answered "pending" forever although its claim was settled, because of a restock
    /// before it asked. It has to claim again.
    pub fn has_to_claim_again(&self) -> bool {
        self.unheard.iter().any(|account| !self.accepted.contains(account)) && !self.mysql.is_sold_out()
    }
}

/// The properties of an API's answers.
fn properties() -> Vec<Property<Answers>> {
    vec![
        Property::always(ISSUED_AS_SAID, |_, state: &State| {
            state.told.iter().all(|judged| judged.is_issued_as_said(&state.mysql))
        }),
        Property::always(SOLD_OUT_IS_TRUE, |_, state: &State| !any_said(&state.told, Said::SoldOutWhileFree)),
        Property::always(HOLDERS_ARE_KNOWN, |_, state: &State| !any_said(&state.told, Said::SoldOutToAHolder)),
        Property::sometimes("sold out is said", |_, state: &State| any_said(&state.told, Said::SoldOut)),
        Property::sometimes(STAYS_PENDING, |_, state: &State| state.has_to_claim_again()),
    ]
}
