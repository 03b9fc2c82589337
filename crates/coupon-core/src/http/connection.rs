//! A connection as actix sees it: with the deadlines that actix lacks, and one request at a time.
//!
//! Invariant: no client holds a connection by doing nothing. The first byte of a request is followed by the rest of its
//! head in time, its body arrives in time (`receive.rs`), and an answer that is not taken ends the connection. A client
//! who has gone is waited for no longer.
//!
//! Invariant: actix gets a request when the one before it is answered, and none after the last answer. It would decode
//! ahead otherwise, and encode an answer by the method, the version and the `connection` of a later request.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_web::HttpRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::lines::Lines;
use super::receive::BODY_MAX;
use super::refusal;

/// A client has this long to send the head of a request, and as long again for its body; before that, for the beginning of
/// TLS.
pub(super) const RECEIVE_DEADLINE: Duration = Duration::from_secs(5);

/// A connection whose last answer has been sent has this long for what the client still sends.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A client that takes nothing of an answer for so long is gone.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes read at once beside those that actix reads: a claim, or several.
const READ_SIZE: usize = 1024;

/// Bytes held until a request is answered, after which no more are read.
const HELD_MAX: usize = 8 * 1024;

/// Bytes of a body in chunks at most, with all that stands around them: a body of the greatest size, a byte in each chunk.
const CHUNKS_MAX: usize = 8 * BODY_MAX;

/// What actix may have next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Part {
    /// The head of a request.
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// A body that says itself where it ends.
    Chunks,
    /// Nothing until the request is answered.
    Answer,
}

/// What a connection's requests know of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    part: Cell<Part>,
    /// Wakes the connection's task when actix may have more of what is held.
    held: RefCell<Option<Waker>>,
    /// The head that was handed on last is a request's: what is written is its answer, not a refusal of actix's own.
    served: Cell<bool>,
    /// The answer that is given ends the connection.
    ended: Cell<bool>,
    /// The service was asked to stop: each answer is the last of its connection.
    stopping: CancellationToken,
    /// Nobody waits any longer: the client has closed the connection, or its half of it, or the service ends.
    over: CancellationToken,
}

/// Waits until an answer must not wait any longer: the client has closed the connection, or its half of it, in which case
/// one that still reads can be answered but will not wait; or the service ends.
pub(crate) async fn wait_over(request: &HttpRequest) {
    match request.conn_data::<Rc<State>>() {
        Some(connection) => connection.over.cancelled().await,
        None => std::future::pending().await,
    }
}

impl State {
    /// A head has been received. The request is served until this is dropped.
    pub(super) fn serve(self: &Rc<Self>) -> Serving {
        self.served.set(true);
        Serving(Rc::clone(self))
    }

    /// A body of so many bytes is received, or one in chunks.
    pub(super) fn receive(&self, length: Option<u64>) {
        self.go_on(length.map_or(Part::Chunks, Part::Body));
    }

    /// The body has ended.
    pub(super) fn received(&self) {
        self.part.set(Part::Answer);
    }

    /// Whether the service was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// The answer that is given is the last: what still comes is nobody's.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    fn go_on(&self, part: Part) {
        self.part.set(part);
        if let Some(held) = self.held.take() {
            held.wake();
        }
    }
}

/// A request that is served.
pub(super) struct Serving(Rc<State>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.go_on(if self.0.ended.get() { Part::Answer } else { Part::Head });
    }
}

