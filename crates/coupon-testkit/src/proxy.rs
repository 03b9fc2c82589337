//! A proxy in front of a server that can be cut (connections break, new ones break immediately), frozen (nothing moves,
//! nothing breaks), slowed, made to break every connection after some bytes, healed, and pointed at another server,
//! like a host name that changes its address.

use std::net::SocketAddr;
use std::time::Duration;

use coupon_core::settings::ServerUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// Whether bytes flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    Open,
    Cut,
    Frozen,
}

/// The state of a proxy. A cut breaks every connection made before it, however soon it is healed. A connection stays
/// with the server that it was opened to.
#[derive(Clone, Debug)]
struct State {
    flow: Flow,
    cuts: u64,
    /// The server that new connections go to.
    server: (String, u16),
    /// How many times the server has changed.
    moves: u64,
    /// Connections made before this many moves are frozen.
    frozen_before: u64,
    /// How long every piece of data is held back.
    delay: Duration,
    /// How many bytes may still pass in each direction before a connection breaks.
    bytes_left: Option<usize>,
}

/// A server's address that a test can break. The proxy ends with the test's runtime.
pub struct Proxy {
    url: String,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Starts a proxy in front of a server.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(server: &ServerUrl) -> Self {
        Self::before(server.reveal()).await
    }

    /// Like [`Self::start`], but for any address.
    ///
    /// # Panics
    /// No port is free.
    pub async fn before(url: &str) -> Self {
        let mut url = Url::parse(url).expect("a server's address");
        let target = target(&url);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        url.set_ip_host(address.ip()).expect("a host");
        url.set_port(Some(address.port())).expect("a port");
        let open = State {
            flow: Flow::Open,
            cuts: 0,
            server: target,
            moves: 0,
            frozen_before: 0,
            delay: Duration::ZERO,
            bytes_left: None,
        };
        let (state, changes) = watch::channel(open);
        tokio::spawn(accept(listener, changes));
        Self { url: url.to_string(), state }
    }

    /// The server's address through the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Breaks all connections, and new ones immediately.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Cut;
            state.cuts += 1;
        });
    }

    /// Stops all bytes, without breaking anything.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.flow = Flow::Frozen);
    }

    /// Holds back every piece of data for this long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Breaks each connection, including later ones, once this many more bytes have passed on it in one direction.
    pub fn cut_after(&self, bytes: usize) {
        self.state.send_modify(|state| state.bytes_left = Some(bytes));
    }

    /// Points new connections at another server. Existing ones stay up.
    pub fn lead_to(&self, server: &ServerUrl) {
        self.state.send_modify(|state| {
            state.server = target(&Url::parse(server.reveal()).expect("a server's address"));
            state.moves += 1;
        });
    }

    /// Stops all bytes on connections made before the last move.
    pub fn freeze_those_before(&self) {
        self.state.send_modify(|state| state.frozen_before = state.moves);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Open;
            state.delay = Duration::ZERO;
            state.bytes_left = None;
        });
    }
}

fn target(url: &Url) -> (String, u16) {
    (url.host_str().expect("a host").to_owned(), url.port().expect("a port"))
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let now = state.borrow().clone();
        if now.flow != Flow::Cut {
            tokio::spawn(forward(client, now, state.clone()));
        }
    }
}

async fn forward(client: TcpStream, made: State, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(made.server.clone()).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(pump(from_client, to_server, made.clone(), state.clone()));
    tokio::spawn(pump(from_server, to_client, made, state));
}

/// Moves bytes in one direction until either end closes or the connection is cut. `made` is the state in which it was
/// opened.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, made: State, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    loop {
        let (moves, delay, bytes_left) = {
            let now = state.borrow_and_update();
            if now.cuts != made.cuts {
                return;
            }
            (now.flow == Flow::Open && made.moves >= now.frozen_before, now.delay, now.bytes_left)
        };
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if moves => {
                let Ok(count @ 1..) = read else { return };
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                passed = if bytes_left.is_some() { passed + count } else { 0 };
                let too_many = passed.saturating_sub(bytes_left.unwrap_or(usize::MAX)).min(count);
                let Some(bytes) = buffer.get(..count - too_many) else { return };
                if to.write_all(bytes).await.is_err() || too_many > 0 {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection through a proxy to an echo server.
    async fn connected() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("tcp://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (mut from, mut to) = stream.into_split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let proxy = Proxy::before(&url).await;
        let client = TcpStream::connect(proxy.url().trim_start_matches("tcp://")).await.expect("a connection");
        (proxy, client)
    }

    async fn sent_and_back(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
        client.write_all(bytes).await.expect("bytes sent");
        let mut back = vec![0; bytes.len()];
        let mut read = 0;
        while let Some(rest @ [_, ..]) = back.get_mut(read..) {
            match client.read(rest).await {
                Ok(count @ 1..) => read += count,
                _ => break,
            }
        }
        back.truncate(read);
        back
    }

    #[tokio::test]
    async fn what_is_sent_comes_late_and_whole() {
        let (proxy, mut client) = connected().await;
        let delay = Duration::from_millis(50);
        proxy.delay(delay);
        let began = tokio::time::Instant::now();

        assert_eq!(sent_and_back(&mut client, b"claim").await, b"claim");

        assert!(began.elapsed() >= 2 * delay, "each way: {:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_connection_breaks_within_what_is_sent() {
        let (proxy, mut client) = connected().await;
        assert_eq!(sent_and_back(&mut client, b"before").await, b"before");
        proxy.cut_after(3);

        assert_eq!(sent_and_back(&mut client, b"claim").await, b"cla");
    }
}
