//! Measures what each fault did to claims, and how soon the system recovered.
//!
//! Invariants: a fault that touched no claim counts as missed; liveness is judged only while no fault is active,
//! because there is no guarantee about how soon a claim succeeds with a server away.

use std::collections::{BTreeMap, HashMap};

use coupon_core::ClaimKey;
use serde::Serialize;

use crate::checkers::Check;
use crate::faults::hit_by;
use crate::journal::{Answer, Micros, Operation, Request};
use crate::supervisor::{Played, Sample};

const SECOND: Micros = 1_000_000;

/// A claim whose outcome takes longer than this was held up: undisturbed claims take about ten milliseconds.
const SLOW: Micros = 300_000;

/// A claim that is not settled for this long, in a campaign that was restocked meanwhile, may be one whose outcome was
/// not kept.
const OUTDATED: Micros = 10 * SECOND;

/// The first success after a fault is healed comes within this time.
const FIRST_SUCCESS: Micros = 5 * SECOND;

/// From this long after a heal on, there are no more server errors.
const NO_ERRORS_AFTER: Micros = 10 * SECOND;

/// The last accepted claim is settled within this time of quiet.
const SETTLED: Micros = 30 * SECOND;

/// How far the counters of consumers lag.
const COUNTED_LATE: Micros = 2 * SECOND;

/// One claim as a client experiences it, from the first request to the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    instance: usize,
    /// When the claim was made.
    pub begun: Micros,
    /// When the outcome was known, or else when the last request ended.
    pub ended: Micros,
    /// Whether the outcome was known in the end.
    pub is_settled: bool,
    /// Requests without a certain answer.
    unknown: u64,
    /// Whether one of these turned out to have succeeded.
    recovered: bool,
}

/// Groups the requests of each account into visits.
#[must_use]
pub fn visits(operations: &[Operation]) -> Vec<Visit> {
    let mut by_claim: BTreeMap<ClaimKey, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_claim.entry(operation.claim).or_default().push(operation);
    }
    let mut visits = Vec::new();
    for mut requests in by_claim.into_values() {
        requests.sort_by_key(|operation| operation.begun);
        let Some(first) = requests.first() else { continue };
        let end = requests.iter().find(|operation| operation.answer.is_final());
        let until = end.map_or(Micros::MAX, |end| end.ended);
        let before_the_end = requests.iter().filter(|operation| operation.begun <= until);
        let unknown = before_the_end.filter(|operation| operation.answer.is_unknown()).count() as u64;
        let is_recovered = |pair: &[&Operation]| match pair {
            [lost, found] => {
                lost.request == Request::Claim
                    && lost.answer.is_unknown()
                    && found.request == Request::Ask
                    && matches!(found.answer, Answer::Issued(_))
            }
            _ => false,
        };
        visits.push(Visit {
            instance: first.instance,
            begun: first.begun,
            ended: end.or_else(|| requests.last()).map_or(first.ended, |last| last.ended),
            is_settled: end.is_some(),
            unknown,
            recovered: requests.windows(2).any(is_recovered),
        });
    }
    visits
}

/// The effect of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// The fault.
    #[serde(flatten)]
    pub played: Played,
    /// Claims in flight through the broken part when the fault began.
    pub in_flight: u64,
    /// Claims that the fault held up, or left without a certain answer.
    pub touched: u64,
    /// Requests without a certain answer.
    pub unknown: u64,
    /// Claims for which such a request turned out to have succeeded.
    pub recovered: u64,
    /// Redelivered messages, retried work, refills.
    pub counted: [f64; 3],
    /// The time from the heal to the first claim that succeeded after it, unless another fault came first.
    pub heal: Option<Micros>,
    /// Whether the fault touched a claim, and so counts.
    pub bit: bool,
}

/// Computes the effect of every fault.
#[must_use]
pub fn effects(played: &[Played], operations: &[Operation], visits: &[Visit], samples: &[Sample]) -> Vec<Effect> {
    played
        .iter()
        .enumerate()
        .map(|(n, one)| {
            let through = hit_by(&one.fault);
            let mine = || visits.iter().filter(|visit| through.contains(&visit.instance) && overlaps(visit, one));
            let is_touched = |visit: &&Visit| visit.unknown > 0 || visit.ended - visit.begun > SLOW;
            let touched = mine().filter(is_touched).count() as u64;
            let in_flight = mine().filter(|visit| visit.begun <= one.began).count() as u64;
            let (before, after) = (count_at(samples, one.began), count_at(samples, one.healed + COUNTED_LATE));
            let mut counted = after;
            counted.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
            let others = || played.iter().enumerate().filter(|(other, _)| *other != n).map(|(_, other)| other);
            Effect {
                played: one.clone(),
                in_flight,
                touched,
                unknown: mine().map(|visit| visit.unknown).sum(),
                recovered: mine().filter(|visit| visit.recovered).count() as u64,
                counted,
                heal: heal(one, others(), operations, &through),
                bit: one.error.is_none() && in_flight + touched > 0,
            }
        })
        .collect()
}

