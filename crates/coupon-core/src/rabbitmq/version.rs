//! The broker's version, which it reports only in its greeting, before anybody logs in. The driver does not expose that.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;
use crate::error::Result;
use crate::settings::AmqpSettings;

/// Bytes of a greeting that are read at most; one has about 500.
const GREETING_MAX: u64 = 4096;

/// The version of the broker, or `None` if it does not report one.
///
/// # Errors
/// It cannot be reached, or does not answer within the deadline.
pub async fn version(settings: &AmqpSettings) -> Result<Option<String>> {
    within(settings.amqp_deadline, "RabbitMQ's greeting", async {
        let greeting = greeting(settings).await.map_err(lapin::Error::from)?;
        Ok(version_in(&greeting))
    })
    .await
}

/// Reads the frame that answers the protocol header.
async fn greeting(settings: &AmqpSettings) -> io::Result<Vec<u8>> {
    let over_tls = settings.amqp_url.asks_for_tls();
    let (host, port) = settings.amqp_url.host_and_port(if over_tls { 5671 } else { 5672 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if over_tls {
        greeting_over(settings.tls.0.connect(&host, stream).await?).await
    } else {
        greeting_over(stream).await
    }
}

async fn greeting_over(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [_, _, _, length @ ..] = head;
    let mut frame = Vec::new();
    stream.take(u64::from(u32::from_be_bytes(length)).min(GREETING_MAX)).read_to_end(&mut frame).await?;
    Ok(frame)
}

/// The version in the server's properties.
fn version_in(greeting: &[u8]) -> Option<String> {
    // The field's name, preceded by its length and followed by the type of its value.
    const FIELD: &[u8] = b"\x07versionS";

    let at = greeting.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let length = u32::from_be_bytes(greeting.get(at..at + 4)?.try_into().ok()?);
    let text = greeting.get(at + 4..)?.get(..usize::try_from(length).ok()?)?;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_the_greeting() {
        let greeting = |version: &[u8]| {
            let length = u32::try_from(version.len()).unwrap().to_be_bytes();
            [b"\x00\x0a\x00\x0a\x07productS\x00\x00\x00\x01R\x07versionS".as_slice(), &length, version, b"\x08platform"]
                .concat()
        };

        assert_eq!(version_in(&greeting(b"3.10.8")).as_deref(), Some("3.10.8"));
        assert_eq!(version_in(&greeting(b"4.1.0")).as_deref(), Some("4.1.0"));
        assert_eq!(version_in(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(version_in(b"\x07versionS\x00\x00"), None, "cut off");
    }
}
