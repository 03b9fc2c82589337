//! A model of the claim protocol, small enough to go through *every* order in which things can happen and fail.
//! `docs/RELIABILITY.md` explains what it shows.
//!
//! ```text
//! queue     accounts, broker, faults ─> consumer  its steps ─┐
//! skiplock  accounts, workers, locks ────────────────────────┼─> mysql  what statements do ─> said  was it true?
//! answers   what an API tells from memory and records ───────┘
//! world     what consumers work with   guards  what can be left out   properties  what must hold, by name
//! search    all states, shortest paths, in words
//! ```
//!
//! Invariant: where the services decide something in a function without a server (`queue_consumer::batch`,
//! `queue_consumer::reserve::proven_for`, `Outcome::of`), the models call it.

pub mod answers;
pub mod consumer;
pub mod guards;
pub mod mysql;
pub mod properties;
pub mod queue;
pub mod said;
pub mod search;
pub mod skiplock;
mod words;
pub mod world;
