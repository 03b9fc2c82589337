//! Reads and checks a request. A wrong field is reported by name before anything else happens, so bad input costs
//! nothing.
//!
//! Invariant: everything that a request names has one spelling, so that no cache, log or limit takes one claim for two.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, web};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::{AccountId, CampaignId, ClaimKey, JSON_NUMBER_MAX, plain_number};
use crate::http::headers::PREFER;
use crate::http::problem::Problem;
use crate::http::receive::Body;

/// The longest that a client may wait for an outcome in one request.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// What an account sends to claim a coupon.
#[derive(Debug)]
pub struct ClaimBody {
    /// The account that claims.
    pub account_id: AccountId,
}

/// The campaign in the path.
///
/// # Errors
/// 400.
pub fn campaign_id(request: &HttpRequest) -> Result<CampaignId, Problem> {
    id(request, "campaign_id", &CampaignId::MAX)
}

/// The claim in the path.
///
/// # Errors
/// 400.
pub fn claim_key(request: &HttpRequest) -> Result<ClaimKey, Problem> {
    let campaign_id = id(request, "campaign_id", &CampaignId::MAX)?;
    let account_id = id(request, "account_id", &AccountId::MAX)?;
    Ok(ClaimKey { campaign_id, account_id })
}

fn id<T: FromStr + Display>(request: &HttpRequest, field: &'static str, max: &T) -> Result<T, Problem> {
    let id = request.match_info().query(field).parse();
    id.map_err(|_| Problem::invalid(field, format!("{field} must be a whole number from 1 to {max}, in digits")))
}

/// The account in the body of a claim.
///
/// # Errors
/// 400 or 415.
pub fn claim_body(request: &HttpRequest) -> Result<ClaimBody, Problem> {
    let is_json = |media_type: &HeaderValue| {
        let media_type = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    };
    let mut media_types = request.headers().get_all(CONTENT_TYPE).peekable();
    if media_types.peek().is_none() || !media_types.all(is_json) {
        return Err(Problem::not_json());
    }
    let is_plain = |encoding: &str| encoding.eq_ignore_ascii_case("identity");
    if !request.headers().get_all(CONTENT_ENCODING).all(|encoding| encoding.to_str().is_ok_and(is_plain)) {
        return Err(Problem::encoded());
    }
    let extensions = request.extensions();
    parse_claim_body(extensions.get::<Body>().map_or(&[], |body| &body.0))
}

/// Reads an account's number from the JSON of a body or a token; `None` if it is not one.
pub(super) fn account(sent: &Value) -> Option<AccountId> {
    sent_account(sent, sent.as_u64()).ok()
}

/// Reads a campaign's number from the JSON of a token; `None` if it is not one.
pub(super) fn campaign(sent: &Value) -> Option<CampaignId> {
    match sent {
        Value::Number(number) => number.as_u64().filter(|id| (1..=CampaignId::MAX.0).contains(id)).map(CampaignId),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn parse_claim_body(body: &[u8]) -> Result<ClaimBody, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sent {
        account_id: Value,
    }
    const LIKE: &str = "it must be like {\"account_id\": 42}";

    let alone = || {
        let is_account = |members: Map<String, Value>| members.keys().all(|name| name == "account_id");
        let field = if serde_json::from_slice(body).is_ok_and(is_account) { "account_id" } else { "body" };
        let detail = format!("the body must be a JSON object with one account_id and nothing else: {LIKE}");
        Problem::invalid(field, detail)
    };
    match serde_json::from_slice::<Sent>(body) {
        // serde would accept a list of one element in place of the object.
        Ok(sent) if body.trim_ascii_start().starts_with(b"{") => {
            sent_account(&sent.account_id, written(body)).map(|account_id| ClaimBody { account_id })
        }
        Err(error) if !error.is_data() => {
            Err(Problem::invalid("body", format!("the body cannot be read as JSON: {LIKE}")))
        }
        Ok(_) | Err(_) => Err(alone()),
    }
}

/// Reads the account that was sent; `number` is its value if it was sent as a number.
fn sent_account(sent: &Value, number: Option<u64>) -> Result<AccountId, Problem> {
    let account = match sent {
        Value::Number(_) => match number {
            Some(number) if number > JSON_NUMBER_MAX => {
                let detail = format!(
                    "account_id is above {JSON_NUMBER_MAX}, and programs may have rounded it to another account's: send \
                     it as a string"
                );
                return Err(Problem::invalid("account_id", detail));
            }
            number => number.filter(|number| *number > 0),
        },
        Value::String(text) => return text.parse().map_err(|_| not_an_account()),
        _ => None,
    };
    account.map(AccountId).ok_or_else(not_an_account)
}

fn not_an_account() -> Problem {
    let detail = format!(
        "account_id must be a whole number from 1 to {JSON_NUMBER_MAX} in digits, or a string with the digits of one up to {}",
        AccountId::MAX
    );
    Problem::invalid("account_id", detail)
}

/// Reads the number in a body with one member from its digits: as a float, 42.00000000000000001 would become 42,
/// another account. A fraction of zeros is ignored, because 42.0 is an integer in JSON.
fn written(body: &[u8]) -> Option<u64> {
    let (_, value) = std::str::from_utf8(body).ok()?.split_once(':')?;
    let number = value.trim_end().strip_suffix('}')?.trim();
    let digits = match number.split_once('.') {
        None => number,
        Some((digits, fraction)) if fraction.bytes().all(|digit| digit == b'0') => digits,
        Some(_) => return None,
    };
    plain_number(digits, 0..=u64::MAX)
}

/// Refuses query parameters where there are none: one that was sent was meant to do something.
///
/// # Errors
/// 400.
pub fn no_query(request: &HttpRequest) -> Result<(), Problem> {
    let detail = "no parameters are taken here: wait belongs to GET .../claims/{account_id}, and the header prefer: wait=5 makes a \
                  claim wait for its outcome";
    if request.query_string().is_empty() { Ok(()) } else { Err(Problem::invalid("query", detail)) }
}

/// How long the client wants to wait; not at all unless it says so.
///
/// # Errors
/// 400.
pub fn wait(request: &HttpRequest) -> Result<Duration, Problem> {
    const LIKE: &str = "the only parameter is wait, once, as in ?wait=5s";

    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|_| Problem::invalid("query", LIKE))?;
    match query.as_slice() {
        [] => Ok(Duration::ZERO),
        [(name, wait)] if name == "wait" => parse_wait(wait),
        parameters if parameters.iter().all(|(name, _)| name == "wait") => Err(Problem::invalid("wait", LIKE)),
        _ => Err(Problem::invalid("query", LIKE)),
    }
}

