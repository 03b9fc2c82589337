//! What an experiment needs around it: campaigns, services that it starts itself, their memory, and what it runs on.

pub mod campaigns;
pub mod machine;
pub mod memory;
pub mod service;
pub mod stand;
