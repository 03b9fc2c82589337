//! Breaks the real programs and servers under load, following a schedule written beforehand, and checks the answers to
//! clients against what MySQL holds.
//!
//! ```text
//! schedule  what breaks, when and for how long: from a seed, or a file ─> supervisor ─> faults  each begins and ends
//! stage     the servers (servers), the programs (programs), and a proxy on every way between two of them
//! load      clients (clients) that claim on a fixed schedule, from campaigns that sell out and are restocked (campaigns)
//! follow_up what a client does about an answer that is not final, or did not come
//! journal   every request with its answer ─┬─> checkers  what must hold ─┬─> report ─> page
//! rows      what MySQL holds at the end   ─┘   effects   what faults did ─┘
//! ```
//!
//! Invariants: the schedule is written before anything is broken; every request is in the journal, including those
//! without an answer; a checker is a pure function, so that a test can show each one failing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a run ends where it cannot go on")]

pub mod campaigns;
pub mod checkers;
pub mod clients;
pub mod effects;
pub mod faults;
pub mod flushes;
pub mod follow_up;
pub mod journal;
pub mod load;
pub mod logs;
pub mod page;
pub mod programs;
pub mod report;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod servers;
pub mod stage;
pub mod supervisor;
pub mod timeline;
