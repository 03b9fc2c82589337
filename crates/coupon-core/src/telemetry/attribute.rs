//! Names of the attributes of spans: those of OpenTelemetry's conventions where there is one, otherwise our own, which
//! begin with `coupon.`. Each name is written here once, and so is how a term of the domain becomes a value.

pub use opentelemetry_semantic_conventions::attribute::{
    DB_COLLECTION_NAME, DB_OPERATION_BATCH_SIZE, DB_OPERATION_NAME, DB_QUERY_TEXT, DB_RESPONSE_STATUS_CODE,
    DB_SYSTEM_NAME, ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE,
    MESSAGING_BATCH_MESSAGE_COUNT, MESSAGING_DESTINATION_NAME, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE, MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG,
    MESSAGING_SYSTEM, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, URL_PATH, URL_SCHEME,
};

use crate::domain::CampaignId;

/// The campaign claimed from.
pub const CAMPAIGN_ID: &str = "coupon.campaign.id";

/// What became of a claim: `issued` or `sold_out`.
pub const OUTCOME: &str = "coupon.outcome";

/// Claims in the message that carries this one.
pub const MESSAGE_CLAIMS: &str = "coupon.message.claims";

/// Claims in the batch that handled this one.
pub const BATCH_SIZE: &str = "coupon.batch.size";

/// Seconds from the claim's acceptance by the API to the batch that took it.
pub const TIME_IN_QUEUE: &str = "coupon.queue.time";

/// Whether the broker had delivered the claim before.
pub const REDELIVERED: &str = "coupon.redelivered";

/// How skiplock finds a row.
pub const STRATEGY: &str = "coupon.strategy";

/// Claims that shared the statement.
pub const GROUP_SIZE: &str = "coupon.group.size";

/// Seconds that a claim waited for its group to be taken.
pub const GROUP_WAIT: &str = "coupon.group.wait";

impl From<CampaignId> for opentelemetry::Value {
    /// Converts to text, because the numbers of OpenTelemetry are signed.
    fn from(campaign: CampaignId) -> Self {
        campaign.to_string().into()
    }
}
