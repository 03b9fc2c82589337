//! What an experiment needs around it: campaigns, services that it starts itself, their CPU time and memory, and
//! what it runs on.

pub mod campaigns;
pub mod cpu;
pub mod machine;
pub mod memory;
pub mod service;
pub mod stand;
