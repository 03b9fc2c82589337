//! The message: claims that arrived together, of one installation.
//!
//! Invariant: a new format gets a new type, and consumers read it before any producer writes it, so that services can
//! be replaced one by one.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use opentelemetry::Context;

use uuid::Uuid;

use crate::domain::{Claim, InstallationId, InstanceId};
use crate::error::{Error, Result};
use crate::telemetry::span;

/// Says what a message is, so that a consumer can distinguish an older format from a newer one.
const MESSAGE_TYPE: &str = "claims.v2";

/// The previous format: the same body, without the installation.
const MESSAGE_TYPE_1: &str = "claims.v1";

/// The header of a dead letter that says why it could not be handled.
const REASON: &str = "x-reason";

/// The header in which RabbitMQ says why it moved a message to the dead letters: `delivery_limit`, `rejected` or
/// `expired`.
const BROKERS_REASON: &str = "x-first-death-reason";

/// Headers that name further queues.
const ROUTES: [&str; 2] = ["CC", "BCC"];

/// The most claims in one message, from any version of producer-api: what a consumer takes is bounded by this times its
/// prefetch.
pub const CLAIMS_PER_MESSAGE_MAX: usize = 500;

/// AMQP's delivery mode for a message that is written to disk.
const PERSISTENT: u8 = 2;

/// What a message holds.
#[derive(Debug, Eq, PartialEq)]
pub struct Message {
    /// Whose claims these are; an older producer-api does not say.
    pub installation: Option<InstallationId>,
    /// Which instance of producer-api published it and receives their outcomes; an older one does not say, nor does a
    /// dead letter.
    pub instance: Option<InstanceId>,
    /// The claims.
    pub claims: Vec<Claim>,
}

/// The body of a message: claims that arrived together.
///
/// # Errors
/// None in practice: a claim is three numbers.
pub fn encode(claims: &[Claim]) -> Result<Vec<u8>> {
    serde_json::to_vec(claims).map_err(|error| Error::Broken(format!("cannot encode claims: {error}")))
}

/// The properties of a message of an installation, which carries on the trace context of each of its claims, in their
/// order.
#[must_use]
pub fn properties<'a>(installation: InstallationId, contexts: impl Iterator<Item = &'a Context>) -> AMQPProperties {
    BasicProperties::default()
        .with_headers(span::message_headers(contexts))
        .with_content_type("application/json".into())
        .with_type(MESSAGE_TYPE.into())
        .with_app_id(installation.to_string().into())
        .with_delivery_mode(PERSISTENT)
}

/// Adds the instance that receives the outcomes.
#[must_use]
pub fn published_by(properties: AMQPProperties, instance: InstanceId) -> AMQPProperties {
    properties.with_reply_to(instance.to_string().into())
}

/// The properties of a message for the dead letters, with the reason why its claims are there.
#[must_use]
pub fn dead_letter_properties(installation: InstallationId, reason: &str) -> AMQPProperties {
    with_reason(properties(installation, std::iter::empty()), FieldTable::default(), reason)
}

/// The properties of a message that holds no claims, for the dead letters: as they were, except those that would make
/// the broker refuse it, let it expire, or send it elsewhere as well.
#[must_use]
pub fn poison_properties(properties: &AMQPProperties, reason: &str) -> AMQPProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(kind) = properties.kind() {
        kept = kept.with_type(kind.clone());
    }
    if let Some(app_id) = properties.app_id() {
        kept = kept.with_app_id(app_id.clone());
    }
    if let Some(content_type) = properties.content_type() {
        kept = kept.with_content_type(content_type.clone());
    }
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let headers = headers.filter(|(name, _)| !ROUTES.contains(&name.as_str()));
    let headers: BTreeMap<ShortString, AMQPValue> =
        headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    with_reason(kept, headers.into(), reason)
}

fn with_reason(properties: AMQPProperties, mut headers: FieldTable, reason: &str) -> AMQPProperties {
    headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
    properties.with_headers(headers)
}

/// Why a message is among the dead letters, in our words or the broker's.
#[must_use]
pub fn reason(properties: &AMQPProperties) -> Option<String> {
    let headers = properties.headers().as_ref()?.inner();
    let text = |name: &str| match headers.get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    };
    text(REASON).or_else(|| Some(format!("RabbitMQ: {}", text(BROKERS_REASON)?)))
}

/// Reads a message.
///
/// # Errors
/// Why it holds no claims. It is a poison message, and stays one however often it is delivered.
pub fn decode(properties: &AMQPProperties, body: &[u8]) -> Result<Message, String> {
    let installation = match properties.kind().as_ref().map(ShortString::as_str) {
        Some(MESSAGE_TYPE) => Some(sender(properties)?),
        Some(MESSAGE_TYPE_1) => None,
        Some(kind) => return Err(format!("its type is {kind}, not {MESSAGE_TYPE}")),
        None => return Err(format!("it has no type; {MESSAGE_TYPE} was expected")),
    };
    let claims: Vec<Claim> =
        serde_json::from_slice(body).map_err(|error| format!("its body is not a list of claims: {error}"))?;
    match claims.len() {
        1..=CLAIMS_PER_MESSAGE_MAX => Ok(Message { installation, instance: instance(properties), claims }),
        claims => Err(format!("it holds {claims} claims; 1 to {CLAIMS_PER_MESSAGE_MAX} were expected")),
    }
}

fn sender(properties: &AMQPProperties) -> Result<InstallationId, String> {
    let id = properties.app_id().as_ref().map(ShortString::as_str).unwrap_or_default();
    id.parse().map_err(|_| format!("its app_id '{id}' is not the id of an installation"))
}

