//! Measures how far first come is first served: compares who got a coupon with who claimed first.
//!
//! A claim counts from when it was meant to be sent, and an account by its first claim. If all get a coupon, nobody is
//! displaced, whatever the order.

use std::collections::HashSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A claim that has an outcome.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    pub account: u64,
    /// When the claim was meant to be sent.
    pub sent: Duration,
    /// When it was answered, even if only with "accepted".
    pub answered: Duration,
    pub is_issued: bool,
}

/// How far a load was from first come, first served.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct Order {
    /// Share of the coupons that went to an account later than one without a coupon.
    pub displaced: f64,
    /// The smallest share that is certain, whatever the order of claims that overlapped in time: coupons for claims sent after
    /// the claim of an account without a coupon had been answered.
    pub surely_displaced: f64,
    /// How much earlier those accounts without a coupon were than the last one with a coupon: the median, in
    /// milliseconds.
    pub overtaken_p50_ms: f64,
    /// The 99th percentile of the same.
    pub overtaken_p99_ms: f64,
    /// The maximum of the same.
    pub overtaken_max_ms: f64,
    /// The rank error of a coupon is the number of accounts without one that were earlier: its mean.
    pub rank_error_mean: f64,
    /// The maximum of the same.
    pub rank_error_max: usize,
}

impl Order {
    pub fn of(mut claims: Vec<Claimed>) -> Self {
        claims.sort_by_key(|claim| claim.sent);
        let mut seen = HashSet::new();
        claims.retain(|claim| seen.insert(claim.account));
        let Some(last) = claims.iter().rev().find(|claim| claim.is_issued).copied() else { return Self::default() };
        // In the order of the claims, so that the first was overtaken by the most time.
        let overtaken: Vec<Duration> = displaced(&claims).map(|claim| last.sent.saturating_sub(claim.sent)).collect();
        let ms = |place: usize| overtaken.get(place).map_or(0.0, |by| by.as_secs_f64() * 1_000.0);
        let errors = rank_errors(&claims);
        let issued = errors.len() as f64;
        let (share, of) = (overtaken.len() as f64 / issued, overtaken.len());
        // Every account with a coupon is taken to be as early as possible, every other one as late.
        claims.sort_by_key(|claim| if claim.is_issued { claim.sent } else { claim.answered });
        Self {
            displaced: share,
            surely_displaced: displaced(&claims).count() as f64 / issued,
            overtaken_p50_ms: ms(of / 2),
            overtaken_p99_ms: ms(of / 100),
            overtaken_max_ms: ms(0),
            rank_error_mean: errors.iter().sum::<usize>() as f64 / issued,
            rank_error_max: errors.last().copied().unwrap_or_default(),
        }
    }
}

/// Of claims in order, those among as many as there were coupons that got none.
fn displaced(claims: &[Claimed]) -> impl Iterator<Item = &Claimed> {
    let issued = claims.iter().filter(|claim| claim.is_issued).count();
    claims.iter().take(issued).filter(|claim| !claim.is_issued)
}

/// Of claims in order, how many of those before each with a coupon got none.
fn rank_errors(claims: &[Claimed]) -> Vec<usize> {
    let is_issued = |(_, claim): &(usize, &Claimed)| claim.is_issued;
    let issued = claims.iter().enumerate().filter(is_issued).enumerate();
    issued.map(|(issued_before, (before, _))| before - issued_before).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims of the accounts 1, 2, 3 …, one every 10 ms, where `issued` says which got a coupon.
    fn order(issued: &[bool]) -> String {
        let order = order_of(issued, Duration::ZERO);
        format!("{:.2}, {:.0} to {:.0} ms", order.displaced, order.overtaken_p50_ms, order.overtaken_max_ms)
    }

    /// The same, each answered after this time.
    fn order_of(issued: &[bool], answered_in: Duration) -> Order {
        let claimed = |(n, &is_issued): (u64, &bool)| {
            let sent = Duration::from_millis(n * 10);
            Claimed { account: n + 1, sent, answered: sent + answered_in, is_issued }
        };
        Order::of((0..).zip(issued).map(claimed).collect())
    }

    #[test]
    fn who_was_overtaken_is_counted_with_by_how_much() {
        for nobody in [&[true, true, false, false][..], &[true, true, true], &[false, false], &[]] {
            assert_eq!(order(nobody), "0.00, 0 to 0 ms");
        }
        assert_eq!(order(&[false, true, true, false]), "0.50, 20 to 20 ms");
        assert_eq!(order(&[false, false, true, true]), "1.00, 20 to 30 ms");
    }

    #[test]
    fn an_account_counts_by_its_first_claim() {
        let claim = |account, ms, is_issued| {
            let sent = Duration::from_millis(ms);
            Claimed { account, sent, answered: sent, is_issued }
        };

        let order = Order::of(vec![claim(2, 30, true), claim(1, 10, true), claim(3, 20, false), claim(2, 5, true)]);

        assert_eq!(order.displaced.to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn claims_on_their_way_at_the_same_moment_may_have_come_in_any_order() {
        let order = |ms| order_of(&[false, true, false, true, true], Duration::from_millis(ms)).surely_displaced;

        let surely = [5, 15, 25, 35, 45].map(|ms| format!("{:.2}", order(ms)));

        assert_eq!(surely, ["0.67", "0.33", "0.33", "0.33", "0.00"]);
    }

    #[test]
    fn the_rank_error_of_a_coupon_counts_who_was_earlier_and_got_none() {
        let order = order_of(&[false, true, false, true, false], Duration::ZERO);

        assert_eq!((format!("{:.2}", order.rank_error_mean), order.rank_error_max), (String::from("1.50"), 2));
    }
}
