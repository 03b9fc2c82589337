//! The words for events in a path.

use std::fmt;

use crate::{answers, consumer, queue, skiplock};

impl fmt::Display for queue::Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(account) => write!(f, "account {account} claims"),
            Self::Take(n, count) => write!(f, "consumer {} takes {}", n + 1, claims(*count)),
            Self::Do(n, step) => write!(f, "consumer {} {step}", n + 1),
            Self::Crash(n) => write!(f, "consumer {} is killed", n + 1),
            Self::Disconnect(n) => write!(f, "consumer {} loses the broker", n + 1),
            Self::Fail(n) => write!(f, "a server fails consumer {}", n + 1),
            Self::Expire => f.write_str("the refill lock expires"),
            Self::Empty => f.write_str("Redis loses everything"),
            Self::Restore => f.write_str("Redis comes back with all ids"),
            Self::Restock => f.write_str("an operator adds a coupon"),
        }
    }
}

impl fmt::Display for consumer::Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "waits",
            Self::Pop => "pops ids",
            Self::Lock => "asks for the refill lock",
            Self::Check => "looks at the list",
            Self::ReadMark => "reads where the last refill ended",
            Self::ReadOn => "reads free rows behind that",
            Self::ReadAll => "reads free rows from the beginning",
            Self::Push => "fills the list",
            Self::Mark => "notes where its refill ended",
            Self::Unlock => "frees the refill lock",
            Self::Issue => "issues",
            Self::LookUp => "looks up what the accounts hold",
            Self::LookUpTooEarly => "looks up too early what the accounts hold",
            Self::Answer => "answers by that",
            Self::GiveBack => "gives ids back",
            Self::Drop => "drops the list",
            Self::Ack => "acknowledges",
        })
    }
}

impl fmt::Display for skiplock::Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(account) => write!(f, "account {account} claims"),
            Self::Take(n, count) => write!(f, "worker {} takes {}", n + 1, claims(*count)),
            Self::Do(n, step) => write!(f, "worker {} {step}", n + 1),
            Self::Crash(n) => write!(f, "worker {} is killed", n + 1),
            Self::RollBack(n) => write!(f, "MySQL rolls worker {} back", n + 1),
            Self::Restock => f.write_str("an operator adds a coupon"),
        }
    }
}

impl fmt::Display for skiplock::Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "waits",
            Self::ReadAhead => "reads ids ahead",
            Self::Lock => "locks its rows",
            Self::Commit => "commits",
            Self::LookUp => "looks up what the accounts with a row hold",
            Self::ReadFree => "reads whether a row is free",
            Self::LookUpOthers => "looks up what the accounts without a row hold",
        })
    }
}

impl fmt::Display for answers::Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(account) => write!(f, "account {account} claims"),
            Self::Settle(account, true) => write!(f, "the claim of account {account} is settled and recorded"),
            Self::Settle(account, false) => write!(f, "the claim of account {account} is settled"),
            Self::Ask(account) => write!(f, "account {account} asks"),
            Self::LookUp => f.write_str("the API looks up MySQL and answers"),
            Self::ReadStock => f.write_str("the API reads whether a row is free"),
            Self::ReadHolders => f.write_str("the API reads who holds a coupon"),
            Self::Wait => f.write_str("1.5 s pass"),
            Self::Restock => f.write_str("an operator adds a coupon"),
        }
    }
}

/// Turns events into sentences. Consecutive steps of one consumer or worker share a sentence.
pub fn story<A: fmt::Display>(events: &[A]) -> Vec<String> {
    let mut story: Vec<String> = Vec::new();
    let mut before = None;
    for event in events.iter().map(ToString::to_string) {
        let (actor, does) = split(&event);
        match story.last_mut() {
            Some(sentence) if actor.is_some() && actor == before => *sentence = format!("{sentence}, {does}"),
            _ => story.push(event.clone()),
        }
        before = actor;
    }
    story
}

/// Splits an event into the actor, such as "consumer 1", and what it does.
fn split(event: &str) -> (Option<String>, String) {
    match *event.splitn(3, ' ').collect::<Vec<_>>() {
        [kind @ ("consumer" | "worker"), number, does] => (Some(format!("{kind} {number}")), does.to_owned()),
        _ => (None, event.to_owned()),
    }
}

fn claims(count: usize) -> String {
    if count == 1 { String::from("a claim") } else { format!("{count} claims") }
}
