//! The experiments: each with its arguments, its run, and a result that prints as a table or JSON.

pub mod against;
pub mod burst;
pub mod ceilings;
pub mod compare;
pub mod load;
pub mod matrix;
pub mod order;
pub mod pushes;
pub mod suite;
pub mod sweep;
pub mod tracing_cost;
pub mod unguarded;
