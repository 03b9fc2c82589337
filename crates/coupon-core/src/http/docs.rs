//! `/openapi.json` and, at `/docs/`, a page to try it, served from the binary so that it works without the internet.

use actix_web::web;
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

#[derive(OpenApi)]
#[openapi(paths(super::claims::campaign, super::claims::claim))]
struct Shared;

/// The routes, for a service's own document and what all services have.
pub fn routes(config: &mut web::ServiceConfig, own: utoipa::openapi::OpenApi) {
    let document = own.merge_from(Shared::openapi());
    config
        .service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", document))
        .service(web::redirect("/docs", "/docs/"));
}
