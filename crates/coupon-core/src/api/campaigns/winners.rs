//! A filter of the accounts that hold a coupon of a sold-out campaign, small enough to keep for every campaign in use.
//!
//! Invariant: accounts are added in ascending order, which makes "no" certain: a winner is never taken for a stranger.

use xorf::{BinaryFuse8, Filter};

use crate::domain::AccountId;
use crate::error::{Error, Result};

/// The winners that are read in one statement and share one filter. Building it takes 25 bytes for each of them, which
/// for a million at once would be more than the rest of the process takes.
pub const WINNERS_AT_ONCE: usize = 50_000;

/// The accounts that hold a coupon of a campaign, in about nine bits each: "no" is certain, and "yes" is wrong for one
/// in 256 of the other accounts.
#[derive(Debug)]
pub struct Winners {
    /// One filter after the other in order of accounts, each with the last account in it.
    filters: Vec<(u64, BinaryFuse8)>,
    /// The stock of the campaign when they were read.
    pub coupons: u64,
}

impl Winners {
    /// Creates an empty list of winners for a campaign with this stock.
    pub fn of_stock(coupons: u64) -> Self {
        Self { filters: Vec::new(), coupons }
    }

    /// Adds winners, which must be in ascending order and come after all others.
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

    /// Whether this account may be a winner.
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
