//! Errors as clients see them: RFC 9457 problem documents with a stable `code`, never our internals.
//!
//! A handler returns a [`Problem`]; as the last step, [`answer_with_problems`] writes it out with the trace id that
//! finds the request in the logs.

mod document;

use std::borrow::Cow;
use std::time::Duration;

use actix_http::ConnectionType;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use uuid::Uuid;

pub use self::document::{Code, ProblemDocument};
use super::cors;
use crate::error::{Class, Error};
use crate::telemetry::span;

/// The `cache-control` of an answer that is for one caller only, or true only for now.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The `content-type` of a problem document.
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", code.name())]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: Cow<'static, str>,
    field: Option<&'static str>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), field: None, header: None }
    }

    /// 400: this field, parameter or header is wrong.
    pub fn invalid(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, detail) }
    }

    /// 400: these bytes are not a request.
    pub(super) fn no_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "this is not a valid HTTP request")
    }

    /// 414: the target of the request is longer than actix takes.
    pub(super) fn long_target() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, Code::InvalidRequest, "the first line of the request is longer than 64 KiB")
    }

    /// 431: the head of the request is longer than actix takes.
    pub(super) fn large_head() -> Self {
        let detail = "the head of the request is longer than 128 KiB, or has more than 96 headers";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::InvalidRequest, detail)
    }

    /// 401: the caller has not shown who they are; the challenge says how to do so.
    pub fn unauthenticated(detail: impl Into<Cow<'static, str>>, challenge: HeaderValue) -> Self {
        Self {
            header: Some((WWW_AUTHENTICATE, challenge)),
            ..Self::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, detail)
        }
    }

    /// 400: the request has two `authorization` headers; the challenge says so as well.
    #[must_use]
    pub fn two_authorizations(detail: &'static str, challenge: HeaderValue) -> Self {
        Self { header: Some((WWW_AUTHENTICATE, challenge)), ..Self::invalid("authorization", detail) }
    }

    /// 403: the account is not the caller's.
    #[must_use]
    pub fn other_account() -> Self {
        Self {
            field: Some("account_id"),
            ..Self::new(StatusCode::FORBIDDEN, Code::OtherAccount, "this account is not yours")
        }
    }

    /// 403: the caller's token does not name the campaign, which it must.
    #[must_use]
    pub fn not_eligible() -> Self {
        Self {
            field: Some("campaign_id"),
            ..Self::new(StatusCode::FORBIDDEN, Code::NotEligible, "your token is not for this campaign")
        }
    }

    /// 413: the body is longer than this many bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have {limit} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, detail)
    }

    /// 408: the body did not arrive within this time.
    #[must_use]
    pub fn too_slow(limit: Duration) -> Self {
        let detail = format!("the body must arrive within {} seconds", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, detail)
    }

    /// 408: the head did not arrive within this time.
    pub(super) fn slow_head(limit: Duration) -> Self {
        let detail = format!("the head of the request must arrive within {} seconds", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, detail)
    }

    /// 415: the body is not declared to be JSON.
    #[must_use]
    pub fn not_json() -> Self {
        let detail = "send the body with content-type: application/json";
        Self {
            field: Some("content-type"),
            ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, detail)
        }
    }

    /// 415: the body is compressed, or encoded in some other way.
    #[must_use]
    pub fn encoded() -> Self {
        let detail = "send the body as it is, without a content-encoding";
        Self {
            field: Some("content-encoding"),
            header: Some((ACCEPT_ENCODING, HeaderValue::from_static("identity"))),
            ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnsupportedMediaType, detail)
        }
    }

    /// 404: there is nothing at this path.
    #[must_use]
    pub fn no_such_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NoSuchRoute, "nothing is served at this address")
    }

    /// 405: the path takes only these methods.
    #[must_use]
    pub fn other_method(allowed: &'static str) -> Self {
        Self {
            header: Some((ALLOW, HeaderValue::from_static(allowed))),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::MethodNotAllowed,
                format!("this address takes {allowed} only"),
            )
        }
    }

    /// 404: there is no such campaign.
    #[must_use]
    pub fn unknown_campaign() -> Self {
        Self {
            field: Some("campaign_id"),
            ..Self::new(StatusCode::NOT_FOUND, Code::CampaignNotFound, "there is no such campaign")
        }
    }

    /// 403: the campaign opens later.
    #[must_use]
    pub fn not_open() -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::CampaignNotOpen, "the campaign has not opened yet")
    }

    /// 403: the campaign is over.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::CampaignClosed, "the campaign is over")
    }

    /// 403: an operator has paused the campaign.
    #[must_use]
    pub fn paused() -> Self {
        Self::new(StatusCode::FORBIDDEN, Code::CampaignPaused, "the campaign is paused; claim again later")
    }

    /// 409: no coupon is left.
    #[must_use]
    pub fn sold_out() -> Self {
        Self::new(StatusCode::CONFLICT, Code::SoldOut, "no coupon is left")
    }

    /// 429: this account claims too often.
    #[must_use]
    pub fn too_many_claims(retry_after: Duration) -> Self {
        Self {
            header: Some(retry(retry_after)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyClaims, "this account claims too often")
        }
    }

    /// 503: the same request may succeed after a while; nothing was lost and it is safe to repeat.
    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            header: Some(retry(Duration::from_secs(1))),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "this cannot be answered right now; repeating the request is safe",
            )
        }
    }

    /// Its code, which also names what became of the request in metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.name()
    }

    /// 500: our fault.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "something went wrong here")
    }

    /// The body of an answer.
    pub(super) fn to_json(&self, trace_id: String) -> String {
        serde_json::to_string(&self.document(trace_id)).unwrap_or_default()
    }

    /// The whole answer to a request that no handler sees, the last of its connection.
    pub(super) fn last_answer(&self) -> actix_http::Response<BoxBody> {
        let body = self.to_json(Uuid::new_v4().simple().to_string());
        let mut answer = actix_http::Response::new(self.status).set_body(BoxBody::new(body));
        answer.headers_mut().insert(CONTENT_TYPE, PROBLEM);
        answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        answer.head_mut().set_connection_type(ConnectionType::Close);
        answer
    }

    fn document(&self, trace_id: String) -> ProblemDocument<'_> {
        ProblemDocument {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field,
            trace_id,
        }
    }
}

