//! The document of a problem: the codes of all errors, and the shape of the body that carries one.
//!
//! Invariant: a code never changes its name, because programs compare it; a new kind of error gets a new code.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// The kinds of errors, by names that do not change.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it, and the constructors of Problem")]
pub enum Code {
    InvalidRequest,
    Unauthenticated,
    OtherAccount,
    NotEligible,
    CampaignNotOpen,
    CampaignClosed,
    CampaignPaused,
    CampaignNotFound,
    NoSuchRoute,
    MethodNotAllowed,
    RequestTimeout,
    SoldOut,
    BodyTooLarge,
    UnsupportedMediaType,
    TooManyClaims,
    Internal,
    Unavailable,
}

impl Code {
    /// Its name in answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::OtherAccount => "other_account",
            Self::NotEligible => "not_eligible",
            Self::CampaignNotOpen => "campaign_not_open",
            Self::CampaignClosed => "campaign_closed",
            Self::CampaignPaused => "campaign_paused",
            Self::CampaignNotFound => "campaign_not_found",
            Self::NoSuchRoute => "no_such_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::SoldOut => "sold_out",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TooManyClaims => "too_many_claims",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument<'a> {
    /// Always `about:blank`: `code` tells the kinds apart.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The status in words.
    pub(super) title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub(super) status: u16,
    /// Stable name of this kind of error, for programs.
    pub(super) code: Code,
    /// What went wrong, for people.
    pub(super) detail: &'a str,
    /// The field, parameter or header that is wrong, if one is.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<&'a str>,
    /// Finds this request in traces and logs.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    pub(super) trace_id: String,
}
