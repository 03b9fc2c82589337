//! The claim protocol, in every order in which things can happen and fail.
//!
//! `exhaustive` goes through all states of each model: every property holds, and every interesting event happens. The
//! others leave out one guard at a time and show what breaks: a model that no mistake can break would prove nothing.

mod answers;
mod exhaustive;
mod queue;
mod skiplock;
