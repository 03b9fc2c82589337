//! The outermost step of a request: its server span and its metrics.
//!
//! Invariant: while a request is handled its context is the current one, and its answer says which trace it belongs to.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{SpanBuilder, Status, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};

use super::headers::TRACEPARENT;
use crate::error::Class;
use crate::telemetry::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, URL_PATH, URL_SCHEME,
};
use crate::telemetry::metrics;
use crate::telemetry::span::{self, FutureExt as _, SpanKind};

/// Only requests under this path have spans: those of health checks and metrics would bury them.
const TRACED: &str = "/v1/";

/// Middleware: traces and measures a request.
///
/// # Errors
/// None: an error further in becomes an answer.
pub async fn trace(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let in_flight = metrics::InFlight::request();
    let method = method_name(request.method());
    let context = start_span(&request, method);
    let mut response = next.call(request).with_context(context.clone()).await?;
    drop(in_flight);

    let route = response.request().match_pattern().unwrap_or_default();
    end_span(&context, &response, method, &route);
    metrics::request(method, route, status_name(response.status()), began.elapsed());
    if let Ok(traceparent) = HeaderValue::from_str(&span::traceparent(context.span().span_context())) {
        response.headers_mut().insert(TRACEPARENT, traceparent);
    }
    Ok(response)
}

fn start_span(request: &ServiceRequest, method: &'static str) -> Context {
    let parent = span::extract(&Headers(request.headers()));
    if request.path().starts_with(TRACED) {
        span::start(SpanBuilder::from_name(method).with_kind(SpanKind::Server), &parent)
    } else {
        span::start_silent(&parent)
    }
}

fn end_span(context: &Context, response: &ServiceResponse<impl MessageBody>, method: &'static str, route: &str) {
    let span = context.span();
    if !span.is_recording() {
        return;
    }
    let status = response.status();
    span.update_name(format!("{method} {route}"));
    span.set_attributes([
        KeyValue::new(HTTP_REQUEST_METHOD, method),
        KeyValue::new(HTTP_ROUTE, route.to_owned()),
        KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16())),
        KeyValue::new(URL_SCHEME, "http"),
        // Not the path as it was sent: accounts are none of the business of those who read traces.
        KeyValue::new(URL_PATH, route.to_owned()),
    ]);
    // A client's mistake, or a campaign that is sold out, is not an error of the service.
    if status.is_server_error() {
        let class = if status == StatusCode::SERVICE_UNAVAILABLE { Class::Retryable } else { Class::Fatal };
        span.set_attribute(KeyValue::new(ERROR_TYPE, class.name()));
        span.set_status(Status::error(class.name()));
    }
    span.end();
}

/// The name of a method in the semantic conventions: one that a client makes up must not become a label.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

fn status_name(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        307 => "307",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        413 => "413",
        415 => "415",
        429 => "429",
        500 => "500",
        503 => "503",
        _ => "other",
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