/// How long the client prefers to wait for the outcome in the exchange of its claim: `Prefer: wait=5`, with or without
/// `respond-async` (RFC 7240). `None` if it does not say so or says zero; at most [`WAIT_MAX`]. A preference that is
/// not understood is ignored, as the RFC requires.
#[must_use]
pub fn preferred_wait(request: &HttpRequest) -> Option<Duration> {
    let preferences = request.headers().get_all(PREFER).filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(unquoted_list).find_map(|preference| {
        // A semicolon is followed by parameters of a preference, not by further preferences.
        let (name, seconds) = preference.split(';').next()?.split_once('=')?;
        let seconds = name.trim().eq_ignore_ascii_case("wait").then(|| seconds.trim())?;
        let seconds = seconds.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(seconds);
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        // A number with too many digits to parse is above the limit as well.
        is_number.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)).min(WAIT_MAX))
    });
    wait.filter(|wait| !wait.is_zero())
}

/// Splits the value of a header at its commas, except at those within quotes.
fn unquoted_list(value: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |character| {
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = is_quoted && character == '\\' && !is_escaped;
        character == ',' && !is_quoted
    })
}

fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let wait = match text.strip_suffix("ms") {
        Some(number) => plain_number(number, 0..=30_000).map(Duration::from_millis),
        None => text.strip_suffix('s').and_then(|number| plain_number(number, 0..=30_000)).map(Duration::from_secs),
    };
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        let detail = format!("wait must be a time such as 500ms or 5s, {}s at most", WAIT_MAX.as_secs());
        Problem::invalid("wait", detail)
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_account_is_read_however_it_is_written(number in 1..=JSON_NUMBER_MAX, any in 1..=AccountId::MAX.0, gap in "[ \t\r\n]{0,3}") {
            let written = format!("{gap}{{{gap}\"account_id\"{gap}:{gap}{number}{gap}}}{gap}");
            prop_assert_eq!(parse_claim_body(written.as_bytes()).unwrap().account_id, AccountId(number));
            let written = format!("{{\"account_id\":{gap}\"{any}\"}}");
            prop_assert_eq!(parse_claim_body(written.as_bytes()).unwrap().account_id, AccountId(any));
        }

        #[test]
        fn whatever_comes_is_an_account_or_a_problem(body: Vec<u8>, value in "[-+0-9.eE\"nulltruefalse\\[\\]{}:, ]{0,40}") {
            let _ = parse_claim_body(&body);
            let body = format!("{{\"account_id\":{value}}}");
            if let Ok(ClaimBody { account_id }) = parse_claim_body(body.as_bytes()) {
                prop_assert!((1..=AccountId::MAX.0).contains(&account_id.0), "{account_id} of {body}");
            }
        }

        #[test]
        fn a_wait_is_never_longer_than_it_may_be(header in "[ -~]{0,60}", text in "[0-9a-z.+-]{0,12}", seconds: u64) {
            for header in [header, format!("wait={seconds}"), format!("a=\"{text},\", wait={text}")] {
                let request = TestRequest::default().insert_header((PREFER, header)).to_http_request();
                prop_assert!(preferred_wait(&request).is_none_or(|wait| wait <= WAIT_MAX));
            }
            prop_assert!(parse_wait(&text).is_ok_and(|wait| wait <= WAIT_MAX) || parse_wait(&text).is_err());
        }
    }

    #[test]
    fn a_claim_is_read() {
        for (body, account) in [
            (&br#" {"account_id": 42} "#[..], 42),
            (br#"{"account_id":"42"}"#, 42),
            (br#"{"account_id":42.0}"#, 42),
            (br#"{"account_id":9007199254740991}"#, 9_007_199_254_740_991),
            (br#"{"account_id":"9007199254740993"}"#, 9_007_199_254_740_993),
            (br#"{"account_id":"9223372036854775807"}"#, 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse_claim_body(body).unwrap().account_id, AccountId(account));
        }
    }

    #[test]
    fn what_is_wrong_is_named_in_words() {
        for (body, words) in [
            (&br#"{"account_id":0}"#[..], "account_id must be a whole number"),
            (br#"{"account_id":-1}"#, "account_id must be a whole number"),
            (br#"{"account_id":1.5}"#, "account_id must be a whole number"),
            (br#"{"account_id":4.2e1}"#, "account_id must be a whole number"),
            (br#"{"account_id":42.00000000000000001}"#, "account_id must be a whole number"),
            (br#"{"account_id":0.99999999999999999999}"#, "account_id must be a whole number"),
            (br#"{"account_id":9007199254740990.5}"#, "account_id must be a whole number"),
            (br#"{"account_id":null}"#, "account_id must be a whole number"),
            (br#"{"account_id":"042"}"#, "account_id must be a whole number"),
            (br#"{"account_id":" 42"}"#, "account_id must be a whole number"),
            (br#"{"account_id":"+42"}"#, "account_id must be a whole number"),
            (br#"{"account_id":""}"#, "account_id must be a whole number"),
            (br#"{"account_id":"9223372036854775808"}"#, "account_id must be a whole number"),
            (br#"{"account_id":18446744073709551616}"#, "account_id must be a whole number"),
            (br#"{"account_id":9007199254740993.0}"#, "send it as a string"),
            (br#"{"account_id":9007199254740992}"#, "send it as a string"),
            (br#"{"account_id":18446744073709551615}"#, "send it as a string"),
            (br#"{"account_id":1,"coupon_id":2}"#, "one account_id and nothing else"),
            (br#"{"account_id":1,"account_id":1}"#, "one account_id and nothing else"),
            (br"{}", "one account_id and nothing else"),
            (br"[77]", "one account_id and nothing else"),
            (br"null", "one account_id and nothing else"),
            (br"[1]x", "read as JSON"),
            (br"", "read as JSON"),
            (b"\xff\xfe", "read as JSON"),
            (br#"{"account_id":1"#, "read as JSON"),
        ] {
            let problem = parse_claim_body(body).unwrap_err().to_string();

            assert!(problem.contains(words), "{}: {problem}", String::from_utf8_lossy(body));
            for jargon in ["expected", "line 1", "u64", "struct"] {
                assert!(!problem.contains(jargon), "{problem}");
            }
        }
    }

    #[test]
    fn a_preference_is_read_or_ignored() {
        let wait = |values: &[&str]| {
            let mut request = TestRequest::default();
            for value in values {
                request = request.append_header((PREFER, *value));
            }
            preferred_wait(&request.to_http_request()).map(|wait| wait.as_secs())
        };
        for (values, seconds) in [
            (&["wait=5"][..], 5),
            (&["respond-async, wait=5"], 5),
            (&["respond-async", "wait=5"], 5),
            (&["Wait = \"5\""], 5),
            (&["wait=31"], 30),
            (&["wait=99999999999999999999999"], 30),
            (&["wait=soon, wait=3"], 3),
            (&["foo=\"a, b\"; c, wait=5; d=6"], 5),
            (&[r#"foo="a\"b", wait=5"#], 5),
            (&[r#"foo="a\\", wait=5"#], 5),
        ] {
            assert_eq!(wait(values), Some(seconds), "{values:?}");
        }
        for values in [
            &[][..],
            &["respond-async"],
            &["wait=0"],
            &["wait"],
            &["wait="],
            &["wait=-1"],
            &["wait=1.5"],
            &["waiting=5"],
            &["wait=\"5"],
            &["wait=5\""],
            &["foo=\"a, wait=5\""],
            &["respond-async; wait=5"],
        ] {
            assert_eq!(wait(values), None, "{values:?}");
        }
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_milliseconds() {
        for (text, milliseconds) in [("0s", 0), ("5s", 5_000), ("30s", 30_000), ("250ms", 250), ("30000ms", 30_000)] {
            assert_eq!(parse_wait(text).unwrap(), Duration::from_millis(milliseconds));
        }
        for text in ["", "5", "s", "ms", "05s", "31s", "30001ms", "1S", "1min", "soon", "-1s", "1.5s", " 5s"] {
            assert!(parse_wait(text).is_err(), "{text:?} was taken");
        }
    }
}
