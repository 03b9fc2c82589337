//! TLS: the files that settings name, and the connections to servers that are made with them.
//!
//! Invariant: the certificate of a server is always checked, against the authorities and the name of its host. No
//! setting makes a program trust a server without that.

mod files;
mod to_servers;

pub use files::{Authorities, Pair};
pub use to_servers::ToServers;
