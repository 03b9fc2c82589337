//! The answers given about a claim, and whether they were true at that moment.
//!
//! Invariant: this is the judge's notebook. No decision of a model reads it.

use coupon_core::{AccountId, CouponId, Outcome};

use crate::mysql::Mysql;

/// A claim as the judge sees it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Judged {
    /// The account that claims.
    pub account: AccountId,
    /// Whether no row was free at some moment since the claim arrived.
    pub was_sold_out: bool,
    /// The last answer.
    pub said: Option<Said>,
}

/// An answer about a claim.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Said {
    /// The account holds this coupon.
    Issued(CouponId),
    /// "Sold out", and no row was free at some moment since the claim arrived.
    SoldOut,
    /// "Sold out", although a row was free all the time.
    SoldOutWhileFree,
    /// "Sold out", although the account holds a coupon.
    SoldOutToAHolder,
}

impl Judged {
    /// Creates a claim that has just arrived.
    pub fn new(account: AccountId, mysql: &Mysql) -> Self {
        Self { account, was_sold_out: mysql.is_sold_out(), said: None }
    }

    /// Notes the state of MySQL after an event.
    pub fn watch(&mut self, mysql: &Mysql) {
        self.was_sold_out |= mysql.is_sold_out();
    }

    /// Notes an answer. A wrong answer stays on record.
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

    /// Whether a coupon reported as the account's really is.
    pub fn is_issued_as_said(&self, mysql: &Mysql) -> bool {
        match self.said {
            Some(Said::Issued(id)) => mysql.is_held_by(id, self.account),
            _ => true,
        }
    }
}
