//! Requests as bytes on a connection. Goal: each is answered as HTTP demands, and nothing is done whose result the client
//! could not learn. Method: sockets that the tests write to directly.

mod unfinished;

use std::io;

use coupon_core::Outcome;
use coupon_testkit::{DEADLINE, TestSpace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::programs;
use crate::system::System;

both_ways![
    nothing_is_done_after_the_last_answer_on_a_connection,
    bytes_that_are_not_a_request_are_refused_like_any_other_mistake,
    an_invalid_host_or_target_is_refused,
    a_head_request_is_refused_without_a_body,
    a_body_is_requested_only_if_it_will_be_read,
    pipelined_requests_are_answered_one_by_one,
    many_claims_on_one_connection_are_answered_in_order,
    an_unwanted_body_is_not_taken_for_a_request,
    a_claim_that_asks_for_another_protocol_is_answered_in_this_one,
    a_tunnel_is_refused_at_once,
    two_media_types_are_refused,
    a_wait_ends_when_the_client_closes_its_connection,
];

audited![bad_requests_cause_no_error_in_the_log,];

/// Sends these bytes and reads until the connection is closed.
async fn exchange(system: &System, request: &str) -> String {
    let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    read_to_end(&mut connection).await
}

async fn read_to_end(connection: &mut TcpStream) -> String {
    let (answers, ended) = read_all(connection).await;
    ended.expect("the connection is not reset: an answer could be lost with it");
    answers
}

/// Reads until the connection is closed, or reset because the service has stopped reading.
async fn read_all(connection: &mut TcpStream) -> (String, io::Result<usize>) {
    let mut answers = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut answers)).await;
    (String::from_utf8(answers).unwrap(), ended.expect("the connection is closed"))
}

fn claim(path: &str, headers: &str, account: u64) -> String {
    let body = format!("{{\"account_id\":{account}}}");
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: coupons\r\ncontent-type: application/json\r\n{headers}content-length: \
         {length}\r\n\r\n{body}"
    )
}

async fn expect_alive(connection: &mut TcpStream) {
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: coupons\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let length = connection.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("alive\n"), "{answer}");
}

async fn nothing_is_done_after_the_last_answer_on_a_connection(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let large = "x".repeat(2_000);
    let next = claim(&path, "", 1);
    let many = "x".repeat(20_000);
    let chunked =
        |begin| format!("POST {path} HTTP/1.1\r\nhost: coupons\r\ntransfer-encoding: chunked\r\n\r\n{begin}{many}");

    for (first, status) in [
        (format!("POST {path} HTTP/1.1\r\nhost: coupons\r\ncontent-length: 2000\r\n\r\n{large}"), "413"),
        (format!("POST /nowhere HTTP/1.1\r\nhost: coupons\r\ncontent-length: 2000\r\n\r\n{large}"), "413"),
        (chunked("4e20\r\n"), "413"),
        (String::from("GET * HTTP/1.1\r\nhost: coupons\r\n\r\n"), "400"),
        (String::from("GET /nowhere HTTP/1.1\r\nhost: coupons\r\nconnection: close\r\n\r\n"), "404"),
        (String::from("GET /livez HTTP/1.1\r\nhost: coupons\r\nconnection: close\r\n\r\n"), "200"),
        (String::from("GET /livez HTTP/1.0\r\n\r\n"), "200"),
    ] {
        let answers = exchange(system, &format!("{first}{next}")).await;

        assert_eq!(answers.split(' ').nth(1), Some(status), "{answers}");
        assert_eq!(answers.matches("HTTP/1.").count(), 1, "one answer: {answers}");
        let (head, _) = answers.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close") || head.starts_with("HTTP/1.0"), "{answers}");
    }
    // actix reads no further once the framing is broken.
    let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
    connection.write_all((chunked("zz\r\n") + &next).as_bytes()).await.unwrap();
    let (answers, _) = read_all(&mut connection).await;
    assert!(answers.starts_with("HTTP/1.1 400 ") && answers.matches("HTTP/1.").count() == 1, "{answers}");
    assert_eq!(system.space.issued(campaign).await, 0);
    assert_eq!(system.space.queues.waiting().await, 0, "nothing was put into the queue");
}

