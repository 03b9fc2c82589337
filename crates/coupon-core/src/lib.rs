//! The domain of the coupon system and what two or more of its services share.
//!
//! ```text
//! queue     producer-api ── broker ──> queue-consumer ── mysql ──> MySQL
//! skiplock  skiplock-api ── mysql ──> MySQL
//! ```
//!
//! Services depend on this crate and never on each other. MySQL is the only truth: whatever [`broker`] or [`outcomes`]
//! lose, except a confirmed message, can be rebuilt from it.

pub mod age;
pub mod audit;
pub mod broker;
pub mod campaigns;
pub mod claims;
pub mod domain;
pub mod error;
pub mod http;
pub mod installation;
pub mod keys;
pub mod mysql;
pub mod outcomes;
pub mod process;
pub mod redis;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod terminal;
pub mod tokens;

pub use domain::{AccountId, Campaign, CampaignId, Claim, ClaimKey, CouponId, InstallationId, Outcome};
pub use error::{Class, Error, Result};
pub use installation::Installation;
