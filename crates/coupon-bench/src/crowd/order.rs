//! Measures how far first come is first served: compares who got a coupon with who claimed first.
//!
//! A claim counts from when it was meant to be sent, and an account by its first claim. If all get a coupon, nobody is
//! displaced, whatever the order.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A claim that has an outcome.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    pub account: u64,
    /// When the claim was meant to be sent.
    pub at: Duration,
    pub is_issued: bool,
}

/// How far a load was from first come, first served.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Order {
    /// Share of the coupons that went to an account later than one without a coupon.
    pub displaced: f64,
    /// How much earlier those accounts without a coupon were than the last one with a coupon: the median, in
    /// milliseconds.
    pub overtaken_p50_ms: f64,
    /// The maximum of the same.
    pub overtaken_max_ms: f64,
}

impl Order {
    pub fn of(mut claims: Vec<Claimed>) -> Self {
        claims.sort_by_key(|claim| claim.at);
        let mut seen = HashSet::new();
        claims.retain(|claim| seen.insert(claim.account));
        let issued = claims.iter().filter(|claim| claim.is_issued).count();
        let Some(last) = claims.iter().rev().find(|claim| claim.is_issued) else { return Self::default() };
        let displaced = claims.iter().take(issued).filter(|claim| !claim.is_issued);
        // In the order of the claims, so that the first was overtaken by the most time.
        let overtaken: Vec<Duration> = displaced.map(|claim| last.at.saturating_sub(claim.at)).collect();
        let ms = |overtaken: Option<&Duration>| overtaken.map_or(0.0, |by| by.as_secs_f64() * 1_000.0);
        Self {
            displaced: overtaken.len() as f64 / issued as f64,
            overtaken_p50_ms: ms(overtaken.get(overtaken.len() / 2)),
            overtaken_max_ms: ms(overtaken.first()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims of the accounts 1, 2, 3 …, one every 10 ms, where `issued` says which got a coupon.
    fn order(issued: &[bool]) -> String {
        let claimed =
            |(at, &is_issued): (u64, &bool)| Claimed { account: at + 1, at: Duration::from_millis(at * 10), is_issued };
        let order = Order::of((0..).zip(issued).map(claimed).collect());
        format!("{:.2}, {:.0} to {:.0} ms", order.displaced, order.overtaken_p50_ms, order.overtaken_max_ms)
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
        let claim = |account, ms, is_issued| Claimed { account, at: Duration::from_millis(ms), is_issued };

        let order = Order::of(vec![claim(2, 30, true), claim(1, 10, true), claim(3, 20, false), claim(2, 5, true)]);

        assert_eq!(order.displaced.to_bits(), 0.0_f64.to_bits());
    }
}
