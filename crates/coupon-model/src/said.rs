//! What was said of a claim, and whether it was true at that moment.
//!
//! Invariant: this is the judge's notebook. No decision of a model reads it.

use coupon_core::{AccountId, CouponId, Outcome};

use crate::mysql::Mysql;

/// A claim as the judge sees it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Judged {
    /// Who claims.
    pub account: AccountId,
    /// Whether at some moment since the claim came no row was free.
    pub was_sold_out: bool,
    /// The last word.
    pub said: Option<Said>,
}

/// A word on a claim.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Said {
    /// The account has this coupon.
    Issued(CouponId),
    /// None is left, and there was a moment since the claim came when that was so.
    SoldOut,
    /// None is left, though there was one all the time.
    SoldOutWhileFree,
    /// None is left, though the account has one.
    SoldOutToAHolder,
}

impl Judged {
    /// A claim that has just come.
    pub fn new(account: AccountId, mysql: &Mysql) -> Self {
        Self { account, was_sold_out: mysql.is_sold_out(), said: None }
    }

    /// Notes how MySQL stands after an event.
    pub fn watch(&mut self, mysql: &Mysql) {
        self.was_sold_out |= mysql.is_sold_out();
    }

    /// Notes a word. What was wrong stays wrong.
    pub fn say(&mut self, outcome: Outcome, mysql: &Mysql) {
        if matches!(self.said, Some(Said::SoldOutWhileFree | Said::SoldOutToAHolder)) {
            return;
        }
        self.said = match outcome {
            Outcome::Issued { coupon_id } => Some(Said::Issued(coupon_id)),
            Outcome::SoldOut if mysql.coupon_of(self.account).is_some() => Some(Said::SoldOutToAHolder),
            Outcome::SoldOut if self.was_sold_out => Some(Said::SoldOut),
            Outcome::SoldOut => Some(Said::SoldOutWhileFree),
            Outcome::Pending => self.said,
        };
    }

    /// Whether a coupon that was said to be the account's is.
    pub fn is_issued_as_said(&self, mysql: &Mysql) -> bool {
        match self.said {
            Some(Said::Issued(id)) => mysql.is_held_by(id, self.account),
            _ => true,
        }
    }
}