async fn bytes_that_are_not_a_request_are_refused_like_any_other_mistake(system: &System) {
    let alive = "GET /livez HTTP/1.1\r\nhost: coupons\r\n\r\n";
    let many_headers = "x: 1\r\n".repeat(100);
    let large = "a".repeat(600_000);
    for (refused, status, code) in [
        (String::from("no request\r\n\r\n"), "400 Bad Request", "invalid_request"),
        (format!("GET / HTTP/1.1\r\n{}: 1\r\n\r\n", "n".repeat(65_536)), "400 Bad Request", "invalid_request"),
        (format!("GET / HTTP/1.1\r\n{many_headers}\r\n"), "431 ", "invalid_request"),
        (format!("GET / HTTP/1.1\r\nx: {large}\r\n\r\n"), "431 ", "invalid_request"),
        (String::from("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"), "400 Bad Request", "invalid_request"),
        (format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "p".repeat(65_535)), "414 URI Too Long", "invalid_request"),
        (format!("GET /{large} HTTP/1.1\r\nhost: a\r\n\r\n"), "414 URI Too Long", "invalid_request"),
    ] {
        for before in ["", alive] {
            let answers = exchange(system, &format!("{before}{refused}{alive}")).await;

            let answers: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).collect();
            assert_eq!(answers.len(), if before.is_empty() { 1 } else { 2 }, "{answers:?} to {refused:.80}");
            let refusal = answers.last().unwrap();
            assert!(refusal.starts_with(status), "{refusal} to {refused:.80}");
            let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
            assert_eq!(head.matches("\r\nconnection: close").count(), 1, "{refusal}");
            assert!(head.contains("content-type: application/problem+json"), "{refusal}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], code, "{refusal}");
        }
    }
}

async fn an_invalid_host_or_target_is_refused(system: &System) {
    let request =
        |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    for (target, host, status) in [
        ("/livez", "", "200"),
        ("/livez", "[::1]:8080", "200"),
        ("http://shop.example/livez", "shop.example:80", "200"),
        ("/livez", "a b", "400"),
        ("/livez", "user@shop.example", "400"),
        ("/livez", "shop.example:http", "400"),
        ("livez", "shop.example", "400"),
        ("*", "shop.example", "400"),
    ] {
        let answer = exchange(system, &request(target, host)).await;

        assert_eq!(answer.split(' ').nth(1), Some(status), "{target} of {host}: {answer}");
        assert_eq!(answer.contains("\"code\":\"invalid_request\""), status == "400", "{answer}");
    }
}

async fn a_head_request_is_refused_without_a_body(system: &System) {
    let many_headers = "x: 1\r\n".repeat(100);
    for (target, headers, status) in [
        ("/livez", many_headers.as_str(), "431 "),
        ("/livez", "host: a\r\nhost: b\r\n", "400 "),
        ("/livez", "host: a b\r\nconnection: close\r\n", "400 "),
        ("/nowhere", "host: a\r\nconnection: close\r\n", "404 "),
    ] {
        let answer = exchange(system, &format!("HEAD {target} HTTP/1.1\r\n{headers}\r\n")).await;

        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(head.contains("content-type: application/problem+json") && body.is_empty(), "{answer}");
    }
}

async fn a_body_is_requested_only_if_it_will_be_read(system: &System) {
    let campaign = system.space.campaign(1).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let asking = |length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: coupons\r\ncontent-type: application/json\r\nconnection: close\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };

    let refused = exchange(system, &asking(5_000)).await;
    let taken = exchange(system, &(asking(16) + "{\"account_id\":1}")).await;

    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("\r\nconnection: close\r\n"), "{refused}");
    assert!(refused.contains("\"code\":\"body_too_large\"") && !refused.contains("100 Continue"), "{refused}");
    assert!(taken.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20"), "{taken}");
    assert!(matches!(system.api.settled(campaign, 1).await, Outcome::Issued { .. }));
}

async fn pipelined_requests_are_answered_one_by_one(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let chunks = "transfer-encoding: chunked\r\n\r\n10\r\n{\"account_id\":\n\n\r\n2\r\n2}\r\n0\r\n\r\n";
    let sent = [
        String::from("GET /livez HTTP/1.1\r\nhost: coupons\r\n\r\n"),
        String::from("\r\nHEAD /livez HTTP/1.1\r\nhost: coupons\r\n\r\n"),
        claim(&path, "", 1),
        String::from("GET /nowhere HTTP/1.1\nhost: coupons\n\n"),
        String::from("HEAD /livez HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nhost: coupons\r\ncontent-type: application/json\r\n{chunks}"),
        claim(&path, "", 3),
    ];

    let answers = exchange(system, &sent.concat()).await;

    let answers: Vec<&str> = answers.split("HTTP/1.").skip(1).collect();
    let claimed = if system.is_queue() { "202" } else { "201" };
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[2..5]).collect();
    assert_eq!(statuses, ["200", "200", claimed, "404", "200", claimed], "{answers:?}");
    for (number, answer) in answers.iter().enumerate() {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.is_empty(), [1, 4].contains(&number), "only HEAD is answered without a body: {answer}");
        assert_eq!(head.starts_with("0 "), number == 4, "each has the version of its request: {answer}");
        assert_eq!(
            head.contains("connection: close"),
            number == 5,
            "the connection ends after a chunked body: {answer}"
        );
    }
    for account in [1, 2] {
        assert!(matches!(system.api.settled(campaign, account).await, Outcome::Issued { .. }));
    }
    assert_eq!(system.space.issued(campaign).await, 2, "the last claim came after the end of the connection");
}

