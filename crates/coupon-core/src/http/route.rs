//! A path and the methods that it takes: HEAD wherever there is GET, and an answer to all others.

use actix_web::http::Method;
use actix_web::http::header::ALLOW;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, guard, web};

use super::problem::Problem;

/// A path that is read. HEAD gets the same answer; its body is left out when it is sent.
pub fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let reads = web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    resource(path, "GET, HEAD, OPTIONS").route(reads.to(handler))
}

/// A path that takes POST.
pub fn post<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource(path, "POST, OPTIONS").route(web::post().to(handler))
}

fn resource(path: &str, allowed: &'static str) -> Resource {
    let other_method = move |request: HttpRequest| {
        let is_question = request.method() == Method::OPTIONS;
        async move {
            if is_question {
                Ok(HttpResponse::NoContent().insert_header((ALLOW, allowed)).finish())
            } else {
                Err(Problem::other_method(allowed))
            }
        }
    };
    web::resource(path).default_service(web::to(other_method))
}
