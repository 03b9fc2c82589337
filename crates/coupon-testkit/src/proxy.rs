//! An address in front of a server that can be cut (connections break, new ones are refused at once), frozen (nothing
//! moves, nothing breaks) and healed.

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

/// A cut breaks every connection made before it, however soon it is healed.
#[derive(Clone, Copy, Debug)]
struct State {
    flow: Flow,
    cuts: u64,
}

/// A server's address that a test can break. It ends with the test's runtime.
pub struct Proxy {
    url: String,
    state: watch::Sender<State>,
}

impl Proxy {
    /// In front of a server.
    ///
    /// # Panics
    /// No port can be had.
    pub async fn start(server: &ServerUrl) -> Self {
        let mut url = Url::parse(server.reveal()).expect("a server's address");
        let target = (url.host_str().expect("a host").to_owned(), url.port().expect("a port"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        url.set_ip_host(address.ip()).expect("a host");
        url.set_port(Some(address.port())).expect("a port");
        let (state, told) = watch::channel(State { flow: Flow::Open, cuts: 0 });
        tokio::spawn(accept(listener, target, told));
        Self { url: url.to_string(), state }
    }

    /// The server's address through the proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Breaks all connections, and new ones as soon as they are made.
    pub fn cut(&self) {
        self.state.send_modify(|state| *state = State { flow: Flow::Cut, cuts: state.cuts + 1 });
    }

    /// Lets no byte pass any more, without breaking anything.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.flow = Flow::Frozen);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.flow = Flow::Open);
    }
}

async fn accept(listener: TcpListener, target: (String, u16), state: watch::Receiver<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let State { flow, cuts } = *state.borrow();
        if flow != Flow::Cut {
            tokio::spawn(forward(client, target.clone(), state.clone(), cuts));
        }
    }
}

async fn forward(client: TcpStream, target: (String, u16), state: watch::Receiver<State>, cuts: u64) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(pump(from_client, to_server, state.clone(), cuts));
    tokio::spawn(pump(from_server, to_client, state, cuts));
}

/// Moves bytes one way until an end closes or the connection, made after so many cuts, is cut.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>, cuts: u64) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let now = *state.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if now.flow == Flow::Open => {
                let Ok(count @ 1..) = read else { return };
                let Some(bytes) = buffer.get(..count) else { return };
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
