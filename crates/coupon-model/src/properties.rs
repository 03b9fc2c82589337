//! The names of what must hold in every state. Each model says what they mean in its states, and which events must happen
//! in some: a search that never meets a refused UPDATE proves little.
//!
//! Invariant: the safety of a claim is judged by MySQL and by the answers given ([`crate::said`]), never by what a
//! consumer believes.

use stateright::{Model, Property};

use crate::said::{Judged, Said};

/// A coupon has at most one account, and once set it never changes.
pub const KEEPS_ITS_ACCOUNT: &str = "a coupon never changes hands";
/// An account has at most one coupon.
pub const ONE_EACH: &str = "an account gets one coupon at most";
/// A coupon reported as issued is in MySQL.
pub const ISSUED_AS_SAID: &str = "a coupon that was said to be issued is the account's";
/// "Sold out" is answered only if no row was free at some moment since the claim.
pub const SOLD_OUT_IS_TRUE: &str = "sold out is said only if none was free";
/// A repeated claim gets the same outcome.
pub const HOLDERS_ARE_KNOWN: &str = "sold out is never said to an account that holds a coupon";
/// Whenever there is no work left, each claim has its outcome. This stands in for "each claim eventually gets its
/// outcome", which this checker cannot decide where paths rejoin.
pub const SETTLED_IN_THE_END: &str = "when all is quiet, every claim has its outcome";
/// No batch loops for many rounds.
pub const FEW_ROUNDS: &str = "a batch takes 6 rounds at most";
/// Matters only for cost, in runs in which nothing fails.
pub const NO_ID_TWICE: &str = "no id is with two consumers at once";
/// Matters only for cost, whatever fails.
pub const ONE_REFILLS: &str = "two refill at once only if one has lost its lock";

/// This case is left to the client, which claims again.
pub const STAYS_PENDING: &str = "a claim that was settled as sold out stays pending after a restock";

/// The property with this name, or all but those that hold only in special runs.
pub fn chosen<M: Model>(all: Vec<Property<M>>, special: Vec<Property<M>>, only: Option<&str>) -> Vec<Property<M>> {
    match only {
        None => all,
        Some(name) => all.into_iter().chain(special).filter(|property| property.name == name).collect(),
    }
}

/// Whether one of these claims was answered this.
pub fn any_said(claims: &[Judged], word: Said) -> bool {
    claims.iter().any(|judged| judged.said == Some(word))
}
