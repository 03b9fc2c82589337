//! Reading a request: what is wrong is named by its field before anything else happens, so bad input costs nothing.

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::domain::{AccountId, CampaignId};

/// A claim is two dozen bytes; this leaves room for a client that likes white space.
pub const BODY_MAX: usize = 1024;

/// The longest that a client may wait for an outcome in one request.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// What an account sends to claim a coupon.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    /// The account that claims, 1 or above.
    #[schema(value_type = u64, minimum = 1, example = 42)]
    pub account_id: AccountId,
}

/// The `campaign_id` in the path.
///
/// # Errors
/// 400.
pub fn campaign_id(request: &HttpRequest) -> Result<CampaignId, Problem> {
    number(request.match_info().query("campaign_id"), "campaign_id").map(CampaignId)
}

/// The `account_id` in the path.
///
/// # Errors
/// 400.
pub fn account_id(request: &HttpRequest) -> Result<AccountId, Problem> {
    number(request.match_info().query("account_id"), "account_id").map(AccountId)
}

fn number(text: &str, field: &'static str) -> Result<u64, Problem> {
    // `parse` takes "+1" too, which would give one claim two addresses.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_plain && number > 0 => Ok(number),
        _ => Err(Problem::invalid(field, format!("{field} must be a whole number from 1 to {}", u64::MAX))),
    }
}

/// The account in the body of a claim.
///
/// # Errors
/// 400, 413 or 415.
pub fn claim_body(request: &HttpRequest, body: Result<web::Bytes, actix_web::Error>) -> Result<ClaimBody, Problem> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::not_json());
    }
    let body = body.map_err(|error| {
        if error.as_response_error().status_code() == actix_web::http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::too_large(BODY_MAX)
        } else {
            Problem::invalid("body", "the body ended early or is not encoded as its headers say")
        }
    })?;
    parse_claim_body(&body)
}

fn parse_claim_body(body: &[u8]) -> Result<ClaimBody, Problem> {
    let claim: ClaimBody = serde_json::from_slice(body).map_err(|error| {
        // Well-formed JSON that is no claim fails at its one field, or at one that has no place here, which serde names.
        let field = if error.is_data() { "account_id" } else { "body" };
        Problem::invalid(field, format!("the body must be like {{\"account_id\": 42}}: {error}"))
    })?;
    if claim.account_id.0 == 0 {
        return Err(Problem::invalid("account_id", "account_id must be 1 or above"));
    }
    Ok(claim)
}

/// The query of a request for a claim's outcome.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    wait: Option<String>,
}

/// How long the client wants to wait; not at all unless told.
///
/// # Errors
/// 400.
pub fn wait(request: &HttpRequest) -> Result<Duration, Problem> {
    let query = web::Query::<WaitQuery>::from_query(request.query_string())
        .map_err(|_| Problem::invalid("wait", "the only parameter is wait, as in ?wait=5s"))?;
    let Some(text) = &query.wait else { return Ok(Duration::ZERO) };
    match humantime::parse_duration(text) {
        Ok(wait) if wait <= WAIT_MAX => Ok(wait),
        Ok(_) => Err(Problem::invalid("wait", format!("wait may be {}s at most", WAIT_MAX.as_secs()))),
        Err(error) => Err(Problem::invalid("wait", format!("{error}; write it as 500ms or 5s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read() {
        assert_eq!(parse_claim_body(br#" {"account_id": 42} "#).unwrap().account_id, AccountId(42));
        assert_eq!(
            parse_claim_body(br#"{"account_id":18446744073709551615}"#).unwrap().account_id,
            AccountId(u64::MAX)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (&br#"{"account_id":0}"#[..], "account_id"),
            (br#"{"account_id":-1}"#, "account_id"),
            (br#"{"account_id":1.5}"#, "account_id"),
            (br#"{"account_id":"42"}"#, "account_id"),
            (br#"{"account_id":18446744073709551616}"#, "account_id"),
            (br#"{"account_id":1,"coupon_id":2}"#, "coupon_id"),
            (br"{}", "account_id"),
            (br"[1]x", "body"),
            (br"", "body"),
            (b"\xff\xfe", "body"),
            (br#"{"account_id":1"#, "body"),
        ] {
            let problem = parse_claim_body(body).unwrap_err();

            assert!(format!("{problem:?}").contains(field), "{}: {problem:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn numbers_in_paths_have_one_spelling() {
        assert_eq!(number("7", "campaign_id").unwrap(), 7);
        for text in ["", "0", "+7", "-7", "7.0", " 7", "seven", "18446744073709551616"] {
            assert!(number(text, "campaign_id").is_err(), "{text:?} was taken");
        }
    }
}