async fn many_claims_on_one_connection_are_answered_in_order(system: &System) {
    let campaign = system.space.campaign(300).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let claims: Vec<String> = (1..=300).map(|account| claim(&path, "", account)).collect();
    let last = "GET /livez HTTP/1.1\r\nhost: coupons\r\nconnection: close\r\n\r\n";

    let answers = exchange(system, &(claims.concat() + last)).await;

    let named = answers.lines().filter_map(|line| line.strip_prefix("location: claims/"));
    let in_order: Vec<String> = (1..=300).map(|account| account.to_string()).collect();
    assert_eq!(named.collect::<Vec<_>>(), in_order, "{answers}");
    assert!(answers.ends_with("alive\n"), "{answers}");
    for account in 1..=300 {
        assert!(matches!(system.api.settled(campaign, account).await, Outcome::Issued { .. }));
    }
}

async fn an_unwanted_body_is_not_taken_for_a_request(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let inside = claim(&path, "", 1);
    let length = inside.len();
    let first = format!("POST /nowhere HTTP/1.1\r\nhost: coupons\r\ncontent-length: {length}\r\n\r\n{inside}");

    let answers = exchange(system, &format!("{first}{}", claim(&path, "connection: close\r\n", 2))).await;

    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "the connection stays open after it: {answers}");
    assert!(matches!(system.api.settled(campaign, 2).await, Outcome::Issued { .. }));
    assert_eq!(system.space.issued(campaign).await, 1);
}

async fn a_claim_that_asks_for_another_protocol_is_answered_in_this_one(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let expected = if system.is_queue() { "HTTP/1.1 202 " } else { "HTTP/1.1 201 " };

    for (account, headers) in [
        (1, "connection: upgrade\r\nupgrade: websocket\r\n"),
        (2, "upgrade: websocket\r\n"),
        (3, "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: \r\n"),
    ] {
        let answer = exchange(system, &claim(&path, headers, account)).await;

        assert!(answer.starts_with(expected), "{headers}: {answer}");
        assert!(matches!(system.api.settled(campaign, account).await, Outcome::Issued { .. }));
    }
}

async fn a_tunnel_is_refused_at_once(system: &System) {
    let host = "coupons:443";
    for target in [host, "/livez"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = exchange(system, &format!("{request}{}", claim("/v1/campaigns/1/claims", "", 1))).await;

        assert!(answer.starts_with("HTTP/1.1 40") && answer.contains("\"code\":"), "{target}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 408 "), "the service waits for more after {target}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing is done after it: {answer}");
    }
}

async fn two_media_types_are_refused(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");

    let answer = exchange(system, &claim(&path, "content-type: text/plain\r\nconnection: close\r\n", 1)).await;

    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("\"field\":\"content-type\""), "{answer}");
    assert_eq!(system.space.issued(campaign).await, 0);
}

async fn a_wait_ends_when_the_client_closes_its_connection(system: &System) {
    let campaign = system.space.campaign(1).await;
    let wait = async |time: &str| {
        let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
        let path = format!("/v1/campaigns/{campaign}/claims/1?wait={time}");
        connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: coupons\r\n\r\n").as_bytes()).await.unwrap();
        connection
    };
    let (mut stays, mut goes) = (wait("10s").await, wait("30s").await);

    // Only the sending half is closed, so that the answer can still be read.
    goes.shutdown().await.unwrap();

    let answer = tokio::select! {
        answer = read_to_end(&mut goes) => answer,
        _ = stays.read_u8() => panic!("the client that stays is answered first"),
    };
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"status\":\"pending\"}"), "{answer}");
}

async fn bad_requests_cause_no_error_in_the_log(space: &TestSpace) {
    let bad: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /v1/campaigns/1/claims HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/campaigns/1/claims HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/campaigns/1/claims HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n{",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let many_headers = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    let long_name = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{}: a\r\n\r\n", "x".repeat(65_536));
    let service = programs::skiplock_with(space, &[("log", "info")]).await;
    for sent in bad.into_iter().chain([many_headers.as_bytes(), long_name.as_bytes()]) {
        let mut connection = TcpStream::connect(service.address()).await.unwrap();
        connection.write_all(sent).await.unwrap();
        let answer = read_to_end(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{:.300}: {answer}", String::from_utf8_lossy(sent));
    }

    let log = service.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked") && log.contains("listening"), "{log}");
}
