//! Prints the observations.

use coupon_core::terminal::{print, print_json};

use super::observe::{Access, Beside, Locks, Observed};
use crate::output::Printed;

pub fn show(observed: &[Observed], json: bool) -> Printed {
    if json {
        return print_json(observed);
    }
    observed.iter().try_for_each(one)
}

fn one(observed: &Observed) -> Printed {
    let Observed { statement, plan, tree, reads, locks, locks_unknown, beside } = observed;
    print(&format!("{} ({})\n  {}", statement.name, statement.way, statement.solves))?;
    print(&format!("  statement  {}", one_blank_between_words(statement.text)))?;
    for alike in plan.chunk_by(|one, next| one == next) {
        let Some(Access { table, kind, key, extra }) = alike.first() else { continue };
        let key = key.as_deref().unwrap_or("no index");
        let comma = if extra.is_empty() { "" } else { ", " };
        let times = if alike.len() > 1 { format!(", {} times", alike.len()) } else { String::new() };
        print(&format!("  plan       {table}: {kind} by {key}{comma}{extra}{times}"))?;
    }
    for line in tree.iter().flat_map(|tree| tree.lines()) {
        print(&format!("             {line}"))?;
    }
    print(&format!("  reads      {reads} entries"))?;
    for Locks { table, index, mode, rows } in locks {
        print(&format!("  locks      {rows} of {table} in {index}: {mode}"))?;
    }
    match locks_unknown {
        Some(reason) => print(&format!("  locks      not checked: {reason}"))?,
        None if locks.is_empty() => print(&"  locks      none")?,
        None => {}
    }
    match beside {
        Some(Beside::GoesOn) => print(&"  beside it  a second claimer goes on at once")?,
        Some(Beside::Waits) => print(&"  beside it  a second claimer waits until the first has committed")?,
        None => {}
    }
    print(&"")
}

fn one_blank_between_words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