/// Whether a claim was in flight while a fault was active.
fn overlaps(visit: &Visit, fault: &Played) -> bool {
    let is_stuck = !visit.is_settled && visit.ended - visit.begun > OUTDATED && visit.unknown == 0;
    !is_stuck && visit.begun <= fault.healed && visit.ended >= fault.began
}

fn count_at(samples: &[Sample], at: Micros) -> [f64; 3] {
    let n = samples.partition_point(|sample| sample.at <= at);
    n.checked_sub(1).and_then(|n| samples.get(n)).map(|sample| sample.counts).unwrap_or_default()
}

/// How long after a heal the first claim succeeded. None if another fault was active at the time, or began before.
fn heal<'a>(
    fault: &Played,
    mut others: impl Iterator<Item = &'a Played>,
    operations: &[Operation],
    through: &[usize],
) -> Option<Micros> {
    let success = operations
        .iter()
        .filter(|one| one.request == Request::Claim && one.begun >= fault.healed && through.contains(&one.instance))
        .filter(|one| one.answer.is_final() || one.answer == Answer::Accepted)
        .map(|one| one.ended)
        .min();
    let until = success.unwrap_or(Micros::MAX);
    let is_disturbed = others.any(|other| other.began <= until && other.healed >= fault.healed);
    (!is_disturbed).then(|| until.saturating_sub(fault.healed))
}

/// Checks that claims succeed once no fault is active, as far as the run allowed enough time.
#[must_use]
pub fn liveness(effects: &[Effect], operations: &[Operation], end: Micros) -> Vec<Check> {
    let first = Check::of(
        "first success",
        "After a fault a claim succeeds within 5 s.",
        effects.iter().filter_map(|effect| Some((effect, effect.heal?))),
        |(effect, heal)| {
            let span = (effect.played.healed, effect.played.healed.saturating_add(*heal));
            let (kind, target) = (effect.played.fault.kind.name(), &effect.played.fault.target);
            (*heal > FIRST_SUCCESS).then(|| (span, format!("{kind} of {target}: {} ms", heal / 1_000)))
        },
    );
    let quiet = quiet(effects, end);
    let is_late = |one: &Operation, after: Micros| {
        quiet.iter().any(|(from, to)| one.begun >= from.saturating_add(after) && one.ended <= *to)
    };
    let errors = Check::of(
        "no errors",
        "10 s after a fault no claim is answered with an error of a server.",
        operations.iter().filter(|one| is_late(one, NO_ERRORS_AFTER)),
        |one| one.answer.is_unknown().then(|| ((one.begun, one.ended), format!("{:?}", one.answer))),
    );
    vec![first, errors, settled(operations, &quiet)]
}

/// The intervals in which no fault is active.
fn quiet(effects: &[Effect], end: Micros) -> Vec<(Micros, Micros)> {
    let mut faults: Vec<(Micros, Micros)> =
        effects.iter().map(|effect| (effect.played.began, effect.played.healed)).collect();
    faults.sort_unstable();
    let (mut quiet, mut from) = (Vec::new(), 0);
    for (began, healed) in faults {
        if began > from {
            quiet.push((from, began));
        }
        from = from.max(healed);
    }
    quiet.push((from, end));
    quiet
}

fn settled(operations: &[Operation], quiet: &[(Micros, Micros)]) -> Check {
    let mut accepted: HashMap<ClaimKey, Micros> = HashMap::new();
    let mut settled: HashMap<ClaimKey, Micros> = HashMap::new();
    for one in operations {
        if one.answer == Answer::Accepted {
            let at = accepted.entry(one.claim).or_insert(one.ended);
            *at = one.ended.min(*at);
        } else if one.answer.is_final() {
            let at = settled.entry(one.claim).or_insert(one.ended);
            *at = one.ended.min(*at);
        }
    }
    let waited = |from: Micros, to: Micros| -> Micros {
        quiet.iter().map(|(begin, end)| to.min(*end).saturating_sub(from.max(*begin))).max().unwrap_or(0)
    };
    Check::of(
        "settled",
        "Within 30 s without a fault every accepted claim has its outcome.",
        accepted.iter(),
        |(claim, accepted)| {
            let to = settled.get(claim).copied().unwrap_or(Micros::MAX);
            let says = || format!("account {} of campaign {}", claim.account_id, claim.campaign_id);
            (waited(**accepted, to) > SETTLED).then(|| ((**accepted, to), says()))
        },
    )
}

/// The highest share of bad faults that is consistent with `bad` of `of`, with a confidence of 95 %.
#[must_use]
pub fn upper_bound(bad: u64, of: u64) -> f64 {
    if of == 0 || bad >= of {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if at_most(bad, of, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// The probability of at most `bad` of `of`, if each is bad with probability `share`.
fn at_most(bad: u64, of: u64, share: f64) -> f64 {
    let mut term = (1.0 - share).powf(of as f64);
    let mut sum = term;
    for n in 0..bad {
        term *= (of - n) as f64 / (n + 1) as f64 * share / (1.0 - share);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests;
