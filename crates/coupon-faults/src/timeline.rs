//! What clients saw, second by second: how many answers they got, and how long claims took to reach their outcome.

use serde::Serialize;

use crate::effects::Visit;
use crate::journal::{Micros, Operation};

const SECOND: Micros = 1_000_000;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Second {
    /// Requests answered in this second.
    pub answered: u64,
    /// Requests that ended in this second without a certain answer.
    pub unknown: u64,
    /// The median time to the outcome of the claims made in this second, in milliseconds.
    pub middle_ms: u64,
    /// The longest such time, in milliseconds.
    pub longest_ms: u64,
}

/// Computes the figures of each second from the beginning of the load to its end.
#[must_use]
pub fn seconds(operations: &[Operation], visits: &[Visit], lasted: Micros) -> Vec<Second> {
    let place = |at: Micros| usize::try_from(at / SECOND).unwrap_or(usize::MAX);
    let mut seconds = vec![Second::default(); place(lasted) + 1];
    for operation in operations {
        if let Some(second) = seconds.get_mut(place(operation.ended)) {
            let is_unknown = operation.answer.is_unknown();
            second.unknown += u64::from(is_unknown);
            second.answered += u64::from(!is_unknown);
        }
    }
    let mut took: Vec<Vec<u64>> = vec![Vec::new(); seconds.len()];
    for visit in visits.iter().filter(|visit| visit.is_settled) {
        if let Some(took) = took.get_mut(place(visit.begun)) {
            took.push((visit.ended - visit.begun) / 1_000);
        }
    }
    for (second, mut took) in seconds.iter_mut().zip(took) {
        took.sort_unstable();
        second.middle_ms = took.get(took.len() / 2).copied().unwrap_or(0);
        second.longest_ms = took.last().copied().unwrap_or(0);
    }
    seconds
}
