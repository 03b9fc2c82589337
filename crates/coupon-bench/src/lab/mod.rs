//! What an experiment needs around it: campaigns, services that it starts itself, their CPU time and memory, what
//! MySQL counts, and what it all runs on.

pub mod campaigns;
pub mod counters;
pub mod cpu;
pub mod machine;
pub mod memory;
pub mod service;
pub mod setup;
pub mod stand;
