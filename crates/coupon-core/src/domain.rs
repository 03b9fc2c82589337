//! The terms of the system as types, which every other module may use.
//!
//! Invariant: this module is pure. It does no I/O, so every rule can be tested without a server, and it knows nothing
//! of servers, HTTP or telemetry: how these types look in the `OpenAPI` document is in `api/schemas.rs`, and how they
//! look in a span is in `telemetry/attribute.rs`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest number that every JSON parser preserves, 2^53 − 1: many parse numbers into floating point.
pub const JSON_NUMBER_MAX: u64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                plain_number(text, 1..=$max)
                    .map(Self)
                    .ok_or_else(|| format!("must be a whole number from 1 to {}, without a sign or leading zeros", $max))
            }
        }

        impl $name {
            /// The largest one; the smallest is 1.
            pub const MAX: Self = Self($max);
        }
    };
}

id! {
    /// A campaign: a kind of coupon, with its stock and its window. Answers contain its number, so every JSON parser
    /// must preserve it.
    CampaignId, JSON_NUMBER_MAX
}
id! {
    /// The account of the shop that makes a claim. Its number fits the signed integers of other languages.
    AccountId, i64::MAX.unsigned_abs()
}

/// A coupon's code: a random UUID (version 4), so that nobody can guess one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CouponId(pub Uuid);

impl CouponId {
    /// A new code.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for CouponId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An installation: one database, and all programs that work with it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct InstallationId(pub Uuid);

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InstallationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A process of producer-api, from its start to its end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InstanceId(pub Uuid);

impl InstanceId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses a number in its only valid spelling: digits, without a sign or leading zeros.
pub(crate) fn plain_number(text: &str, range: RangeInclusive<u64>) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_plain && range.contains(number))
}

/// The identity of a claim: an account gets at most one coupon of a campaign.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClaimKey {
    /// The campaign claimed from.
    pub campaign_id: CampaignId,
    /// The account that claims.
    pub account_id: AccountId,
}

/// An accepted claim on its way to an outcome.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Claim {
    /// The campaign claimed from.
    pub campaign_id: CampaignId,
    /// The account that claims.
    pub account_id: AccountId,
    /// When the API accepted it, in milliseconds since the Unix epoch. Its time in the queue counts from then, and a proof of
    /// "sold out" must be younger. The queue decides who came first, not this stamp.
    pub accepted_at_ms: u64,
}

impl Claim {
    /// The identity of this claim, whenever it was made.
    #[must_use]
    pub fn key(&self) -> ClaimKey {
        ClaimKey { campaign_id: self.campaign_id, account_id: self.account_id }
    }
}

/// The outcome of a claim. `Issued` never changes once it has been answered; `SoldOut` is answered only while no coupon
/// of the campaign is free.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// The account holds this coupon.
    Issued {
        /// The coupon's code.
        coupon_id: CouponId,
    },
    /// No coupon was left.
    SoldOut,
    /// Not decided yet, or never claimed.
    Pending,
}

impl Outcome {
    /// The outcome of a claim according to two reads, made in this order: whether no coupon was free, and which one the
    /// account holds. The other way round, a coupon issued to the account between the two would be missed.
    #[must_use]
    pub fn of(is_sold_out: bool, held: Option<CouponId>) -> Self {
        match held {
            Some(coupon_id) => Self::Issued { coupon_id },
            None if is_sold_out => Self::SoldOut,
            None => Self::Pending,
        }
    }

    /// Its name, as in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::SoldOut => "sold_out",
            Self::Pending => "pending",
        }
    }
}

/// A campaign as an operator made it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Campaign {
    /// Its number, in every address.
    pub id: CampaignId,
    /// Its name, for people.
    pub name: String,
    /// Claims are refused before this instant; `None` = open from the start.
    #[serde(with = "time::serde::rfc3339::option")]
    pub opens_at: Option<OffsetDateTime>,
    /// Claims are refused from this instant on; `None` = never closes.
    #[serde(with = "time::serde::rfc3339::option")]
    pub closes_at: Option<OffsetDateTime>,
    /// How many coupons it has, issued or free.
    pub coupons: u64,
    /// Whether claims are refused until it is resumed.
    pub paused: bool,
}

/// Where an instant lies in a campaign's window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Window {
    /// It lies before `opens_at`.
    NotOpen,
    /// Claims are taken.
    Open,
    /// It is `closes_at` or later.
    Closed,
}

impl Campaign {
    /// Where `now` lies in the window: `opens_at` belongs to it, `closes_at` does not. A campaign that closes before it
    /// opens is closed.
    #[must_use]
    pub fn window(&self, now: OffsetDateTime) -> Window {
        if self.closes_at.is_some_and(|closes_at| now >= closes_at) {
            Window::Closed
        } else if self.opens_at.is_some_and(|opens_at| now < opens_at) {
            Window::NotOpen
        } else {
            Window::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn window(opens_at: OffsetDateTime, closes_at: OffsetDateTime, now: OffsetDateTime) -> Window {
        let (opens_at, closes_at) = (Some(opens_at), Some(closes_at));
        let name = String::from("noon");
        Campaign { id: CampaignId(1), name, opens_at, closes_at, coupons: 0, paused: false }.window(now)
    }

    #[test]
    fn a_window_includes_its_start_and_excludes_its_end() {
        let noon = |now| window(datetime!(2030-01-01 12:00 UTC), datetime!(2030-01-01 13:00 UTC), now);

        assert_eq!(noon(datetime!(2030-01-01 11:59:59.999 UTC)), Window::NotOpen);
        assert_eq!(noon(datetime!(2030-01-01 12:00 UTC)), Window::Open);
        assert_eq!(noon(datetime!(2030-01-01 12:59:59.999 UTC)), Window::Open);
        assert_eq!(noon(datetime!(2030-01-01 13:00 UTC)), Window::Closed);
    }

    #[test]
    fn a_window_that_was_closed_before_it_opened_is_closed() {
        let opens_late =
            window(datetime!(2030-01-01 12:00 UTC), datetime!(2029-01-01 12:00 UTC), datetime!(2029-06-01 12:00 UTC));

        assert_eq!(opens_late, Window::Closed);
    }

    #[test]
    fn numbers_have_a_range() {
        assert_eq!("9007199254740991".parse(), Ok(CampaignId::MAX));
        assert_eq!("9223372036854775807".parse(), Ok(AccountId::MAX));
        for text in ["", "0", "-1", "+5", "01", "1.0", "9007199254740992", "18446744073709551616"] {
            assert!(text.parse::<CampaignId>().is_err(), "{text} was taken");
        }
        assert!("9223372036854775808".parse::<AccountId>().is_err());
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(plain_number("7", 1..=9), Some(7));
        for text in ["", "0", "07", "+7", "-7", "7.0", " 7", "seven", "10", "18446744073709551616"] {
            assert_eq!(plain_number(text, 1..=9), None, "{text:?} was taken");
        }
    }

    #[test]
    fn outcomes_are_named_by_their_status() {
        let issued = Outcome::Issued { coupon_id: CouponId(Uuid::nil()) };

        assert_eq!(
            serde_json::to_value(issued).unwrap(),
            serde_json::json!({"status": "issued", "coupon_id": "00000000-0000-0000-0000-000000000000"}),
        );
        assert_eq!(serde_json::to_value(Outcome::SoldOut).unwrap(), serde_json::json!({"status": "sold_out"}));
    }
}
