//! Errors as clients see them: RFC 9457 problem documents with a stable `code`, never our internals.
//!
//! A handler returns a [`Problem`]; [`answer_with_problems`] writes it out, the last step, with the trace id that finds
//! the request in the logs.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Class, Error};
use crate::telemetry::span;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    field: Option<&'static str>,
    retry_after: Option<Duration>,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument<'a> {
    /// Always `about:blank`: `code` tells the kinds apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// Stable name of this kind of error, for programs.
    code: &'a str,
    /// What went wrong, for people.
    detail: &'a str,
    /// The field, parameter or header that is wrong, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// Finds this request in traces and logs.
    trace_id: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after: None }
    }

    /// 400: this field, parameter or header is wrong.
    pub fn invalid(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail) }
    }

    /// 413: the body is longer than this many bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have {limit} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    /// 415: the body is not said to be JSON.
    #[must_use]
    pub fn not_json() -> Self {
        let detail = "send the body with content-type: application/json";
        Self {
            field: Some("content-type"),
            ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
        }
    }

    /// 404: there is no such campaign.
    #[must_use]
    pub fn unknown_campaign() -> Self {
        Self {
            field: Some("campaign_id"),
            ..Self::new(StatusCode::NOT_FOUND, "campaign_not_found", "there is no such campaign")
        }
    }

    /// 403: the campaign opens later.
    #[must_use]
    pub fn not_open() -> Self {
        Self::new(StatusCode::FORBIDDEN, "campaign_not_open", "the campaign has not opened yet")
    }

    /// 403: the campaign is over.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "campaign_closed", "the campaign is over")
    }

    /// 403: an operator has paused the campaign.
    #[must_use]
    pub fn paused() -> Self {
        Self::new(StatusCode::FORBIDDEN, "campaign_paused", "the campaign is paused; claim again later")
    }

    /// 409: no coupon is left.
    #[must_use]
    pub fn sold_out() -> Self {
        Self::new(StatusCode::CONFLICT, "sold_out", "no coupon is left")
    }

    /// 429: this account claims too often.
    #[must_use]
    pub fn too_many_claims(retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_claims", "this account claims too often")
        }
    }

    /// 503: the same request may succeed after a while; nothing was lost and it is safe to repeat.
    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "this cannot be answered right now; repeating the request is safe",
            )
        }
    }

    /// Its code, which also names what became of the request in metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// 500: our fault.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here")
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

/// The last step of an error's way: its class decides the status, its text goes to the log.
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

/// Middleware: an answer that is an error gets its problem document here, whoever made it.
///
/// # Errors
/// None: what goes wrong further in becomes an answer.
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
    let body = serde_json::to_string(&problem.document(span::current_trace_id())).unwrap_or_default();
    let mut answer = HttpResponse::with_body(problem.status, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(after) = problem.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    Ok(response.into_response(answer).map_into_right_body())
}

/// An error that actix itself found.
fn foreign(error: &actix_web::Error) -> Problem {
    let status = error.as_response_error().status_code();
    if status.is_server_error() {
        tracing::error!(%error, "request answered 500");
        Problem::internal()
    } else {
        Problem::new(status, "invalid_request", "the request cannot be read")
    }
}

/// 404 for a path that leads nowhere.
///
/// # Errors
/// Always.
pub async fn no_such_route() -> Result<HttpResponse, Problem> {
    Err(Problem::new(StatusCode::NOT_FOUND, "no_such_route", "nothing is served here; see /docs"))
}

/// 405 for a path that takes other methods.
///
/// # Errors
/// Always.
pub async fn no_such_method() -> Result<HttpResponse, Problem> {
    let detail = "this path does not take this method; see /docs";
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail))
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
        assert!(problem.retry_after.is_some());
    }
}