/// A client's connection.
pub(super) struct Connection {
    /// TLS has a box, as it takes a kilobyte that a connection in the clear need not have.
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    pub(super) state: Rc<State>,
    /// What has come after the request that is served.
    held: Vec<u8>,
    lines: Lines,
    /// A blank line was the last that actix got of a body in chunks, which may have ended with it.
    paused: bool,
    /// Bytes of the body in chunks that is received.
    chunks: usize,
    /// A head has begun to arrive; it has until `deadline`.
    receiving: bool,
    /// Whether the last answer has been sent; what the client still sends is taken until `deadline`.
    closing: bool,
    deadline: Pin<Box<Sleep>>,
    /// While an answer is not taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Takes a client in, over TLS if there is something to do that with. The service gives connections up from `stopping` on,
    /// and answers without waiting from `ending` on.
    pub(super) async fn accept(
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        stopping: &CancellationToken,
        ending: &CancellationToken,
    ) -> io::Result<Self> {
        let stream = match tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(Box::new(Box::pin(timeout(RECEIVE_DEADLINE, tls.accept(stream))).await??)),
        };
        Ok(Self {
            stream,
            state: Rc::new(State { stopping: stopping.clone(), over: ending.child_token(), ..State::default() }),
            held: Vec::new(),
            lines: Lines::default(),
            paused: false,
            chunks: 0,
            receiving: false,
            closing: false,
            deadline: Box::pin(sleep(RECEIVE_DEADLINE)),
            stalled: None,
        })
    }

    fn set_deadline(&mut self, after: Duration, context: &mut Context<'_>) {
        self.deadline.as_mut().reset(Instant::now() + after);
        let _ = self.deadline.as_mut().poll(context);
    }

    /// How many of these bytes actix may have.
    fn hand_on(&mut self, bytes: &mut [u8]) -> usize {
        let part = self.state.part.get();
        if let Part::Body(left) = part {
            let now = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let left = left - now as u64;
            self.state.part.set(if left == 0 { Part::Answer } else { Part::Body(left) });
            return now;
        }
        if part == Part::Head && !self.lines.has_begun() && !bytes.is_empty() {
            self.state.served.set(false);
        }
        let blank = self.lines.blank(bytes);
        if blank.is_some() && part == Part::Head {
            self.state.part.set(Part::Answer);
        }
        self.paused = blank.is_some() && part == Part::Chunks;
        let now = blank.unwrap_or(bytes.len());
        self.chunks = if part == Part::Chunks { self.chunks + now } else { 0 };
        now
    }

    /// Reads from the client, or from what is held.
    fn poll_part(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            let room = buffer.remaining().min(held.len());
            let now = self.hand_on(held.split_at_mut(room).0);
            buffer.put_slice(held.split_at(now).0);
            held.drain(..now);
            self.held = held;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let (_, new) = buffer.filled_mut().split_at_mut(before);
        if new.is_empty() {
            self.state.over.cancel();
        }
        let now = self.hand_on(new);
        self.held.extend_from_slice(new.split_at(now).1);
        buffer.set_filled(before + now);
        Poll::Ready(Ok(()))
    }

    /// Reads what comes after the request that is served: actix learns of it later, but of a client who has gone at
    /// once.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < HELD_MAX {
            let mut bytes = [0; READ_SIZE];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer)?;
            if read.is_pending() {
                break;
            }
            if buffer.filled().is_empty() {
                self.state.over.cancel();
                if self.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                break;
            }
            self.held.extend_from_slice(buffer.filled());
        }
        if !self.held.is_empty() {
            self.state.held.replace(Some(context.waker().clone()));
        }
        Poll::Pending
    }

    /// Takes what the client still sends after the last answer, so that the answer is not lost with the connection.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stalled.is_none() && self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        loop {
            let mut bytes = [0; READ_SIZE];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends a refusal in place of actix's. There is room for it, unless the client takes nothing.
    fn poll_refuse(&mut self, context: &mut Context<'_>, refusal: &str) -> Poll<io::Result<()>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, refusal.as_bytes()))?;
        Poll::Ready(if sent == refusal.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) })
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
        if this.closing {
            return this.poll_closed(context);
        }
        if std::mem::take(&mut this.paused) {
            // actix looks at what it has, and asks again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.state.part.get() == Part::Answer {
            return this.poll_held(context);
        }
        if this.chunks > CHUNKS_MAX {
            // Trailers, which actix would read for ever.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let read = this.poll_part(context, buffer);
        let receiving = this.state.part.get() == Part::Head && this.lines.has_begun();
        if receiving && !this.receiving {
            this.set_deadline(RECEIVE_DEADLINE, context);
        }
        this.receiving = receiving;
        if read.is_pending() && receiving {
            ready!(this.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let refusal = if this.state.served.get() { None } else { refusal::with_problem(bytes, this.lines.first()) };
        let sent = match &refusal {
            None => Pin::new(&mut this.stream).poll_write(context, bytes),
            Some(refusal) => this.poll_refuse(context, refusal).map_ok(|()| bytes.len()),
        };
        if sent.is_ready() && this.state.ended.get() {
            // actix would wait for the rest of a body in chunks for ever.
            this.closing = true;
            this.set_deadline(CLOSE_DEADLINE, context);
        }
        this.poll_sent(sent, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS takes an answer in before it sends it.
        let sent = Pin::new(&mut this.stream).poll_flush(context);
        this.poll_sent(sent, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
