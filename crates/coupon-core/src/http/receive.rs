//! The second step of a request: it is received whole, with its body, before anything is done with it.
//!
//! Invariant: after an answer that ends its connection, nothing is done that the same connection still brings.

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
    let is_last = !is_kept_alive(request.head());
    let received = if connection.is_ended() {
        // On a connection of its own the request will get an answer; this one is not sent.
        connection.answered().await;
        Err(Problem::unavailable())
    } else {
        body(&mut request).await
    };
    let (mut response, is_last) = match received {
        Ok(None) => (next.call(request).await?.map_into_left_body(), is_last),
        Ok(Some(body)) => {
            if !request.chunked().unwrap_or(false) {
                connection.ends_with(&body);
            }
            request.extensions_mut().insert(Body(body));
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

async fn body(request: &mut ServiceRequest) -> Result<Option<web::Bytes>, Problem> {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return Ok(None);
    }
    let head = request.head();
    let length = head.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_MAX as u64) {
        return Err(Problem::too_large(BODY_MAX));
    }
    let whole = asks_for_another_protocol(head).then(|| length.unwrap_or(0));
    tokio::time::timeout(RECEIVE_DEADLINE, read(payload, whole))
        .await
        .unwrap_or_else(|_| Err(Problem::too_slow(RECEIVE_DEADLINE)))
        .map(Some)
}

/// Reads a body to its end, or as much of it as is the `whole`.
async fn read(mut payload: Payload, whole: Option<u64>) -> Result<web::Bytes, Problem> {
    let mut body = Vec::new();
    while whole.is_none_or(|whole| (body.len() as u64) < whole)
        && let Some(chunk) = payload.next().await
    {
        let chunk = chunk.map_err(|_| Problem::invalid("body", "the body ended early or has wrong chunks"))?;
        body.extend_from_slice(&chunk);
        match whole {
            Some(whole) => body.truncate(usize::try_from(whole).unwrap_or(BODY_MAX)),
            None if body.len() > BODY_MAX => return Err(Problem::too_large(BODY_MAX)),
            None => {}
        }
    }
    if whole.is_some_and(|whole| (body.len() as u64) < whole) {
        return Err(Problem::invalid("body", "the body ended early"));
    }
    Ok(body.into())
}
