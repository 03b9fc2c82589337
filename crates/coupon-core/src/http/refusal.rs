//! Rewrites the answers that actix itself gives to bytes that are not a request, before any of our handlers sees them:
//! they become problem documents like those of every other error, and say that the connection ends.

use actix_web::ResponseError as _;
use uuid::Uuid;

use super::limits::RECEIVE_DEADLINE;
use super::lines::FirstLine;
use super::problem::Problem;

/// How actix says that its answer has no body.
const NO_BODY: &str = "content-length: 0\r\n";

/// What actix may say about the connection, which it closes in any case.
const KEPT: &str = "connection: keep-alive\r\n";
const CLOSED: &str = "connection: close\r\n";

/// Returns the answer to send to a request with this first line; `None` if it is not a refusal by actix.
pub(super) fn with_problem(answer: &[u8], first: FirstLine) -> Option<String> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (version, rest) = answer.split_at_checked("HTTP/1.1 ".len())?;
    let (status, fields) = rest.split_once("\r\n")?;
    let problem = match status.get(..3)? {
        "400" | "431" if first.is_too_long() => Problem::long_target(),
        "400" => Problem::no_request(),
        "408" => Problem::slow_head(RECEIVE_DEADLINE),
        "431" => Problem::large_head(),
        _ => return None,
    };
    let (before, after) = fields.split_once(NO_BODY)?;
    let [before, after] = [before, after].map(|part| part.replace(KEPT, "").replace(CLOSED, ""));
    let body = problem.to_json(Uuid::new_v4().simple().to_string());
    let (status, length) = (problem.status_code(), body.len());
    let body = if first.asks_for_head() { "" } else { &body };
    Some(format!(
        "{version}{status}\r\n{before}{CLOSED}content-type: application/problem+json\r\ncache-control: \
         no-store\r\ncontent-length: {length}\r\n{after}{body}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_a_problem_once_and_says_that_the_connection_ends() {
        for head in [
            "HTTP/1.0 400 Bad Request\r\ncontent-length: 0\r\nconnection: keep-alive\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n",
        ] {
            let answer = format!("{head}date: now\r\n\r\n");

            let sent = with_problem(answer.as_bytes(), FirstLine::default()).unwrap();

            let (head, body) = sent.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.matches("connection: close").count(), 1, "{head}");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            assert!(head.contains("application/problem+json") && head.ends_with("date: now"), "{head}");
            assert!(body.contains("\"status\":4"), "{body}");
            assert_eq!(with_problem(sent.as_bytes(), FirstLine::default()), None, "it is one already");
        }
        assert_eq!(with_problem(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", FirstLine::default()), None);
        assert_eq!(with_problem(b"HTTP", FirstLine::default()), None);
    }
}
