//! The schedule: what is broken, when, and for how long. A seed always gives the same schedule, but not the same run,
//! because real programs and servers take their own time.
//!
//! Invariants: pure; every kind occurs equally often, give or take one; two faults at the same time never break the
//! same thing.

use std::collections::BTreeMap;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// The programs that a run starts, each with its number.
pub const INSTANCES: [&str; 6] =
    ["producer-api-1", "producer-api-2", "queue-consumer-1", "queue-consumer-2", "skiplock-api-1", "skiplock-api-2"];

/// The servers.
pub const SERVERS: [&str; 3] = ["mysql", "redis", "rabbitmq"];

/// The links between two of them that can be broken.
pub const LINKS: [&str; 9] = [
    "client/producer-api",
    "client/skiplock-api",
    "producer-api/mysql",
    "producer-api/rabbitmq",
    "producer-api/redis",
    "queue-consumer/mysql",
    "queue-consumer/rabbitmq",
    "queue-consumer/redis",
    "skiplock-api/mysql",
];

/// The instances that settle the claims in the queue.
pub const CONSUMERS: [&str; 2] = ["queue-consumer-1", "queue-consumer-2"];
const ALL: [&str; 1] = ["all programs"];
const CLOCK: [&str; 1] = ["a clock"];
const MYSQL: [&str; 1] = ["mysql"];
const REDIS: [&str; 1] = ["redis"];
const RABBITMQ: [&str; 1] = ["rabbitmq"];

/// The share of faults that may begin while the previous one is active, in percent. At least a quarter must.
const OVERLAPPING_PERCENT: u32 = 45;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A program is killed with SIGKILL, and started again after a while.
    KillProgram,
    /// A program is asked to stop with SIGTERM, must stop cleanly, and is started again.
    StopProgram,
    /// A program is paused for a while (SIGSTOP, SIGCONT).
    PauseProgram,
    /// A consumer is paused for longer than the refill lock lives, right after the lists of free ids were deleted.
    StaleRefiller,
    /// Every program is restarted, one after the other, with other settings.
    RollingRestart,
    /// A server is killed with SIGKILL, and started again.
    KillServer,
    /// A server is paused for a while.
    PauseServer,
    /// Redis loses everything.
    FlushRedis,
    /// Redis is killed and comes back with the data it held some seconds before.
    OlderRedis,
    /// The refill locks are deleted over and over, so that consumers refill the same list at the same time.
    TwoRefillers,
    /// Connections break, and new ones break as soon as they are made.
    Cut,
    /// Everything that is sent arrives late.
    Delay,
    /// Nothing moves, and nothing breaks.
    Freeze,
    /// Each connection breaks after some more bytes, at any point in a message.
    CutAfterBytes,
    /// The queue takes no further messages, and consumers are paused, so that it stays full.
    QueueFull,
    /// A producer-api whose clock is up to an hour ahead or behind takes claims.
    WrongClock,
    /// RabbitMQ blocks publishers because it has too little memory.
    MemoryAlarm,
    /// RabbitMQ blocks publishers because it has too little disk space.
    DiskAlarm,
    /// MySQL takes no writes.
    ReadOnly,
    /// MySQL has no connection left for the programs, which lose theirs.
    TooManyConnections,
    /// MySQL ends the programs' sessions over and over.
    KillSessions,
}

impl Kind {
    /// The targets that this kind can hit.
    #[must_use]
    pub fn targets(self) -> &'static [&'static str] {
        match self {
            Self::KillProgram | Self::StopProgram | Self::PauseProgram => &INSTANCES,
            Self::StaleRefiller => &CONSUMERS,
            Self::RollingRestart => &ALL,
            Self::KillServer | Self::PauseServer => &SERVERS,
            Self::FlushRedis | Self::OlderRedis | Self::TwoRefillers => &REDIS,
            Self::Cut | Self::Delay | Self::Freeze | Self::CutAfterBytes => &LINKS,
            Self::QueueFull | Self::MemoryAlarm | Self::DiskAlarm => &RABBITMQ,
            Self::WrongClock => &CLOCK,
            Self::ReadOnly | Self::TooManyConnections | Self::KillSessions => &MYSQL,
        }
    }

    /// The shortest and the longest duration, in milliseconds.
    fn holds_ms(self) -> (u64, u64) {
        match self {
            Self::KillProgram | Self::StopProgram | Self::KillServer => (200, 1_500),
            // These take their own time: a moment, or as long as the restarts.
            Self::FlushRedis | Self::RollingRestart => (0, 1),
            // The lock lives for 5 seconds.
            Self::StaleRefiller => (6_000, 8_000),
            Self::OlderRedis => (1_500, 3_000),
            Self::Cut | Self::CutAfterBytes => (300, 2_500),
            // Consumers have room for some messages of their own.
            Self::QueueFull => (3_000, 5_000),
            _ => (1_000, 4_000),
        }
    }

    /// The kind's name, as in the options and the table.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One fault.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fault {
    /// When it begins, in milliseconds since the load began. It waits for any earlier fault that still holds what it
    /// breaks.
    pub at_ms: u64,
    /// The kind of fault.
    pub kind: Kind,
    /// What it hits.
    pub target: String,
    /// How long it lasts, in milliseconds, before it is repaired.
    pub hold_ms: u64,
    /// A number that determines the rest: the length of a delay, how many bytes may pass, which other settings to use.
    pub chance: u64,
}

