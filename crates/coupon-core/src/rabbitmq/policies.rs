//! RabbitMQ's policies, which change queues from outside and may let them lose claims that were accepted.
//!
//! Most keys of a policy cannot: either the arguments of our queues take precedence (dead letters), or the stricter of
//! the two applies, which means that claims are refused (length) or kept as dead letters (deliveries of a claim). No
//! argument helps against the others, so RabbitMQ's HTTP API is asked for the policies, and nothing is accepted while
//! one would lose claims. docs/REFERENCE.md goes through all keys.
//!
//! Invariant: in doubt, a policy is assumed to apply. Only RabbitMQ itself knows for certain which one does, and it
//! lists a new queue with a delay.

use std::fmt;

use regex::Regex;
use reqwest::Client;
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Queues;
use crate::error::Result;
use crate::settings::{AmqpSettings, ManagementUrl};

/// All keys that RabbitMQ applies to a quorum queue. A policy with any other key is not applied to one, and the next
/// policy may be applied instead.
const KEYS_OF_QUORUM_QUEUES: &[&str] = &[
    "consumer-timeout",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
    "expires",
    "federation-upstream",
    "federation-upstream-set",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
    "queue-leader-locator",
    "target-group-size",
];

/// A setting that a policy makes on a queue and that loses accepted claims.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Danger {
    /// The queue.
    pub queue: String,
    /// The policy.
    pub policy: String,
    /// Whether it is an operator policy, which RabbitMQ keeps in a list of its own.
    pub is_operators: bool,
    /// What it sets, as in `message-ttl = 2000`.
    pub sets: String,
    /// The virtual host of the policy.
    vhost: String,
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, policy, is_operators, sets, vhost } = self;
        let (kind, clear) =
            if *is_operators { ("operator policy", "clear_operator_policy") } else { ("policy", "clear_policy") };
        write!(
            f,
            "the {kind} '{policy}' sets {sets} on the queue {queue}, which loses accepted claims: remove it with \
             `rabbitmqctl {clear} -p {vhost} {policy}`"
        )
    }
}

/// A policy as RabbitMQ lists it.
#[derive(Debug, Deserialize)]
struct Policy {
    name: String,
    pattern: String,
    #[serde(rename = "apply-to")]
    apply_to: String,
    priority: i64,
    definition: Map<String, Value>,
}

/// Reads policies from RabbitMQ's HTTP API.
#[derive(Clone, Debug)]
pub struct Policies {
    http: Client,
    management: ManagementUrl,
    user: String,
    password: SecretString,
    vhost: String,
}

impl Policies {
    /// Creates a client for the address in the settings.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub fn new(settings: &AmqpSettings) -> Result<Self> {
        let management = settings.amqp_management_url.clone();
        let (user, password) = management.credentials().unwrap_or_else(|| settings.amqp_url.credentials());
        // No proxy from the environment, which is for the world outside.
        let http = Client::builder().timeout(settings.amqp_deadline).no_proxy();
        // Over http no certificate authorities are needed, and a machine may have none.
        let http = if management.asks_for_tls() {
            http.tls_backend_preconfigured(ClientConfig::clone(&settings.tls.0.config()))
        } else {
            http.tls_certs_only([])
        };
        let http = http.build()?;
        Ok(Self { http, management, user, password, vhost: settings.amqp_url.vhost() })
    }

    /// Which policies would lose accepted claims; none are known if the API is not to be asked.
    ///
    /// # Errors
    /// RabbitMQ's HTTP API does not answer, or not to this user.
    pub async fn dangers(&self, queues: &Queues) -> Result<Vec<Danger>> {
        let (users, operators) = tokio::try_join!(self.list("policies"), self.list("operator-policies"))?;
        let mut dangers = Vec::new();
        for (queue, is_danger) in [(&queues.claims, loses_claims as IsDanger), (&queues.dead, loses_dead_letters)] {
            for (policies, is_operators) in [(&users, false), (&operators, true)] {
                dangers.extend(applied(policies, queue.as_str()).flat_map(|policy| {
                    let set = policy.definition.iter().filter(|(key, value)| is_danger(key, value));
                    set.map(|(key, value)| Danger {
                        queue: queue.to_string(),
                        policy: policy.name.clone(),
                        is_operators,
                        sets: format!("{key} = {value}"),
                        vhost: self.vhost.clone(),
                    })
                }));
            }
        }
        Ok(dangers)
    }

    async fn list(&self, kind: &str) -> Result<Vec<Policy>> {
        let Some(url) = self.management.below(&["api", kind, &self.vhost]) else { return Ok(Vec::new()) };
        let ask = || self.http.get(url.clone()).basic_auth(&self.user, Some(self.password.expose_secret())).send();
        let answer = match ask().await {
            // The server ended the connection first. If the reason came before the request was written, as a refused
            // certificate may, it is lost.
            Err(error) if error.is_request() && !error.is_timeout() && !error.is_connect() => ask().await,
            answered => answered,
        };
        Ok(answer?.error_for_status()?.json().await?)
    }
}

