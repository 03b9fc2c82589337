//! The second step of a request: it is received whole, with its body, before anything is done with it.
//!
//! Invariant: the connection hands on the next request only after this one is answered, and none after a last answer.

use std::rc::Rc;

use actix_http::ConnectionType;
use actix_web::body::MessageBody;
use actix_web::dev::{Payload, RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, UPGRADE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, web};
use futures_util::StreamExt as _;

use super::connection::{RECEIVE_DEADLINE, State};
use super::problem::Problem;

/// A claim is two dozen bytes; this leaves room for a client that likes white space.
pub const BODY_MAX: usize = 1024;

/// The body of a request, in its extensions if there is one.
pub struct Body(pub web::Bytes);

/// Middleware: hands on a request that has arrived with its body, and ends the connection where it has to end.
///
/// # Errors
/// None: what goes wrong further in becomes an answer.
pub async fn receive(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let connection = request.conn_data::<Rc<State>>().cloned().unwrap_or_default();
    let _serving = connection.serve();
    // Nor can the end of a body in chunks be told for certain: actix reads line ends in it otherwise than in heads.
    let is_last = !is_kept_alive(request.head()) || request.chunked().unwrap_or(false);
    let (mut response, is_last) = match body(&mut request, &connection).await {
        Ok(body) => {
            if let Some(body) = body {
                request.extensions_mut().insert(Body(body));
            }
            (next.call(request).await?.map_into_left_body(), is_last)
        }
        // What is left of the body cannot be distinguished from a next request.
        Err(problem) => (request.error_response(problem).map_into_right_body(), true),
    };
    if is_last {
        connection.end();
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// Whether the client means to send further requests. One that asks for another protocol is answered in this one.
fn is_kept_alive(head: &RequestHead) -> bool {
    head.connection_type() == ConnectionType::KeepAlive && !asks_for_another_protocol(head)
}

/// Whether a client asks for WebSocket, for instance, or for a tunnel: actix takes all that follows for the body.
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

/// Reads a body of this length, or one in chunks to its end.
async fn read(mut payload: Payload, length: Option<u64>) -> Result<web::Bytes, Problem> {
    let mut body = Vec::new();
    let is_short = |body: &[u8]| length.is_some_and(|length| (body.len() as u64) < length);
    while (length.is_none() || is_short(&body))
        && let Some(chunk) = payload.next().await
    {
        let chunk = chunk.map_err(|_| Problem::invalid("body", "the body ended early or has wrong chunks"))?;
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
