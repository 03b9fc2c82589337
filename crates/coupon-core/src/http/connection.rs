//! A client's connection as actix sees it: with the deadlines that actix lacks, and one request at a time.
//!
//! Invariant: no client holds a connection by doing nothing. After the first byte of a request, the rest of its head
//! must arrive in time, and so must its body (`receive.rs`); an answer that is not taken ends the connection. Nothing
//! waits for a client that has disconnected.
//!
//! Invariant: actix gets a request only when the one before it is answered, and none after the last answer. Otherwise
//! it would decode ahead, and encode an answer by the method, the version and the `connection` of a later request.

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

use super::KEEP_ALIVE;
use super::limits::{BODY_MAX, RECEIVE_DEADLINE};
use super::lines::Lines;
use super::refusal;

/// How long a connection whose last answer has been sent still reads what the client sends.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A client that takes nothing of an answer for this long counts as gone.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes per read that is not made for actix: a claim, or several.
const READ_SIZE: usize = 1024;

/// Bytes held until a request is answered; beyond that, no more are read.
const HELD_MAX: usize = 8 * 1024;

/// The most bytes of a chunked body, framing included: enough for the largest body with one byte in each chunk.
const CHUNKS_MAX: usize = 8 * BODY_MAX;

/// What actix may read next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Part {
    /// The head of a request.
    #[default]
    Head,
    /// This many bytes of a body.
    Body(u64),
    /// A chunked body, which says itself where it ends.
    Chunks,
    /// Nothing until the request is answered.
    Answer,
}

/// What has arrived of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrived {
    Nothing,
    /// Lines that mean nothing, but that actix takes for a sign of life.
    BlankLines,
    /// Its beginning.
    Head,
}

/// The state that a connection shares with its requests.
#[derive(Debug, Default)]
pub(crate) struct State {
    part: Cell<Part>,
    /// Wakes the connection's task when actix may read more of the held bytes.
    held: RefCell<Option<Waker>>,
    /// Whether the last head handed on was that of a request: then what is written is its answer, not a refusal by
    /// actix.
    served: Cell<bool>,
    /// Whether the current answer ends the connection.
    ended: Cell<bool>,
    /// Cancelled when the service is asked to stop: each answer is then the last of its connection.
    stopping: CancellationToken,
    /// Cancelled when nobody waits any longer: the client has closed the connection, or its half of it, or the service
    /// ends.
    over: CancellationToken,
}

/// Waits until an answer must not be delayed any longer: the client has closed the connection, or its half of it, in
/// which case it can still be answered but will not wait; or the service ends.
pub(crate) async fn wait_over(request: &HttpRequest) {
    match request.conn_data::<Rc<State>>() {
        Some(connection) => connection.over.cancelled().await,
        None => std::future::pending().await,
    }
}

impl State {
    /// Records that a head has been received. The request is being served until the returned guard is dropped.
    pub(super) fn serve(self: &Rc<Self>) -> Serving {
        self.served.set(true);
        Serving(Rc::clone(self))
    }

    /// Begins to receive a body of this many bytes, or a chunked one.
    pub(super) fn receive(&self, length: Option<u64>) {
        self.go_on(length.map_or(Part::Chunks, Part::Body));
    }

    /// Records that the body has ended.
    pub(super) fn received(&self) {
        self.part.set(Part::Answer);
    }

    /// Whether the service was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Makes the current answer the last: what still arrives is discarded.
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

/// A request that is being served.
pub(super) struct Serving(Rc<State>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.go_on(if self.0.ended.get() { Part::Answer } else { Part::Head });
    }
}

/// A client's connection.
pub(super) struct Connection {
    /// TLS is boxed, because it takes a kilobyte that a plain connection does not need.
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    pub(super) state: Rc<State>,
    /// What has arrived after the request that is being served.
    held: Vec<u8>,
    lines: Lines,
    /// Whether actix processes what it has of a chunked body before it reads on: a blank line, with which it may have ended,
    /// or more than any body may have.
    paused: bool,
    /// Bytes received so far of a chunked body.
    chunks: usize,
    /// What has arrived of the next head; the rest has until `deadline`.
    arrived: Arrived,
    /// Whether the last answer has been sent; what the client still sends is taken until `deadline`.
    closing: bool,
    deadline: Pin<Box<Sleep>>,
    /// Runs while the client takes nothing of an answer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Accepts a client, over TLS if there is an acceptor. From `stopping` on, each answer is the last of its
    /// connection; from `ending` on, requests are answered without waiting.
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
            arrived: Arrived::Nothing,
            closing: false,
            deadline: Box::pin(sleep(RECEIVE_DEADLINE)),
            stalled: None,
        })
    }

    fn set_deadline(&mut self, after: Duration, context: &mut Context<'_>) {
        self.deadline.as_mut().reset(Instant::now() + after);
        let _ = self.deadline.as_mut().poll(context);
    }

    /// Returns how many of these bytes actix may read.
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
        // A body that is too long is answered before the connection ends.
        self.paused |= self.chunks > CHUNKS_MAX;
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

    /// Reads what arrives after the request that is being served. actix gets it later, but learns at once that a client
    /// has disconnected.
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

    /// Discards what the client still sends after the last answer, so that the answer is not lost with the connection.
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

    /// Sends a refusal in place of actix's. The send buffer has room for it, unless the client takes nothing.
    fn poll_refuse(&mut self, context: &mut Context<'_>, refusal: &str) -> Poll<io::Result<()>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, refusal.as_bytes()))?;
        if sent < refusal.len() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.close(context);
        Poll::Ready(Ok(()))
    }

    /// Ends the connection once the client has closed it, or after a second: if it were dropped while the client still
    /// sends, the client would be reset and might lose the answer.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if !self.closing {
            self.close(context);
        }
        self.poll_closed(context)
    }

    fn close(&mut self, context: &mut Context<'_>) {
        self.closing = true;
        self.set_deadline(CLOSE_DEADLINE, context);
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
            // actix processes what it has, and then reads again.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.state.part.get() == Part::Answer {
            return this.poll_held(context);
        }
        if this.chunks > CHUNKS_MAX {
            // These are trailers, which actix would read forever.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let read = this.poll_part(context, buffer);
        let before = this.arrived;
        this.arrived = match this.state.part.get() {
            Part::Head if this.lines.has_begun() => Arrived::Head,
            Part::Head if read.is_ready() => Arrived::BlankLines,
            Part::Head => before,
            _ => Arrived::Nothing,
        };
        match this.arrived {
            arrived if arrived == before => {}
            Arrived::Head => this.set_deadline(RECEIVE_DEADLINE, context),
            Arrived::BlankLines => this.set_deadline(KEEP_ALIVE, context),
            Arrived::Nothing => {}
        }
        if read.is_pending() && this.arrived != Arrived::Nothing {
            ready!(this.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_refusal = !this.state.served.get();
        if is_refusal
            && !this.closing
            && let Some(refusal) = refusal::with_problem(bytes, this.lines.first())
        {
            let sent = this.poll_refuse(context, &refusal);
            ready!(this.poll_sent(sent, context))?;
        }
        if is_refusal && this.closing {
            // actix drops the connection as soon as this is written.
            return this.poll_end(context).map_ok(|()| bytes.len());
        }
        let sent = Pin::new(&mut this.stream).poll_write(context, bytes);
        if sent.is_ready() && this.state.ended.get() {
            // actix would wait forever for the rest of a chunked body.
            this.close(context);
        }
        this.poll_sent(sent, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS buffers an answer before it sends it.
        let sent = Pin::new(&mut this.stream).poll_flush(context);
        this.poll_sent(sent, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(context)
    }
}