/// Reads the instance. An address of another kind is somebody else's: none of our instances listens there.
fn instance(properties: &AMQPProperties) -> Option<InstanceId> {
    Uuid::parse_str(properties.reply_to().as_ref()?.as_str()).ok().map(InstanceId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{AccountId, CampaignId};

    proptest! {
        #[test]
        fn any_claims_survive_their_message(sent in prop::collection::vec(any::<(u64, u64, u64)>(), 1..=CLAIMS_PER_MESSAGE_MAX)) {
            let claim = |&(campaign, account, accepted_at_ms): &(u64, u64, u64)| Claim {
                campaign_id: CampaignId(campaign),
                account_id: AccountId(account),
                accepted_at_ms,
            };
            let claims: Vec<Claim> = sent.iter().map(claim).collect();

            let message = decode(&properties(ID, std::iter::empty()), &encode(&claims).unwrap()).unwrap();

            prop_assert_eq!(message.claims, claims);
        }

        #[test]
        fn whatever_comes_is_claims_or_a_reason(kind in "claims.v[0-9]|[ -~]{0,20}", app_id in "[ -~]{0,40}", body: Vec<u8>, json in "[\\[\\]{}\":,a-z_0-9.-]{0,60}") {
            let properties = BasicProperties::default().with_type(kind.into()).with_app_id(app_id.into());
            for body in [&body[..], json.as_bytes()] {
                let _ = decode(&properties, body);
                prop_assert!(decode(&poison_properties(&properties, "why"), body).is_ok() == decode(&properties, body).is_ok());
            }
        }
    }

    /// Services of two versions run side by side while one replaces the other, so a format never changes.
    #[test]
    fn the_forms_of_messages_are_these_bytes() {
        let claims =
            [Claim { campaign_id: CampaignId(1), account_id: AccountId(42), accepted_at_ms: 1_900_000_000_000 }];
        let body = br#"[{"campaign_id":1,"account_id":42,"accepted_at_ms":1900000000000}]"#;

        assert_eq!(encode(&claims).unwrap(), body);
        let sent = properties(ID, std::iter::empty());
        assert_eq!(sent.kind().as_ref().unwrap().as_str(), "claims.v2");
        assert_eq!(sent.app_id().as_ref().unwrap().as_str(), "00000000-0000-0000-0000-000000000007");
        for version in ["claims.v1", "claims.v2"] {
            let message = decode(&sent.clone().with_type(version.into()), body).unwrap();
            assert_eq!(message.claims, claims, "{version}");
        }
    }

    const ID: InstallationId = InstallationId(Uuid::from_u128(7));
    const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(8));

    fn sent() -> AMQPProperties {
        published_by(properties(ID, std::iter::empty()), INSTANCE)
    }

    #[test]
    fn claims_survive_their_message() {
        let claim = |account| Claim {
            campaign_id: CampaignId(1),
            account_id: AccountId(account),
            accepted_at_ms: 1_900_000_000_000,
        };
        let claims = vec![claim(u64::MAX), claim(7)];
        let body = encode(&claims).unwrap();

        let decoded = decode(&sent(), &body).unwrap();
        assert_eq!(decoded, Message { installation: Some(ID), instance: Some(INSTANCE), claims: claims.clone() });
        let dead = dead_letter_properties(ID, "no such campaign");
        assert_eq!(reason(&dead).as_deref(), Some("no such campaign"));
        assert_eq!(
            decode(&dead, &body).unwrap(),
            Message { installation: Some(ID), instance: None, claims: claims.clone() },
            "a dead letter can be put back into the queue"
        );
        let older = BasicProperties::default().with_type("claims.v1".into());
        assert_eq!(
            decode(&older, &body).unwrap(),
            Message { installation: None, instance: None, claims },
            "of an older service"
        );
    }

    #[test]
    fn a_poison_message_is_kept_as_it_was_but_for_what_would_lose_it() {
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::FieldArray(vec![text("elsewhere")].into()));
        headers.insert("traceparent".into(), text("00-…"));
        headers.insert(BROKERS_REASON.into(), text("rejected"));
        let sent = sent().with_headers(headers).with_expiration("1".into()).with_user_id("somebody".into());
        assert_eq!(reason(&sent).as_deref(), Some("RabbitMQ: rejected"));

        let kept = poison_properties(&sent, "its body is not a list of claims");

        assert_eq!(reason(&kept).as_deref(), Some("its body is not a list of claims"));
        assert_eq!(
            (kept.kind(), kept.app_id(), kept.content_type()),
            (sent.kind(), sent.app_id(), sent.content_type())
        );
        assert_eq!((kept.expiration(), kept.user_id(), kept.delivery_mode()), (&None, &None, &Some(PERSISTENT)));
        let headers = kept.headers().as_ref().unwrap().inner();
        assert!(headers.contains_key("traceparent") && !headers.contains_key("CC"), "{headers:?}");
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn a_poison_message_is_told_by_its_reason() {
        let body = br#"[{"campaign_id":1,"account_id":2,"accepted_at_ms":3}]"#;

        assert!(decode(&BasicProperties::default(), body).unwrap_err().contains("no type"));
        assert!(decode(&sent().with_type("claims.v9".into()), body).unwrap_err().contains("claims.v9"));
        assert!(decode(&sent().with_app_id("me".into()), body).unwrap_err().contains("app_id 'me'"));
        assert!(decode(&sent(), b"[{\"campaign_id\":1}]").unwrap_err().contains("account_id"));
        assert!(decode(&sent(), b"[]").unwrap_err().contains("0 claims"));
        assert!(decode(&sent(), b"\xff").is_err());
    }
}
