//! Searches all states of a model.
//!
//! Invariant: a path is the shortest one. stateright keeps the last path it finds to a property, and stops at the first
//! only if it looks for nothing else; so a path is searched for one property at a time, by one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::{Duration, Instant};

use serde::Serialize;
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, Expectation, Model};

use crate::words::story;

/// The result of a search through all states.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Searched {
    /// The number of distinct states.
    pub states: usize,
    /// Whether these are all states.
    pub is_complete: bool,
    /// The properties that must hold and do not.
    pub broken: BTreeSet<&'static str>,
    /// The events that should happen in some state and do not.
    pub missed: BTreeSet<&'static str>,
}

/// Threads of a search: more do not speed up a small one.
const THREADS: usize = 2;

/// How often a search is polled, which is also the least time it takes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often it reports progress.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Goes through all states in about `steps_max` steps at most. Reports now and then how many states it has seen.
pub fn all_states<M>(model: M, steps_max: usize, tell: impl Fn(usize) + Send) -> Searched
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let expected = model.properties().into_iter().map(|property| (property.name, property.expectation));
    let (always, sometimes): (Vec<_>, Vec<_>) = expected.partition(|(_, expected)| *expected == Expectation::Always);
    let search = model.checker().threads(THREADS).target_state_count(steps_max).spawn_bfs();
    let search = search.join_and_report(&mut Progress { tell, told_at: Instant::now() });
    let met: BTreeSet<&'static str> = search.discoveries().into_keys().collect();
    let names = |properties: Vec<(&'static str, Expectation)>| properties.into_iter().map(|(name, _)| name);
    Searched {
        states: search.unique_state_count(),
        is_complete: search.state_count() < steps_max,
        broken: names(always).filter(|name| met.contains(name)).collect(),
        missed: names(sometimes).filter(|name| !met.contains(name)).collect(),
    }
}

/// The shortest path to a state in which the model's only property is broken or, for an event that must happen
/// somewhere, met.
pub fn shortest_path<M>(model: M) -> Option<Vec<String>>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Display + PartialEq,
{
    let search = model.checker().spawn_bfs().join();
    let path = search.discoveries().into_values().next()?;
    Some(story(&path.into_actions()))
}

struct Progress<F> {
    tell: F,
    told_at: Instant,
}

impl<M: Model, F: Fn(usize)> Reporter<M> for Progress<F> {
    fn report_checking(&mut self, data: ReportData) {
        if !data.done && self.told_at.elapsed() >= TELL_EVERY {
            (self.tell)(data.unique_states);
            self.told_at = Instant::now();
        }
    }

    fn report_discoveries(&mut self, _: &M, _: BTreeMap<&'static str, ReportDiscovery<M>>)
    where
        M::Action: Debug + PartialEq,
        M::State: Debug + Hash + PartialEq,
    {
    }

    fn delay(&self) -> Duration {
        LOOK_EVERY
    }
}
