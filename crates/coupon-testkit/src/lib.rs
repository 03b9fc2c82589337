//! Tests only: what a test against the real servers needs.
//!
//! Goal: tests that run side by side and leave nothing behind, and that wait for events, never for a time to pass.
//!
//! ```text
//! space    a database, a Redis prefix and queues for one test ─┬─ service  services in this process, stopped or killed
//!                                                              ├─ api      an HTTP client that keeps what it was answered
//!                                                              └─ audit    the invariants, at the end of every test
//! users    each program's own on the servers, with no more rights than it needs
//! issuer   makes tokens and publishes its keys
//! authority  makes certificates
//! tls      a server's address that is spoken to over TLS
//! proxy    a server's address that can be cut, frozen, healed and led to another server
//! spare    servers to put in the place of those that all tests share, and to spoil
//! program  a program as its operator meets it: arguments, variables, output, exit code
//! options  each of a program, with odd values
//! running  a service as a program of its own, stopped by signals
//! collector  receives the spans of programs, as Jaeger would
//! secrets  what it writes, searched for what nobody may read
//! service_tests  what each service's own program has to pass, by the four above
//! ```
//!
//! The tests of the whole system are in `tests/it`; the programs' own are in the `tests` folders of their crates.
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
