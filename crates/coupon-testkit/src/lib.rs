//! For tests only: the support that tests against real servers need.
//!
//! Goal: tests that run in parallel, leave nothing behind, and wait for events, never for time to pass.
//!
//! ```text
//! space    a database, a Redis prefix and queues for one test ─┬─ service  services in this process, stopped or killed
//!                                                              ├─ api      an HTTP client that keeps its outcomes
//!                                                              └─ audit    the invariants, at the end of every test
//! users    a user for each program on each server, with no more rights than it needs
//! issuer   makes tokens and publishes its keys
//! authority  makes certificates
//! tls      a proxy that speaks TLS in front of a server
//! proxy    a proxy that can be cut, frozen, healed and pointed at another server
//! spare    servers that a test may replace the shared ones with, and break
//! program  runs a program the way its operator does: arguments, variables, output, exit code
//! options  tries each option of a program with odd values
//! running  a service in its own process, stopped by signals
//! collector  receives the spans of programs, as Jaeger would
//! secrets  searches the output of a program for secrets
//! service_tests  the tests that every service's program must pass, built on program, options, running and secrets
//! ```
//!
//! The tests of the whole system are in `tests/it`; the tests of each program are in the `tests` folder of its crate.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod api;
mod authority;
mod broker;
mod collector;
mod issuer;
pub mod options;
pub mod program;
mod proxy;
mod running;
pub mod secrets;
mod servers;
mod service;
mod service_tests;
mod space;
mod spare;
mod tls;
mod users;
mod wait;

pub use api::{Answer, Api};
pub use authority::{Issued, TestAuthority};
pub use collector::{Collector, Span};
pub use issuer::TestIssuer;
pub use proxy::Proxy;
pub use servers::Servers;
pub use service::Service;
pub use space::{TestSpace, run};
pub use spare::{Spare, with_spare};
pub use tls::TlsProxy;
pub use wait::{DEADLINE, eventually};
