//! A connection with the deadlines that actix lacks: actix times the first head of a connection only.
//!
//! Invariant: no client holds a connection by doing nothing. The first byte of a request is followed by the rest of its
//! head in time, its body arrives in time (`receive.rs`), and an answer that is not taken ends the connection. A client
//! who has gone is waited for no longer.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::HttpRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// A client has this long to send the head of a request, and as long again for its body.
pub(super) const RECEIVE_DEADLINE: Duration = Duration::from_secs(5);

/// A connection whose last answer has been sent has this long for what the client still sends.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A client that takes nothing of an answer for so long is gone.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What a connection's requests know of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// How many requests have come, the one that is served included.
    requests: Cell<u64>,
    serving: Cell<bool>,
    /// How all that has come ends, and how it ended if nothing has come after the last request.
    came: Cell<Ending>,
    request: Cell<Ending>,
    ended: Cell<bool>,
    /// All that was answered before the connection ended has been handed to the system.
    answered: CancellationToken,
    /// The client sends nothing more: it has closed the connection, or its half of it.
    gone: CancellationToken,
}

/// Bytes of a header's name at most: the type that holds one takes no more, and actix panics at one that it does not take.
const NAME_MAX: usize = 65_535;

/// Ends whatever is read as a name: no name has it, so the request is refused as malformed.
const NO_NAME: u8 = 0;

/// The last two bytes of something, carriage returns left out: enough to see whether more has come after it.
type Ending = [u8; 2];

/// How every head ends.
const HEAD: Ending = *b"\n\n";

fn ending(before: Ending, bytes: &[u8]) -> Ending {
    let mut from_end = bytes.iter().rev().copied().filter(|byte| *byte != b'\r');
    match (from_end.next(), from_end.next()) {
        (Some(last), Some(second_last)) => [second_last, last],
        (Some(last), None) => [before[1], last],
        (None, _) => before,
    }
}

/// Waits until the client has closed the connection, or its half of it: one that still reads can be answered, but
/// will not wait.
pub(crate) async fn client_gone(request: &HttpRequest) {
    match request.conn_data::<Rc<State>>() {
        Some(connection) => connection.gone.cancelled().await,
        None => std::future::pending().await,
    }
}

impl State {
    /// Whether an answer has been given that ends the connection, so that what comes after must not be done.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Waits until the answer that ended the connection has been sent; none that comes after it is.
    pub(super) async fn answered(&self) {
        self.answered.cancelled().await;
    }

    /// The request that is served has this for the end of its body; in chunks, that ends as a head does.
    pub(super) fn ends_with(&self, body: &[u8]) {
        self.request.set(ending(HEAD, body));
    }

    /// Whether a part of a next request has come.
    fn has_more(&self) -> bool {
        self.requests.get() > 0 && self.came.get() != self.request.get()
    }

    /// A request has been received up to its body; it is served until this is dropped.
    pub(super) fn serve(self: &Rc<Self>) -> Serving {
        self.requests.set(self.requests.get() + 1);
        self.request.set(HEAD);
        self.serving.set(true);
        Serving(Rc::clone(self))
    }
}

/// A request that is served.
pub(super) struct Serving(Rc<State>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(false);
    }
}

/// A client's TCP connection.
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) state: Rc<State>,
    /// After how many requests a head has begun to arrive; it has until `deadline`.
    receiving: Option<u64>,
    /// Whether the last answer has been sent; what the client still sends is taken until `deadline`.
    closing: bool,
    deadline: Pin<Box<Sleep>>,
    /// While an answer is not taken.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes of the line that arrives, unless a colon has come in it.
    name: Option<usize>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        let deadline = Box::pin(sleep(RECEIVE_DEADLINE));
        Self { stream, state: Rc::default(), receiving: None, closing: false, deadline, stalled: None, name: Some(0) }
    }

    /// Makes a name that is too long one that is refused.
    fn refuse_long_names(&mut self, new: &mut [u8]) {
        for byte in new {
            match (*byte, &mut self.name) {
                (b'\n', name) => *name = Some(0),
                (b':', name) => *name = None,
                (_, Some(NAME_MAX)) => *byte = NO_NAME,
                (_, Some(length)) => *length += 1,
                (_, None) => {}
            }
        }
    }

    /// Gives the head that has begun to arrive its time, once.
    fn time_head(&mut self, context: &mut Context<'_>) {
        let done = Some(self.state.requests.get());
        if self.receiving != done {
            self.receiving = done;
            self.deadline.as_mut().reset(Instant::now() + RECEIVE_DEADLINE);
            let _ = self.deadline.as_mut().poll(context);
        }
    }

    fn poll_sent<T>(&mut self, sent: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(ANSWER_DEADLINE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing && this.stalled.is_none() && this.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let (before, has_room) = (buffer.filled().len(), buffer.remaining() > 0);
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let new = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        this.refuse_long_names(new);
        if has_room && new.is_empty() && read.is_ready() {
            this.state.gone.cancel();
        }
        this.state.came.set(ending(this.state.came.get(), new));
        if this.state.serving.get() || this.closing {
            return read;
        }
        if !new.is_empty() || this.state.has_more() {
            this.time_head(context);
        }
        if read.is_pending() && this.receiving == Some(this.state.requests.get()) {
            ready!(this.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.state.answered.is_cancelled() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let sent = Pin::new(&mut this.stream).poll_write(context, bytes);
        if sent.is_ready() && this.state.is_ended() {
            // actix would wait for the rest of a body in chunks for ever.
            this.closing = true;
            this.deadline.as_mut().reset(Instant::now() + CLOSE_DEADLINE);
            let _ = this.deadline.as_mut().poll(context);
        }
        this.poll_sent(sent, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.serving.get() && this.state.is_ended() {
            // Of a request that came after the end.
            this.state.answered.cancel();
        } else if !this.state.serving.get() && !this.closing && this.state.has_more() {
            // actix reads again only when something wakes it.
            this.time_head(context);
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
