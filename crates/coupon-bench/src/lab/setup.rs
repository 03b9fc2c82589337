//! A way with particular settings, as the experiments compare them.

use super::service::Service;
use super::stand::{CONSUMER, Stand, Way};

/// The services that are started for a load.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub name: &'static str,
    pub way: Way,
    pub consumers: usize,
    pub environment: &'static [(&'static str, &'static str)],
}

impl Setup {
    pub const fn queue(
        name: &'static str,
        consumers: usize,
        environment: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { name, way: Way::Queue, consumers, environment }
    }

    pub const fn skiplock(name: &'static str, environment: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, way: Way::Skiplock, consumers: 0, environment }
    }

    /// Starts the services, which trace only claims that the caller samples.
    pub async fn start(&self) -> anyhow::Result<Stand> {
        Stand::start(self.way, self.consumers, &self.variables()).await
    }

    /// Starts one more consumer.
    pub async fn start_consumer(&self) -> anyhow::Result<Service> {
        Service::start(CONSUMER, &self.variables()).await
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let own = self.environment.iter().map(|(name, value)| (*name, String::from(*value)));
        own.chain([caller_samples()]).collect()
    }
}

/// The variable that makes a service trace only claims that the caller samples.
pub fn caller_samples() -> (&'static str, String) {
    ("OTEL_TRACES_SAMPLER", String::from("parentbased_always_off"))
}

/// Both ways with default settings.
pub static QUEUE: Setup = Setup::queue("queue", 1, &[]);
pub static COALESCED: Setup = Setup::skiplock("coalesced", &[]);

/// The queue without its broker: the API reserves ids in Redis and issues them itself.
pub static NO_BROKER: Setup = Setup { name: "queue, no broker", way: Way::Redis, consumers: 0, environment: &[] };

/// The queue without any of its batches.
pub static ONE_BY_ONE: Setup = Setup::queue("queue, one by one", 1, &[("CLAIMS_PER_MESSAGE", "1"), ("BATCH_MAX", "1")]);

/// The other strategies of skiplock-api; the last two are baselines without `SKIP LOCKED`.
pub static SELECT_UPDATE: Setup = Setup::skiplock("select-update", &[("STRATEGY", "select-update")]);
pub static SINGLE_STATEMENT: Setup = Setup::skiplock("single-statement", &[("STRATEGY", "single-statement")]);
pub static SCATTERED: Setup = Setup::skiplock("scattered", &[("STRATEGY", "scattered")]);
pub static FOR_UPDATE: Setup = Setup::skiplock("for-update", &[("STRATEGY", "for-update")]);
pub static BLIND_UPDATE: Setup = Setup::skiplock("blind-update", &[("STRATEGY", "blind-update")]);
