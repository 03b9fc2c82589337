//! The rules that every token must meet, whichever key it is signed with.

use std::time::Duration;

use jsonwebtoken::Algorithm;

/// Fixed by settings, never by a token.
pub(super) struct Rules {
    pub algorithms: Vec<Algorithm>,
    pub issuer: String,
    pub audience: String,
    pub leeway: Duration,
}
