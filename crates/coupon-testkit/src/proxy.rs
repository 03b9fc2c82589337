//! An address in front of a server that can be cut (connections break, new ones are refused at once), frozen (nothing
//! moves, nothing breaks), healed, and led to another server, as a name whose meaning changes.

use std::net::SocketAddr;

use coupon_core::settings::ServerUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    Open,
    Cut,
    Frozen,
}

/// A cut breaks every connection made before it, however soon it is healed. A connection stays with the server that it was
/// made to.
#[derive(Clone, Debug)]
struct State {
    flow: Flow,
    cuts: u64,
    /// Where new connections go.
    server: (String, u16),
    /// How many times that has changed.
    moves: u64,
    /// Connections made before this many moves are frozen.
    frozen_before: u64,
}

/// A server's address that a test can break. It ends with the test's runtime.
pub struct Proxy {
    url: String,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Starts one in front of a server.
    ///
    /// # Panics
    /// No port can be had.
    pub async fn start(server: &ServerUrl) -> Self {
        Self::before(server.reveal()).await
    }

    /// Like [`Self::start`], but in front of whatever has this address.
    ///
    /// # Panics
    /// No port can be had.
    pub async fn before(url: &str) -> Self {
        let mut url = Url::parse(url).expect("a server's address");
        let target = target(&url);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        url.set_ip_host(address.ip()).expect("a host");
        url.set_port(Some(address.port())).expect("a port");
        let open = State { flow: Flow::Open, cuts: 0, server: target, moves: 0, frozen_before: 0 };
        let (state, changes) = watch::channel(open);
        tokio::spawn(accept(listener, changes));
        Self { url: url.to_string(), state }
    }

    /// The server's address through the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Breaks all connections, and new ones as soon as they are made.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Cut;
            state.cuts += 1;
        });
    }

    /// Lets no byte pass any more, without breaking anything.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.flow = Flow::Frozen);
    }

    /// Leads new connections to another server. Those made before stay up.
    pub fn lead_to(&self, server: &ServerUrl) {
        self.state.send_modify(|state| {
            state.server = target(&Url::parse(server.reveal()).expect("a server's address"));
            state.moves += 1;
        });
    }

    /// Lets no byte pass on connections made before the last move.
    pub fn freeze_those_before(&self) {
        self.state.send_modify(|state| state.frozen_before = state.moves);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.flow = Flow::Open);
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

/// Moves bytes one way until an end closes or the connection, made in such a state, is cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, made: State, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let moves = {
            let now = state.borrow_and_update();
            if now.cuts != made.cuts {
                return;
            }
            now.flow == Flow::Open && made.moves >= now.frozen_before
        };
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if moves => {
                let Ok(count @ 1..) = read else { return };
                let Some(bytes) = buffer.get(..count) else { return };
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
