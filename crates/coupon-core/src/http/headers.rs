//! Names of headers for which actix has no constant.

use actix_web::http::header::HeaderName;

use crate::telemetry::span;

/// What a client prefers: RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Says that a preference of the client's was honoured: RFC 7240.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Which trace a request belongs to: W3C Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static(span::TRACEPARENT);

/// What comes with it from some tracers, and is of no use here: W3C Trace Context.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
