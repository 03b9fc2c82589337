//! `/openapi.json` and, at `/docs/`, a page to try it out. Both are served from the binary, so that they work without
//! the internet, and linked by relative addresses, so that they work behind a gateway that strips a prefix.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, LOCATION};
use actix_web::{HttpResponse, guard, web};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use super::auth::Auth;
use crate::domain::{AccountId, CampaignId};
use crate::http::problem::{Code, Problem, ProblemDocument};
use crate::http::route::get;

/// The page may load and call nothing but this service, whatever the third-party code in it attempts.
const CALLS_NOBODY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                            img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                            frame-ancestors 'none'";

/// The part of the document that both APIs share.
#[derive(OpenApi)]
#[openapi(
    info(
        contact(name = "The operators of this installation"),
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    // The directory of the document, whatever prefix it has.
    servers((url = ".")),
    tags(
        (name = "claims", description = "Claiming a coupon, and what became of it"),
        (name = "campaigns", description = "How campaigns stand"),
    ),
    paths(super::routes::campaign, super::routes::claim),
    components(schemas(CampaignId, AccountId, ProblemDocument<'static>, Code))
)]
struct Shared;

/// The documents of a service. Cheap to clone.
#[derive(Clone)]
pub struct Documents(web::Bytes);

impl Documents {
    /// Makes them from a service's own document and the part that all services share.
    #[must_use]
    pub fn new(own: &utoipa::openapi::OpenApi, auth: &Auth) -> Self {
        Self(web::Bytes::from(document(own, auth).to_json().unwrap_or_default()))
    }

    /// Adds the routes.
    pub fn routes(&self, config: &mut web::ServiceConfig) {
        page_routes(config);
        let document = self.0.clone();
        config.service(get("/openapi.json", move || {
            let document = document.clone();
            async move { HttpResponse::Ok().content_type("application/json").body(document) }
        }));
    }
}

fn page_routes(config: &mut web::ServiceConfig) {
    // The page must not send this document to a validator elsewhere.
    let page = Arc::new(Config::new(["../openapi.json"]).validator_url("none"));
    let of_page = Arc::clone(&page);
    // A file that is not there gets a 404 for every method, OPTIONS included.
    let is_there = guard::fn_guard(move |request| {
        let file = request.head().uri.path().strip_prefix("/docs/").unwrap_or_default();
        // The crate would take `/docs//` for `/docs/`.
        !file.starts_with('/') && !matches!(utoipa_swagger_ui::serve(file, Arc::clone(&of_page)), Ok(None))
    });
    config
        .service(get("/docs", async || HttpResponse::TemporaryRedirect().insert_header((LOCATION, "docs/")).finish()))
        .service(
            get("/docs/{file:.*}", move |file: web::Path<String>| {
                let page = Arc::clone(&page);
                async move { page_file(&file, page) }
            })
            .guard(is_there),
        );
}

fn document(own: &utoipa::openapi::OpenApi, auth: &Auth) -> utoipa::openapi::OpenApi {
    let mut document = Shared::openapi();
    document.info.title.clone_from(&own.info.title);
    document.info.description.clone_from(&own.info.description);
    document.merge(own.clone());
    // Anybody may call an operation that does not say otherwise.
    document.security = Some(Vec::new());
    auth.describe(&mut document);
    document
}

fn page_file(path: &str, page: Arc<Config<'static>>) -> Result<HttpResponse, Problem> {
    let file = utoipa_swagger_ui::serve(path, page).map_err(|error| {
        tracing::error!(%error, "the page cannot be rendered");
        Problem::internal()
    })?;
    let file = file.ok_or_else(Problem::no_such_route)?;
    let mut answer = HttpResponse::Ok();
    answer.content_type(file.content_type).insert_header((CONTENT_SECURITY_POLICY, CALLS_NOBODY));
    if file.gzpipped {
        answer.insert_header((CONTENT_ENCODING, "gzip"));
    }
    Ok(match file.bytes {
        Cow::Borrowed(bytes) => answer.body(bytes),
        Cow::Owned(bytes) => answer.body(bytes),
    })
}
