//! The environment of an experiment: campaigns, the services it starts, their CPU time and memory, MySQL's counters,
//! and the machine.

pub mod campaigns;
pub mod counters;
pub mod cpu;
pub mod machine;
pub mod memory;
pub mod service;
pub mod setup;
pub mod stand;