type IsDanger = fn(&str, &Value) -> bool;

/// Whether a key makes messages expire, deletes a queue from which nobody consumes, or makes a full queue drop its
/// oldest message. For the latter two, a policy takes precedence over our arguments.
fn loses_claims(key: &str, value: &Value) -> bool {
    matches!(key, "message-ttl" | "expires") || key == "overflow" && value != "reject-publish"
}

/// A dead letter that an operator inspects and gives back is lost at the delivery limit: it has nowhere else to go.
fn loses_dead_letters(key: &str, value: &Value) -> bool {
    loses_claims(key, value) || key == "delivery-limit"
}

/// The policies of a list that may be applied to a queue: those of the highest priority, and the ones that come after a
/// policy that RabbitMQ may skip.
fn applied<'a>(policies: &'a [Policy], queue: &str) -> impl Iterator<Item = &'a Policy> {
    let mut matching: Vec<&Policy> = policies.iter().filter(|policy| policy.matches(queue)).collect();
    matching.sort_by_key(|policy| std::cmp::Reverse(policy.priority));
    let last = matching.iter().find(|policy| policy.is_applied_for_sure()).map_or(i64::MIN, |policy| policy.priority);
    matching.into_iter().take_while(move |policy| policy.priority >= last)
}

impl Policy {
    fn matches(&self, queue: &str) -> bool {
        let is_for_others = matches!(self.apply_to.as_str(), "exchanges" | "classic_queues" | "streams");
        // A pattern that only Erlang understands may match.
        !is_for_others && Regex::new(&self.pattern).map_or(true, |pattern| pattern.is_match(queue))
    }

    fn is_applied_for_sure(&self) -> bool {
        Regex::new(&self.pattern).is_ok()
            && self.definition.keys().all(|key| KEYS_OF_QUORUM_QUEUES.contains(&key.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, priority: i64, pattern: &str, definition: &Value) -> Policy {
        let definition = definition.as_object().unwrap().clone();
        Policy { name: name.into(), pattern: pattern.into(), apply_to: "all".into(), priority, definition }
    }

    fn names(policies: &[Policy]) -> Vec<&str> {
        applied(policies, "coupon.claims").map(|policy| policy.name.as_str()).collect()
    }

    #[test]
    fn the_policy_of_the_highest_priority_is_applied() {
        let ttl = &json!({"message-ttl": 1});
        let shield = || policy("shield", 7, "^coupon\\.", &json!({"max-length": 5}));

        assert_eq!(names(&[policy("all", 1, ".*", ttl), shield()]), ["shield"]);
        assert_eq!(names(&[policy("others", 9, "^shop", ttl), shield()]), ["shield"]);
        assert_eq!(names(&[policy("all", 1, ".*", ttl), policy("also", 1, "", ttl)]), ["all", "also"], "either may");
    }

    #[test]
    fn in_doubt_a_policy_is_applied() {
        let all = || policy("all", 1, ".*", &json!({"message-ttl": 1}));
        let not_for_quorum_queues = policy("mirrors", 7, ".*", &json!({"ha-mode": "all"}));
        assert_eq!(names(&[all(), not_for_quorum_queues]), ["mirrors", "all"]);

        let not_understood = policy("odd", 7, "^(?!amq\\.)", &json!({"expires": 1}));
        assert_eq!(names(&[all(), not_understood]), ["odd", "all"]);

        let mut streams = policy("streams", 7, ".*", &json!({"expires": 1}));
        streams.apply_to = "streams".into();
        assert_eq!(names(&[streams]), [""; 0]);
    }

    #[test]
    fn what_loses_claims_is_told_from_what_refuses_or_keeps_them() {
        for (key, value) in [("message-ttl", json!(2000)), ("expires", json!(1)), ("overflow", json!("drop-head"))] {
            assert!(loses_claims(key, &value) && loses_dead_letters(key, &value), "{key}");
        }
        for (key, value) in [
            ("max-length", json!(3)),
            ("max-length-bytes", json!(3)),
            ("overflow", json!("reject-publish")),
            ("dead-letter-routing-key", json!("nowhere")),
            ("delivery-limit", json!(1)),
        ] {
            assert!(!loses_claims(key, &value), "{key}");
        }
        assert!(loses_dead_letters("delivery-limit", &json!(1)));
    }
}