impl Fault {
    /// The things that no other fault may break meanwhile.
    #[must_use]
    pub fn breaks(&self) -> Vec<&str> {
        match self.kind {
            Kind::RollingRestart => INSTANCES.to_vec(),
            // Only Redis shows which consumer refills.
            Kind::StaleRefiller => vec!["redis", &self.target],
            Kind::QueueFull => [&CONSUMERS[..], &RABBITMQ[..]].concat(),
            // Its claims need a broker that takes them.
            Kind::WrongClock => RABBITMQ.to_vec(),
            _ => vec![&self.target],
        }
    }
}

/// The faults of a run, in order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Schedule {
    /// The seed, which also decides who claims what.
    pub seed: u64,
    /// How long the load lasts, in milliseconds.
    pub load_ms: u64,
    /// Claims per second.
    pub rate: u32,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// Undisturbed load before the first fault and after the last one.
pub const QUIET_MS: u64 = 3_000;

impl Schedule {
    /// Makes a schedule of this many faults within this time.
    #[must_use]
    pub fn new(seed: u64, kinds: &[Kind], faults: usize, load_ms: u64, rate: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let room_ms = load_ms.saturating_sub(2 * QUIET_MS);
        let every_ms = room_ms / faults.max(1) as u64;
        let mut next: Next = Next::new(&mut rng);
        let mut faults: Vec<Fault> =
            kinds.iter().cycle().take(faults).map(|&kind| next.fault(&mut rng, kind)).collect();
        faults.shuffle(&mut rng);
        let mut free_from = QUIET_MS;
        for n in 0..faults.len() {
            let before = n.checked_sub(1).and_then(|before| faults.get(before)).cloned();
            let Some(fault) = faults.get_mut(n) else { continue };
            let turn = QUIET_MS + every_ms * n as u64 + rng.random_range(0..=every_ms / 4);
            fault.at_ms = turn.max(free_from);
            if let Some(before) = before
                && before.hold_ms > 400
                && !fault.breaks().iter().any(|thing| before.breaks().contains(thing))
                && rng.random_range(0..100) < OVERLAPPING_PERCENT
            {
                fault.at_ms = before.at_ms + before.hold_ms * rng.random_range(20..=70) / 100;
            }
            free_from = fault.at_ms;
        }
        Self { seed, load_ms, rate, faults }
    }
}

/// Goes through the targets of each kind in turn, each kind in a random order of its own.
struct Next {
    targets: BTreeMap<Kind, Vec<&'static str>>,
    taken: BTreeMap<Kind, usize>,
}

impl Next {
    fn new(rng: &mut StdRng) -> Self {
        let shuffled = |kind: &Kind| {
            let mut targets = kind.targets().to_vec();
            targets.shuffle(rng);
            (*kind, targets)
        };
        Self { targets: Kind::value_variants().iter().map(shuffled).collect(), taken: BTreeMap::new() }
    }

    fn fault(&mut self, rng: &mut StdRng, kind: Kind) -> Fault {
        let taken = self.taken.entry(kind).or_default();
        let targets = self.targets.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let target = targets.get(*taken % targets.len().max(1)).copied().unwrap_or_default().to_owned();
        *taken += 1;
        let (from, to) = kind.holds_ms();
        Fault { at_ms: 0, kind, target, hold_ms: rng.random_range(from..=to), chance: rng.random() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64, faults: usize) -> Schedule {
        Schedule::new(seed, Kind::value_variants(), faults, 30 * 60 * 1_000, 200)
    }

    #[test]
    fn a_seed_gives_the_same_schedule_and_another_one_another() {
        assert_eq!(schedule(7, 300), schedule(7, 300));
        assert_ne!(schedule(7, 300), schedule(8, 300));
    }

    #[test]
    fn every_kind_comes_equally_often_and_hits_all_it_can() {
        let schedule = schedule(7, 300);

        for kind in Kind::value_variants() {
            let of_kind: Vec<&Fault> = schedule.faults.iter().filter(|fault| fault.kind == *kind).collect();
            assert!(of_kind.len().abs_diff(300 / Kind::value_variants().len()) <= 1, "{kind:?}: {}", of_kind.len());
            let hit = |target: &&&str| of_kind.iter().any(|fault| fault.target == **target);
            assert_eq!(kind.targets().iter().filter(hit).count(), kind.targets().len(), "{kind:?}");
        }
    }

    #[test]
    fn a_quarter_of_the_faults_begin_while_another_is_on() {
        for seed in 0..20 {
            let schedule = schedule(seed, 300);
            let on = |now: &Fault, n: usize| {
                let before = schedule.faults.iter().take(n);
                before.clone().any(|fault| fault.at_ms + fault.hold_ms > now.at_ms)
            };
            let overlapping = schedule.faults.iter().enumerate().filter(|(n, now)| on(now, *n)).count();

            assert!(overlapping * 4 >= schedule.faults.len(), "{overlapping} of seed {seed}");
        }
    }

    #[test]
    fn faults_come_in_order_and_leave_time_at_the_end() {
        let schedule = schedule(7, 300);

        assert!(schedule.faults.is_sorted_by_key(|fault| fault.at_ms));
        assert!(schedule.faults.iter().all(|fault| fault.at_ms >= QUIET_MS && fault.at_ms < schedule.load_ms));
    }

    #[test]
    fn a_schedule_survives_its_file() {
        let schedule = schedule(7, 20);
        let text = serde_json::to_string(&schedule).unwrap();

        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}
