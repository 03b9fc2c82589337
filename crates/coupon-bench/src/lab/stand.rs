//! All services of one way, running for the length of a load.

use std::fmt;

use clap::ValueEnum;
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::service::Service;

/// The two ways to issue coupons, and the first without its broker.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Queue,
    Skiplock,
    Redis,
}

impl Way {
    /// Those to choose from.
    pub const ALL: [Self; 2] = [Self::Queue, Self::Skiplock];

    /// The program that clients talk to.
    pub fn api(self) -> &'static str {
        match self {
            Self::Queue => "producer-api",
            Self::Skiplock => "skiplock-api",
            Self::Redis => "redis-api",
        }
    }

    /// The status with which its API answers a claim that it lets in.
    pub fn lets_in_with(self) -> StatusCode {
        match self {
            Self::Queue => StatusCode::ACCEPTED,
            Self::Skiplock => StatusCode::CREATED,
            Self::Redis => StatusCode::OK,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Queue => "queue",
            Self::Skiplock => "skiplock",
            Self::Redis => "redis",
        })
    }
}

/// The program that settles claims from the queue.
pub const CONSUMER: &str = "queue-consumer";

/// The services of a way, which run until this is dropped.
pub struct Stand {
    api: Service,
    consumers: Vec<Service>,
}

impl Stand {
    /// Starts the API, then the consumers: none if the API issues coupons itself.
    pub async fn start(way: Way, consumers: usize, environment: &[(&str, String)]) -> anyhow::Result<Self> {
        let api = Service::start(way.api(), environment).await?;
        let mut stand = Self { api, consumers: Vec::new() };
        let consumers = if way == Way::Queue { consumers } else { 0 };
        for _ in 0..consumers {
            stand.consumers.push(Service::start(CONSUMER, environment).await?);
        }
        Ok(stand)
    }

    pub fn api(&self) -> &Service {
        &self.api
    }

    pub fn consumers(&self) -> &[Service] {
        &self.consumers
    }

    /// The API, then the consumers.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        [&self.api].into_iter().chain(&self.consumers)
    }
}
