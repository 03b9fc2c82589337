//! Plays each fault from beginning to end: something breaks, stays broken for a while, and is repaired.
//!
//! ```text
//! programs     killed, stopped, paused, restarted with other settings
//! servers      killed and paused, whichever it is
//! clocks       claims that are stamped as if made in the past or the future
//! connections  cut, late, frozen, cut within a message
//! mysql, redis, rabbitmq  what only that server can suffer
//! ```
//!
//! Invariant: a fault ends with everything as it was before, and with what it broke answering again.

mod clocks;
mod connections;
mod mysql;
mod programs;
mod rabbitmq;
mod redis;
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::{APIS, Clients};
use crate::journal::{Instance, Micros};
use crate::schedule::{Fault, INSTANCES, Kind};
use crate::stage::{Stage, program_of};

/// How long a fault waits for a claim that it can hit.
const WAIT_FOR_CLAIM: Duration = Duration::from_secs(1);

/// A fault, and everything it works on.
pub struct Scene {
    /// The stage that it breaks.
    pub stage: Arc<Stage>,
    /// The clients whose claims it hits.
    pub clients: Arc<Clients>,
    /// The fault.
    pub fault: Fault,
    began: AtomicU64,
}

impl Scene {
    /// Prepares a fault.
    #[must_use]
    pub fn new(stage: Arc<Stage>, clients: Arc<Clients>, fault: Fault) -> Self {
        Self { stage, clients, fault, began: AtomicU64::new(0) }
    }

    /// When the fault began to break things.
    pub fn began(&self) -> Micros {
        self.began.load(Ordering::Relaxed)
    }

    /// Waits for a claim in flight through the part that is about to break, and notes the time.
    async fn begins(&self) {
        let through = hit_by(&self.fault);
        let end = Instant::now() + WAIT_FOR_CLAIM;
        while self.clients.in_flight(&through) == 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.began.store(self.clients.journal.now(), Ordering::Relaxed);
    }

    /// How long the fault lasts.
    fn hold(&self) -> Duration {
        Duration::from_millis(self.fault.hold_ms)
    }

    async fn lasts(&self) {
        tokio::time::sleep(self.hold()).await;
    }

    /// Whether the fault is still active.
    fn is_on(&self) -> bool {
        self.clients.journal.now() < self.began() + self.fault.hold_ms * 1_000
    }

    /// A number below `below`, determined by the schedule.
    fn chance(&self, below: u64) -> u64 {
        self.fault.chance % below
    }

    /// Plays the whole fault.
    ///
    /// # Errors
    /// The fault could not be made, or what it broke does not come back.
    pub async fn play(&self) -> anyhow::Result<()> {
        match self.fault.kind {
            Kind::KillProgram | Kind::StopProgram | Kind::PauseProgram | Kind::RollingRestart => {
                programs::play(self).await
            }
            Kind::KillServer | Kind::PauseServer => servers::play(self).await,
            Kind::FlushRedis | Kind::OlderRedis | Kind::TwoRefillers | Kind::StaleRefiller => redis::play(self).await,
            Kind::Cut | Kind::Delay | Kind::Freeze | Kind::CutAfterBytes => connections::play(self).await,
            Kind::WrongClock => clocks::play(self).await,
            Kind::QueueFull | Kind::MemoryAlarm | Kind::DiskAlarm => rabbitmq::play(self).await,
            Kind::ReadOnly | Kind::TooManyConnections | Kind::KillSessions => mysql::play(self).await,
        }
    }
}

/// The APIs whose claims go through the part that a fault breaks.
#[must_use]
pub fn hit_by(fault: &Fault) -> Vec<Instance> {
    let of_program = |program: &str| -> Vec<Instance> {
        APIS.into_iter().filter(|&api| INSTANCES.get(api).is_some_and(|name| program_of(name) == program)).collect()
    };
    match fault.target.as_str() {
        "client/skiplock-api" | "skiplock-api/mysql" => of_program("skiplock-api"),
        "mysql" | "all programs" => APIS.to_vec(),
        target => match INSTANCES.iter().position(|name| *name == target) {
            Some(instance) if APIS.contains(&instance) => vec![instance],
            // Consumers, Redis, RabbitMQ, and the links to and from producer-api.
            _ => of_program("producer-api"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(kind: Kind, target: &str) -> Vec<Instance> {
        hit_by(&Fault { at_ms: 0, kind, target: target.to_owned(), hold_ms: 0, chance: 0 })
    }

    #[test]
    fn a_fault_hits_the_claims_that_go_through_it() {
        assert_eq!(hit(Kind::KillProgram, "producer-api-2"), [1]);
        assert_eq!(hit(Kind::KillProgram, "skiplock-api-1"), [4]);
        assert_eq!(hit(Kind::KillProgram, "queue-consumer-1"), [0, 1]);
        assert_eq!(hit(Kind::KillServer, "redis"), [0, 1]);
        assert_eq!(hit(Kind::KillServer, "mysql"), APIS);
        assert_eq!(hit(Kind::Cut, "skiplock-api/mysql"), [4, 5]);
        assert_eq!(hit(Kind::Cut, "producer-api/redis"), [0, 1]);
        assert_eq!(hit(Kind::RollingRestart, "all programs"), APIS);
    }
}
