//! Checks what must hold for every claim, judging by the journal and by what MySQL holds at the end. The names are
//! those common in database testing: lost, unexpected, duplicated, unstable.
//!
//! Invariants: pure; an answer without a result proves nothing, and nothing is concluded from it; whatever depends on
//! when it happened is judged by the widest interval that the journal allows, so that a finding never depends on
//! timing.

use std::collections::{BTreeMap, HashMap, HashSet};

use coupon_core::{ClaimKey, CouponId};
use serde::Serialize;

use crate::journal::{Answer, Micros, Operation, Request, Restock};
use crate::rows::Rows;

/// A "sold out" from an API's memory may be this old.
const SOLD_OUT_AGE: Micros = 1_500_000;

/// The most examples shown for one check.
const EXAMPLES_MAX: usize = 10;

/// The evidence that a run leaves.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Every request.
    pub operations: Vec<Operation>,
    /// Every addition of coupons, the first stock included.
    pub restocks: Vec<Restock>,
    /// The rows that MySQL holds.
    pub rows: Rows,
}

/// A violation of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// When the claim was made, or when the contradiction was first seen.
    pub from: Micros,
    /// When the violation was seen.
    pub to: Micros,
    /// The violation in words.
    pub says: String,
}

/// One guarantee, with its violations.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A stable name.
    pub name: &'static str,
    /// What must hold.
    pub says: &'static str,
    /// How many things were checked.
    pub checked: u64,
    /// How many of them violate it.
    pub broken: u64,
    /// Some of the violations.
    pub findings: Vec<Finding>,
    /// When each violation happened, from and to.
    #[serde(skip)]
    pub spans: Vec<(Micros, Micros)>,
}

impl Check {
    fn new(name: &'static str, says: &'static str) -> Self {
        Self { name, says, checked: 0, broken: 0, findings: Vec::new(), spans: Vec::new() }
    }

    /// Checks things one by one. `broken` returns the time and the words for a violation.
    pub fn of<T>(
        name: &'static str,
        says: &'static str,
        things: impl Iterator<Item = T>,
        broken: impl Fn(&T) -> Option<((Micros, Micros), String)>,
    ) -> Self {
        let mut check = Self::new(name, says);
        for thing in things {
            check.checked += 1;
            if let Some((span, says)) = broken(&thing) {
                check.breaks(span, says);
            }
        }
        check
    }

    fn breaks(&mut self, (from, to): (Micros, Micros), says: String) {
        self.broken += 1;
        self.spans.push((from, to));
        if self.findings.len() < EXAMPLES_MAX {
            self.findings.push(Finding { from, to, says });
        }
    }
}

/// Runs all checkers.
#[must_use]
pub fn all(evidence: &Evidence) -> Vec<Check> {
    let history = History::of(evidence);
    vec![
        history.lost(),
        history.unexpected(),
        history.duplicated(),
        history.unstable(),
        history.undersold(),
        history.stock_conserved(),
        history.no_mistake_of_ours(),
    ]
}

/// The evidence, grouped by claim, account and campaign.
struct History<'a> {
    evidence: &'a Evidence,
    claims: BTreeMap<ClaimKey, Vec<&'a Operation>>,
    held: HashMap<ClaimKey, CouponId>,
    /// When each account claimed first, by campaign, in order.
    first_claims: HashMap<u64, Vec<Micros>>,
}

fn span(operation: &Operation) -> (Micros, Micros) {
    (operation.begun, operation.ended)
}

