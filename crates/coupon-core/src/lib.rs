//! The domain of the coupon system and what two or more of its services share.
//!
//! ```text
//! queue     producer-api ─ rabbitmq ─> queue-consumer ── mysql ──> MySQL
//! skiplock  skiplock-api ── mysql ──> MySQL
//! ```
//!
//! Services depend on this crate and never on each other, except redis-api, which is there to be compared with the
//! queue. MySQL is the only truth: whatever [`rabbitmq`] or [`redis`] loses, except a confirmed message, can be rebuilt
//! from it.

pub mod age;
pub mod api;
pub mod audit;
pub mod clock;
pub mod domain;
pub mod error;
pub mod http;
pub mod installation;
pub mod mysql;
pub mod rabbitmq;
pub mod redis;
pub mod service;
pub mod settings;
pub mod telemetry;
pub mod terminal;
pub mod tls;
pub mod tokens;

pub use domain::{AccountId, Campaign, CampaignId, Claim, ClaimKey, CouponId, InstallationId, InstanceId, Outcome};
pub use error::{Class, Error, Result};
pub use installation::Installation;
