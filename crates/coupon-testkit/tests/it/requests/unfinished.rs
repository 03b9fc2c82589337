//! Requests that do not end, or do not begin. Goal: no client keeps a connection by doing nothing. Method: sockets to
//! which the tests write a part of a request.

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{claim, exchange, expect_alive, read_all, read_to_end};
use crate::system::System;

both_ways![
    a_body_that_does_not_arrive_ends_its_connection,
    a_head_that_does_not_arrive_ends_its_connection,
    blank_lines_before_a_request_mean_nothing,
    endless_trailers_end_the_connection,
];

async fn a_body_that_does_not_arrive_ends_its_connection(system: &System) {
    let campaign = system.space.campaign(1).await;
    let path = format!("/v1/campaigns/{campaign}/claims");

    let bodies = [(path.as_str(), "content-length: 20"), ("/nowhere", "transfer-encoding: chunked")];
    let exchanges = bodies.map(async |(path, header)| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: coupons\r\ncontent-type: application/json\r\n{header}");
        exchange(system, &format!("{head}\r\n\r\n1")).await
    });
    for answer in join_all(exchanges).await {
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        for part in ["\r\nconnection: close\r\n", "application/problem+json", "\"code\":\"request_timeout\""] {
            assert!(answer.contains(part), "{part} is missing: {answer}");
        }
    }
    assert_eq!(system.space.issued(campaign).await, 0);
}

async fn a_head_that_does_not_arrive_ends_its_connection(system: &System) {
    let mut idle = TcpStream::connect(system.service.address()).await.unwrap();
    expect_alive(&mut idle).await;
    let mut claimed = TcpStream::connect(system.service.address()).await.unwrap();
    claimed.write_all(claim("/nowhere", "", 1).as_bytes()).await.unwrap();
    assert!(claimed.read(&mut [0; 1024]).await.unwrap() > 0);
    let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
    expect_alive(&mut connection).await;

    // The next request stops after one byte.
    connection.write_all(b"G").await.unwrap();
    // Others stop in the middle, sent right after requests that are answered.
    let (alive, wrong) = ("GET /livez HTTP/1.1\r\nhost: coupons\r\n", claim("/nowhere", "", 1));
    let pipelined = [format!("{alive}\r\n{alive}"), format!("{wrong}{alive}"), format!("{alive}\r\n{wrong}G")];
    let (next, first, pipelined) = tokio::join!(
        read_to_end(&mut connection),
        exchange(system, "G"),
        join_all(pipelined.iter().map(|sent| exchange(system, sent)))
    );

    expect_alive(&mut idle).await;
    expect_alive(&mut claimed).await;
    assert_eq!(next, "");
    let answers: Vec<usize> = pipelined.iter().map(|answers| answers.matches("HTTP/1.1 ").count()).collect();
    assert_eq!(answers, [1, 1, 2], "{pipelined:?}");
    assert!(first.starts_with("HTTP/1.1 408 ") && first.contains("\"code\":\"request_timeout\""), "{first}");
}

async fn blank_lines_before_a_request_mean_nothing(system: &System) {
    let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let mut other = TcpStream::connect(system.service.address()).await.unwrap();
    for _ in 0..2 {
        for part in ["\r", "\n", "\n\r\n", "\r", "\n"] {
            connection.write_all(part.as_bytes()).await.unwrap();
            // What came before has arrived by now.
            expect_alive(&mut other).await;
        }
        expect_alive(&mut connection).await;
    }
}

async fn endless_trailers_end_the_connection(system: &System) {
    let campaign = system.space.campaign(5).await;
    let path = format!("/v1/campaigns/{campaign}/claims");
    let head = "host: coupons\r\ncontent-type: application/json\r\ntransfer-encoding: chunked";
    let begun = format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n11\r\n{{\"account_id\": 1}}\r\n0\r\n");
    let mut connection = TcpStream::connect(system.service.address()).await.unwrap();
    connection.write_all(begun.as_bytes()).await.unwrap();
    let trailer = format!("x: {}\r\n", "y".repeat(1_000));

    let mut sent = 0;
    while connection.write_all(trailer.as_bytes()).await.is_ok() {
        sent += trailer.len();
        assert!(sent < 20_000_000, "the service never stops reading");
    }

    let (answer, _) = read_all(&mut connection).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_eq!(system.space.issued(campaign).await, 0);
}
