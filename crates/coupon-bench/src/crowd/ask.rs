//! How a crowd learns the outcomes of claims that were only accepted: the three means that a client has.

use clap::ValueEnum;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;

/// When and how a client asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// In a long poll, as soon as a claim is accepted.
    LongPoll,
    /// In the claim itself, with `Prefer: wait=10`; if that was too short, in a long poll.
    Prefer,
    /// In a long poll, once every claim of the load has been accepted.
    Later,
}

impl Ask {
    /// The header that it adds to a claim.
    pub fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let prefer = (HeaderName::from_static("prefer"), HeaderValue::from_static("wait=10"));
        (self == Self::Prefer).then_some(prefer)
    }
}
