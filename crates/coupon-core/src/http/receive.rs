//! The second step of a request: it is received whole, with its body, before anything is done with it.
//!
//! Invariant: the connection hands on the next request only after this one is answered, and none after a last answer.

use std::rc::Rc;

use actix_http::ConnectionType;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, HOST, UPGRADE};
use actix_web::http::uri::Authority;
use actix_web::middleware::Next;
use actix_web::{HttpMessage, web};
use futures_util::StreamExt as _;

use super::connection::State;
use super::limits::{BODY_MAX, RECEIVE_DEADLINE};
use super::problem::Problem;

/// The body of a request, in its extensions if there is one.
pub struct Body(pub web::Bytes);

/// Middleware: hands on a request once it has arrived with its body, and ends the connection where it has to end.
///
/// # Errors
/// None: an error further in becomes an answer.
pub async fn receive(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let connection = request.conn_data::<Rc<State>>().cloned().unwrap_or_default();
    let _serving = connection.serve();
    // After a chunked body the connection ends as well, because the end of the body is not certain: actix reads line
    // ends in it differently from those in heads.
    let is_last = !is_kept_alive(request.head()) || request.chunked().unwrap_or(false);
    let body = body(&mut request, &connection).await;
    // The rest of a body that is refused cannot be distinguished from the next request.
    let is_last = is_last || body.is_err() || !names_path(request.head());
    match body.and_then(|body| check(request.head()).map(|()| body)) {
        Ok(Some(body)) => drop(request.extensions_mut().insert(Body(body))),
        Ok(None) => {}
        Err(problem) => drop(request.extensions_mut().insert(problem)),
    }
    let mut response = next.call(request).await?;
    // A client that comes again should reach another instance, and not a connection that ends during its request.
    if is_last || connection.is_stopping() {
        connection.end();
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// Answers `expect: 100-continue`: a body that is too long is refused before the client sends it.
///
/// # Errors
/// The refusal; the connection ends with it.
pub async fn expect(request: actix_http::Request) -> Result<actix_http::Request, actix_http::Response<BoxBody>> {
    if content_length(request.head()) <= BODY_MAX as u64 {
        return Ok(request);
    }
    if let Some(connection) = request.conn_data::<Rc<State>>() {
        connection.end();
    }
    Err(Problem::too_large(BODY_MAX).last_answer())
}

/// Middleware, the innermost: answers a request that could not be received with its problem.
///
/// # Errors
/// None: an error further in becomes an answer.
pub async fn refuse(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let problem = request.extensions_mut().remove::<Problem>();
    Ok(match problem {
        Some(problem) => request.error_response(problem).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    })
}

/// Checks what must be right in every request, whatever it asks for.
fn check(head: &RequestHead) -> Result<(), Problem> {
    if head.headers().get(HOST).is_some_and(|host| !host.to_str().is_ok_and(names_host)) {
        return Err(Problem::invalid("host", "host must be a name or an address, with its port if it has one"));
    }
    if !names_path(head) {
        return Err(Problem::no_request());
    }
    // Nothing in our paths needs an escape: a path with one is another spelling, which the rules of a proxy in front of
    // us may not know.
    if head.uri.path().contains('%') { Err(Problem::no_such_route()) } else { Ok(()) }
}

/// Whether the target is a path, or what its method has in place of one: `OPTIONS *` asks about all addresses, and a tunnel
/// is refused by its method.
fn names_path(head: &RequestHead) -> bool {
    head.uri.path().starts_with('/') || matches!(head.method, Method::OPTIONS | Method::CONNECT)
}

/// Whether this is a host that RFC 9112 allows in requests; an empty one is for targets without a host.
fn names_host(text: &str) -> bool {
    let is_port =
        |port: &str| port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let has_port = |authority: &Authority| {
        let after = text.strip_prefix(authority.host()).unwrap_or_default();
        after.is_empty() || after.strip_prefix(':').is_some_and(is_port)
    };
    text.is_empty() || text.parse().is_ok_and(|authority| has_port(&authority) && !text.contains('@'))
}

/// Whether the client means to send further requests. One that asks for another protocol is answered in this one, and
/// its connection ends.
fn is_kept_alive(head: &RequestHead) -> bool {
    head.connection_type() == ConnectionType::KeepAlive && !asks_for_another_protocol(head)
}

/// Whether a client asks for WebSocket, for instance, or for a tunnel: actix takes everything that follows for the
/// body.
fn asks_for_another_protocol(head: &RequestHead) -> bool {
    head.headers().contains_key(UPGRADE) || head.method == Method::CONNECT
}

async fn body(request: &mut ServiceRequest, connection: &State) -> Result<Option<web::Bytes>, Problem> {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return Ok(None);
    }
    let length = (!request.chunked().unwrap_or(false)).then(|| content_length(request.head()));
    if length.is_some_and(|length| length > BODY_MAX as u64) {
        return Err(Problem::too_large(BODY_MAX));
    }
    connection.receive(length);
    let body = tokio::time::timeout(RECEIVE_DEADLINE, read(payload, length))
        .await
        .unwrap_or_else(|_| Err(Problem::too_slow(RECEIVE_DEADLINE)))?;
    connection.received();
    Ok(Some(body))
}

fn content_length(head: &RequestHead) -> u64 {
    let length = head.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}

/// Reads a body of this length, or a chunked one to its end.
async fn read(mut payload: Payload, length: Option<u64>) -> Result<web::Bytes, Problem> {
    let mut body = Vec::new();
    let is_short = |body: &[u8]| length.is_some_and(|length| (body.len() as u64) < length);
    while (length.is_none() || is_short(&body))
        && let Some(chunk) = payload.next().await
    {
        let chunk = chunk.map_err(|_| Problem::invalid("body", "the body ended early or has malformed chunks"))?;
        body.extend_from_slice(&chunk);
        if body.len() > BODY_MAX {
            return Err(Problem::too_large(BODY_MAX));
        }
    }
    if is_short(&body) {
        return Err(Problem::invalid("body", "the body ended early"));
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "",
            "shop.example",
            "shop:65535",
            "shop.example:8080",
            "shop:",
            "192.0.2.1:80",
            "[2001:db8::1]",
            "[::1]:80",
        ] {
            assert!(names_host(host), "{host}");
        }
        for host in
            ["a b", "a/b", "a@b", "@", "http://a", "a:b", "a:80:80", "a:65536", "a:+80", "[::1", "[::1]x", "a?b", "<a>"]
        {
            assert!(!names_host(host), "{host}");
        }
    }
}
