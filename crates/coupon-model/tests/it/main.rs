//! The claim protocol, in every order in which things can happen and fail.
//!
//! `exhaustive` goes through all states of each model: what must hold holds, and everything worth meeting is met. The others
//! leave one guard out at a time and show what falls: a model that no mistake can break would be no evidence.

mod answers;
mod exhaustive;
mod queue;
mod skiplock;
