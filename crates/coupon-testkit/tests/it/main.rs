//! Tests of the whole system against real servers.
//!
//! Goal: both approaches keep the same promises, whatever fails underneath. Method: each promise of the HTTP API is one
//! test that runs for every way to run the system; failures that only one approach can have, and those that a server
//! causes in either, have tests of their own. Each test works in a space of its own, waits for events, and ends with
//! the audit.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where it cannot go on"
)]

#[macro_use]
mod system;

mod addresses;
mod auth;
mod bad_input;
mod broker;
mod browsers;
mod claims;
mod consumers;
mod crowd;
mod docs;
mod installations;
mod least;
mod messages;
mod methods;
mod metrics;
mod mysql;
mod operators;
mod order;
mod outcomes;
mod pages;
mod plans;
mod programs;
mod pushed;
mod redis;
mod replaced;
mod requests;
mod rights;
mod scripts;
mod sold_out;
mod stopping;
mod switching;
mod tls;
mod traces;
mod unsafe_broker;
mod windows;
mod workspace;
