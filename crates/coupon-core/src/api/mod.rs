//! What only the two APIs share: the routes of a claim, who is let in, the campaigns and outcomes they answer from, and
//! the document that describes them.
//!
//! Invariant: both APIs answer alike, so that a client or a load tool can switch between them; only the handling of an
//! admitted claim is a service's own.

pub mod auth;
pub mod campaigns;
pub mod docs;
pub mod extract;
pub mod outcome_reader;
pub mod rate_limit;
mod recent;
pub mod refusals;
pub mod repeats;
pub mod routes;
pub mod schemas;
pub mod serve;
