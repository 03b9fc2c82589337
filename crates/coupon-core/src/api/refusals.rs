//! Errors as the `OpenAPI` document lists them among the answers of a route.
//!
//! Invariant: every error that a route may answer with is in one of these lists, with its status and headers; the last
//! entry of [`Refusals`] stands for those that actix itself detects.

use utoipa::IntoResponses;

use crate::http::problem::ProblemDocument;

/// The errors that any request may be answered with, as the `OpenAPI` document lists them.
#[derive(IntoResponses)]
pub enum Refusals {
    /// Bad input; `field` names what is wrong.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(ProblemDocument<'static>),
    /// There is no such campaign, or no such address.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemDocument<'static>),
    /// The body did not arrive in time; the connection is closed.
    #[response(status = 408, content_type = "application/problem+json")]
    RequestTimeout(ProblemDocument<'static>),
    /// The body is too long; the connection is closed.
    #[response(status = 413, content_type = "application/problem+json")]
    PayloadTooLarge(ProblemDocument<'static>),
    /// A fault of the service; report it with its `trace_id`.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(ProblemDocument<'static>),
    /// A server behind this one is away, busy or full; repeating the request is safe.
    #[response(
        status = 503,
        content_type = "application/problem+json",
        headers(("Retry-After" = u32, description = "Seconds after which to repeat the request"))
    )]
    Unavailable(ProblemDocument<'static>),
    /// Any other error. 405 names the methods that the address takes.
    #[response(
        status = "default",
        content_type = "application/problem+json",
        headers(("Allow" = String, description = "With 405: the methods that the address takes"))
    )]
    Other(ProblemDocument<'static>),
}

/// The errors that only a claim may be answered with.
#[derive(IntoResponses)]
pub enum ClaimRefusals {
    /// The campaign has not opened yet, is over, or is paused.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemDocument<'static>),
    /// Sold out: no coupon is left, and the account holds none.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(ProblemDocument<'static>),
    /// The body is not declared to be JSON, or is encoded.
    #[response(
        status = 415,
        content_type = "application/problem+json",
        headers(("Accept-Encoding" = String, description = "Where the encoding is wrong: the one that is taken"))
    )]
    UnsupportedMediaType(ProblemDocument<'static>),
    /// This account claims too often.
    #[response(
        status = 429,
        content_type = "application/problem+json",
        headers(("Retry-After" = u32, description = "Seconds after which to repeat the claim"))
    )]
    TooManyRequests(ProblemDocument<'static>),
}
