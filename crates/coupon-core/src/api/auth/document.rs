//! Describes authentication in the `OpenAPI` document, as it is configured for the running service.

use utoipa::IntoResponses;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi, RefOr};

use super::{Auth, Way};
use crate::http::problem::ProblemDocument;

/// The name of the scheme in the document.
const SCHEME: &str = "account";

/// The refusals of a caller who must authenticate.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
enum AuthRefusals {
    /// The caller has not shown who they are.
    #[response(
        status = 401,
        content_type = "application/problem+json",
        headers(("WWW-Authenticate" = String, description = "What to send, and what was wrong with what was sent"))
    )]
    Unauthorized(ProblemDocument<'static>),
    /// The account is not the caller's; or, for a claim, the caller's token is not for the campaign, or the campaign
    /// has not opened yet, is over, or is paused.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemDocument<'static>),
}

impl Auth {
    /// Adds to the operations on claims the credentials that a caller must send, and how a caller may be refused.
    pub fn describe(&self, document: &mut OpenApi) {
        let scheme = match &self.way {
            Way::Tokens(_) => {
                SecurityScheme::Http(bearer("A token of the issuer that this service trusts, which names the account."))
            }
            Way::Header(name) => SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                name.as_str(),
                "The number of the account. The gateway in front sets it, whatever the client sends.",
            ))),
            Way::Nobody => return,
        };
        document.components.get_or_insert_default().security_schemes.insert(String::from(SCHEME), RefOr::T(scheme));
        for (path, item) in &mut document.paths.paths {
            let is_of_claims = path.contains("/claims");
            for operation in item.get.iter_mut().chain(&mut item.post).filter(|_| is_of_claims) {
                operation.security = Some(vec![SecurityRequirement::new::<_, _, String>(SCHEME, [])]);
                operation.responses.responses.extend(AuthRefusals::responses());
            }
        }
    }
}

fn bearer(description: &str) -> Http {
    HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(description)).build()
}