impl<'a> History<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut claims: BTreeMap<ClaimKey, Vec<&Operation>> = BTreeMap::new();
        for operation in &evidence.operations {
            claims.entry(operation.claim).or_default().push(operation);
        }
        let mut first_claims: HashMap<u64, Vec<Micros>> = HashMap::new();
        for (claim, operations) in &mut claims {
            operations.sort_by_key(|operation| operation.begun);
            let first = operations.iter().find(|operation| operation.request == Request::Claim);
            first_claims.entry(claim.campaign_id.0).or_default().extend(first.map(|first| first.begun));
        }
        for times in first_claims.values_mut() {
            times.sort_unstable();
        }
        Self { evidence, claims, held: evidence.rows.held.iter().copied().collect(), first_claims }
    }

    fn free(&self, campaign: u64) -> u64 {
        self.evidence.rows.stocks.get(&campaign).map_or(0, |stock| stock.rows.saturating_sub(stock.issued))
    }

    fn restocks(&self, campaign: u64) -> impl Iterator<Item = &Restock> {
        self.evidence.restocks.iter().filter(move |restock| restock.campaign == campaign)
    }

    /// Whether coupons may have been added to the first stock at any time since.
    fn restocked_since(&self, campaign: u64, since: Micros) -> bool {
        self.restocked_between(campaign, since, Micros::MAX)
    }

    fn restocked_between(&self, campaign: u64, from: Micros, to: Micros) -> bool {
        self.restocks(campaign).any(|restock| restock.ended > 0 && restock.ended >= from && restock.begun <= to)
    }

    fn lost(&self) -> Check {
        let says =
            "What was answered to be issued is in MySQL, and an accepted claim has a coupon unless none was free.";
        let mut check = Check::new("lost", says);
        for (claim, operations) in &self.claims {
            let held = self.held.get(claim);
            for operation in operations {
                match operation.answer {
                    Answer::Issued(coupon) if held != Some(&coupon) => {
                        check
                            .breaks(span(operation), format!("{} was told {coupon}, MySQL has {held:?}", text(*claim)));
                    }
                    // The claim may have been settled as sold out before a later restock.
                    Answer::Accepted
                        if held.is_none()
                            && self.free(claim.campaign_id.0) > 0
                            && !self.restocked_since(claim.campaign_id.0, operation.begun) =>
                    {
                        check.breaks(span(operation), format!("{} was accepted and has nothing", text(*claim)));
                    }
                    Answer::Issued(_) | Answer::Accepted => {}
                    _ => continue,
                }
                check.checked += 1;
            }
        }
        check
    }

    fn unexpected(&self) -> Check {
        let mut check = Check::new("unexpected", "Only an account that claimed has a coupon.");
        for (claim, coupon) in &self.evidence.rows.held {
            check.checked += 1;
            let claimed = self.claims.get(claim).is_some_and(|all| all.iter().any(|one| one.request == Request::Claim));
            if !claimed {
                check.breaks((0, Micros::MAX), format!("{} has {coupon} and never claimed", text(*claim)));
            }
        }
        check
    }

    fn duplicated(&self) -> Check {
        let says =
            "An account has one coupon of a campaign at most, and a coupon one account, in MySQL and in answers.";
        let mut check = Check::new("duplicated", says);
        let mut holders: HashMap<CouponId, ClaimKey> = HashMap::new();
        let mut accounts = HashSet::new();
        for (claim, coupon) in &self.evidence.rows.held {
            check.checked += 1;
            if !accounts.insert(*claim) {
                check.breaks((0, Micros::MAX), format!("{} has two coupons", text(*claim)));
            }
            if let Some(other) = holders.insert(*coupon, *claim) {
                check.breaks((0, Micros::MAX), format!("{coupon} is of {} and {}", text(other), text(*claim)));
            }
        }
        for operation in &self.evidence.operations {
            let Answer::Issued(coupon) = operation.answer else { continue };
            check.checked += 1;
            let holder = *holders.entry(coupon).or_insert(operation.claim);
            if holder != operation.claim {
                let says = format!("{coupon} was told to {} and is of {}", text(operation.claim), text(holder));
                check.breaks(span(operation), says);
            }
        }
        check
    }

    fn unstable(&self) -> Check {
        let says = "An answer that is final stays: a coupon for ever, \"sold out\" until coupons are added.";
        let mut check = Check::new("unstable answer", says);
        for (claim, operations) in &self.claims {
            for (n, before) in operations.iter().enumerate().filter(|(_, before)| before.answer.is_final()) {
                check.checked += 1;
                // Only a request that began after this answer arrived is certainly later.
                let later = operations.iter().skip(n + 1).filter(|later| later.begun > before.ended);
                for later in later {
                    let is_other = match (before.answer, later.answer) {
                        (Answer::Issued(coupon), Answer::Issued(other)) => coupon != other,
                        (Answer::Issued(_), Answer::Pending) => true,
                        // An API that has not seen a restock yet does not know a new holder.
                        (Answer::Issued(_), Answer::SoldOut) => {
                            let since = later.begun.saturating_sub(SOLD_OUT_AGE);
                            !self.restocked_between(claim.campaign_id.0, since, later.ended)
                        }
                        (Answer::SoldOut, Answer::Issued(_) | Answer::Pending) => {
                            let since = before.begun.saturating_sub(SOLD_OUT_AGE);
                            !self.restocked_since(claim.campaign_id.0, since)
                        }
                        _ => false,
                    };
                    if is_other {
                        let says = format!("{} was told {:?}, then {:?}", text(*claim), before.answer, later.answer);
                        check.breaks((before.begun, later.ended), says);
                    }
                }
            }
        }
        check
    }

    fn undersold(&self) -> Check {
        let mut check = Check::new("undersold", "\"Sold out\" was answered only when no coupon was free.");
        for operation in self.evidence.operations.iter().filter(|one| one.answer == Answer::SoldOut) {
            check.checked += 1;
            let campaign = operation.claim.campaign_id.0;
            let since = operation.begun.saturating_sub(SOLD_OUT_AGE);
            let stock: u64 =
                self.restocks(campaign).filter(|restock| restock.ended <= since).map(|restock| restock.coupons).sum();
            // Each account that had claimed by then may have taken one, the others none.
            let claimed = self
                .first_claims
                .get(&campaign)
                .map_or(0, |times| times.partition_point(|begun| *begun <= operation.ended) as u64);
            let who = text(operation.claim);
            if stock > claimed {
                check.breaks(span(operation), format!("{who}: {claimed} had claimed and {stock} coupons were there"));
            } else if self.free(campaign) > 0 && !self.restocked_since(campaign, since) {
                let free = self.free(campaign);
                check.breaks(span(operation), format!("{who}: {free} coupons are free, and none was added since"));
            }
        }
        check
    }

    fn stock_conserved(&self) -> Check {
        let says = "A campaign has the coupons that were put into it, no more are issued, and SQL of our own agrees.";
        let mut check = Check::new("stock conserved", says);
        for (campaign, stock) in &self.evidence.rows.stocks {
            check.checked += 1;
            let put: u64 = self.restocks(*campaign).map(|restock| restock.coupons).sum();
            if put != stock.rows || put != stock.coupons || stock.issued > stock.rows {
                check.breaks((0, Micros::MAX), format!("campaign {campaign}: {put} coupons were put in: {stock:?}"));
            }
        }
        for (what, count) in &self.evidence.rows.wrong {
            check.checked += 1;
            if *count > 0 {
                check.breaks((0, Micros::MAX), format!("{count} {what}"));
            }
        }
        check
    }

    fn no_mistake_of_ours(&self) -> Check {
        let mut check = Check::new("refused", "No fault makes a correct request a wrong one, or an answer 500.");
        for operation in &self.evidence.operations {
            check.checked += 1;
            if let Answer::Refused(status) | Answer::Failed(status @ 500) = operation.answer {
                check.breaks(span(operation), format!("{} was answered {status}", text(operation.claim)));
            }
        }
        check
    }
}

fn text(claim: ClaimKey) -> String {
    format!("account {} of campaign {}", claim.account_id, claim.campaign_id)
}

#[cfg(test)]
mod tests;