/// The last step in the handling of an error: its class decides the status, and its text goes to the log.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error.class() {
            Class::Retryable => {
                tracing::info!(%error, "request answered 503");
                Self::unavailable()
            }
            Class::Duplicate | Class::Fatal => {
                tracing::error!(%error, "request answered 500");
                Self::internal()
            }
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status)
    }
}

/// Middleware: gives every answer that is an error its problem document, whichever handler it comes from.
///
/// # Errors
/// None: an error further in becomes an answer.
pub async fn answer_with_problems(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let response = next.call(request).await?;
    let Some(error) = response.response().error() else { return Ok(response.map_into_left_body()) };
    let from_actix;
    let problem = if let Some(problem) = error.as_error::<Problem>() {
        problem
    } else {
        from_actix = foreign(error);
        &from_actix
    };
    let (status, header) = (problem.status, problem.header.clone());
    let body = problem.to_json(span::current_trace_id());
    // Written into the existing answer, which also says whether the connection ends.
    Ok(response.map_body(|head, _| {
        head.status = status;
        head.headers.insert(CONTENT_TYPE, PROBLEM);
        head.headers.insert(CACHE_CONTROL, NO_STORE);
        if let Some((name, value)) = header {
            head.headers.insert(name, value);
        }
        EitherBody::right(body)
    }))
}

fn retry(after: Duration) -> (HeaderName, HeaderValue) {
    (RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)))
}

/// The problem for an error that actix itself found.
fn foreign(error: &actix_web::Error) -> Problem {
    let status = error.as_response_error().status_code();
    if status.is_server_error() {
        tracing::error!(%error, "request answered 500");
        Problem::internal()
    } else {
        let detail = cors::detail(error).unwrap_or_else(|| String::from("the request cannot be read"));
        Problem::new(status, Code::InvalidRequest, detail)
    }
}

/// Answers 404 for a path at which there is nothing.
///
/// # Errors
/// Always.
pub async fn no_such_route() -> Result<HttpResponse, Problem> {
    Err(Problem::no_such_route())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internals_never_reach_a_client() {
        let error = Error::Broken(String::from("SELECT secret FROM table"));

        let problem = Problem::from(error);

        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!serde_json::to_string(&problem.document(String::new())).unwrap().contains("secret"));
    }

    #[test]
    fn a_retryable_error_says_when_to_come_back() {
        let problem = Problem::from(Error::Full { what: "a test" });

        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(matches!(problem.header, Some((RETRY_AFTER, _))));
    }
}
