//! Pages of other origins that may call an API from a browser: those of the setting, by default none.
//!
//! Invariant: the answer to a request never depends on its origin; only the browser keeps the answer from a page.

use actix_cors::{Cors, CorsError};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::middleware::Condition;
use url::{Origin, Url};

use super::headers::{PREFER, PREFERENCE_APPLIED, TRACEPARENT, TRACESTATE};

/// How long a browser may remember what a page may do, in seconds. Browsers cap this at two hours or less.
const MAX_AGE: usize = 3_600;

/// The detail of the answer to a preflight request that is refused; `None` for other errors.
pub(super) fn detail(error: &actix_web::Error) -> Option<String> {
    let refused = error.as_error::<CorsError>()?;
    Some(format!("pages may not send such a request: {refused}"))
}

/// Reads an origin as browsers send it: scheme, host, and a port unless it is the scheme's own.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    let origin = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https")).map(|url| url.origin());
    match origin {
        Some(origin @ Origin::Tuple(..)) if origin.ascii_serialization() == text => Ok(text.to_owned()),
        Some(origin @ Origin::Tuple(..)) => {
            Err(format!("must be only an origin, such as {}", origin.ascii_serialization()))
        }
        _ => Err(String::from("must be an origin, such as https://shop.example or http://localhost:3000")),
    }
}

/// Middleware: tells browsers which pages may read the answers.
pub(super) fn cors(origins: &[String]) -> Condition<Cors> {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allowed_headers([AUTHORIZATION, CONTENT_TYPE, PREFER, TRACEPARENT, TRACESTATE])
        .expose_headers([LOCATION, RETRY_AFTER, PREFERENCE_APPLIED, TRACEPARENT, WWW_AUTHENTICATE])
        .block_on_origin_mismatch(false)
        .max_age(MAX_AGE);
    Condition::new(!origins.is_empty(), origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_browsers_send_it() {
        for origin_of_page in ["https://shop.example", "http://localhost:3000", "http://[::1]:8080"] {
            assert_eq!(origin(origin_of_page).as_deref(), Ok(origin_of_page));
        }
        for (text, word) in [
            ("https://shop.example/", "as https://shop.example"),
            ("https://Shop.example:443", "as https://shop.example"),
            ("https://user@shop.example", "as https://shop.example"),
            ("shop.example", "as https://"),
            ("*", "as https://"),
            ("null", "as https://"),
            ("file:///tmp", "as https://"),
        ] {
            assert!(origin(text).unwrap_err().contains(word), "{text}: {:?}", origin(text));
        }
    }
}
