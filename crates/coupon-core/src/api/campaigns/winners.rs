//! A filter of the accounts that hold a coupon of a sold-out campaign, small enough to keep for every campaign in use.
//!
//! Invariant: accounts are added in ascending order, and then "no" is certain: a winner is never taken for a stranger.

use xorf::{BinaryFuse8, Filter};

use crate::domain::AccountId;
use crate::error::{Error, Result};

/// Winners read in one statement, into a filter of their own: while it is built it takes 25 bytes for each of them, which
/// for a million at once would be more than all the rest of the process.
pub const WINNERS_AT_ONCE: usize = 50_000;

/// The accounts that hold a coupon of a campaign, in about nine bits each: "no" is certain, "yes" is right in 255 of
/// 256 cases.
#[derive(Debug)]
pub struct Winners {
    /// One after the other in order of accounts, each with the last account that it knows.
    filters: Vec<(u64, BinaryFuse8)>,
    /// The stock that they were read for.
    pub coupons: u64,
}

impl Winners {
    /// Creates an empty one, for a campaign with this stock.
    pub fn of_stock(coupons: u64) -> Self {
        Self { filters: Vec::new(), coupons }
    }

    /// Adds winners that come after all others, in order.
    pub fn add(&mut self, accounts: &[u64]) -> Result<()> {
        let Some(&last) = accounts.last() else { return Ok(()) };
        let filter = BinaryFuse8::try_from(accounts)
            .map_err(|reason| Error::Broken(format!("no filter for {} winners: {reason}", accounts.len())))?;
        self.filters.push((last, filter));
        Ok(())
    }

    /// The last account that was added, or 0.
    pub fn last(&self) -> u64 {
        self.filters.last().map_or(0, |(last, _)| *last)
    }

    /// Whether this account may be among them.
    pub fn may_contain(&self, account: AccountId) -> bool {
        let position = self.filters.partition_point(|(last, _)| *last < account.0);
        self.filters.get(position).is_some_and(|(_, filter)| filter.contains(&account.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_winner_is_never_taken_for_a_stranger() {
        for count in [0_u64, 1, 2, 3, 10, 1_000, 120_000] {
            let accounts: Vec<u64> = (1..=count).map(|n| 2 * n).collect();
            let mut winners = Winners::of_stock(count);
            for accounts in accounts.chunks(WINNERS_AT_ONCE) {
                winners.add(accounts).unwrap();
            }

            assert!(accounts.iter().all(|account| winners.may_contain(AccountId(*account))), "{count} winners");
            let strangers = (0..=count).filter(|n| winners.may_contain(AccountId(2 * n + 1))).count();
            assert!(strangers as u64 <= 3 + count / 128, "{strangers} strangers were taken for one of {count} winners");
        }
    }
}
