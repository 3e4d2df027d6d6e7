//! An upstream connection's bytes as h2 wants to read and write them: as `shard/http2/pipe.rs` for clients, without the
//! count of frames, as h2's own bounds are enough for a backend that somebody has chosen.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::io::Io;

/// The connection's end of the pipe, and h2's: both are used by the connection's task alone.
#[derive(Clone)]
pub(super) struct Pipe(Rc<RefCell<State>>);

struct State {
    io: Io,
    /// Received, and not yet taken by h2.
    input: Option<Chunk>,
    /// Bytes that h2 may still read before other tasks have their turn.
    budget: usize,
    /// When the backend last said something.
    heard: Instant,
    /// Written by h2, and not yet queued.
    out: Option<Buffer>,
    /// Bytes that may be queued; h2 waits beyond them.
    bound: usize,
    /// What is queued will be sent at the end of the turn.
    scheduled: bool,
    /// A send is under way.
    sending: bool,
    error: Option<io::ErrorKind>,
}

impl Pipe {
    /// Around a connection of which nothing has been read.
    pub(super) fn new(io: Io, bound: usize) -> Self {
        Pipe(Rc::new(RefCell::new(State {
            io,
            input: None,
            budget: 0,
            heard: rt::now(),
            out: None,
            bound,
            scheduled: false,
            sending: false,
            error: None,
        })))
    }

    /// Begins a poll of the connection: takes up the send that is under way, and lets h2 read again.
    ///
    /// # Errors
    /// As the socket reports them, for what was sent at the end of a turn too.
    pub(super) fn resume(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.budget = READ_BUDGET;
        if state.sending {
            let _ = state.poll_flush(cx);
        }
        match state.error {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    /// Ends a poll of the connection: what h2 has written leaves at the end of the turn, after all streams that run in
    /// it; and where it has read its share, it goes on in the next.
    pub(super) fn settle(&self, cx: &Context<'_>) {
        let state = &mut *self.0.borrow_mut();
        if state.budget == 0 {
            let waker = cx.waker().clone();
            rt::turn::defer(move || waker.wake());
        }
        if state.scheduled || state.sending || (state.out.is_none() && state.io.queued() == 0) {
            return;
        }
        state.scheduled = true;
        let (pipe, waker) = (Rc::downgrade(&self.0), cx.waker().clone());
        rt::turn::defer(move || {
            if let Some(pipe) = pipe.upgrade() {
                pipe.borrow_mut().send(&waker);
            }
        });
    }

    /// When the backend last said something.
    pub(super) fn heard(&self) -> Instant {
        self.0.borrow().heard
    }
}

impl State {
    /// Sends what is queued, at the end of a turn.
    fn send(&mut self, waker: &Waker) {
        self.scheduled = false;
        if self.poll_flush(&mut Context::from_waker(waker)).is_ready() && self.error.is_some() {
            waker.wake_by_ref();
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.commit();
        let sent = self.io.poll_flush(cx);
        self.sending = sent.is_pending();
        if let Poll::Ready(Err(error)) = &sent {
            self.error = Some(error.kind());
        }
        sent
    }

    fn commit(&mut self) {
        if let Some(out) = self.out.take() {
            self.io.queue(out.freeze());
        }
    }

    /// Takes bytes in, a block at a time.
    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let out = self.out.get_or_insert_with(|| Buffer::with_capacity(BLOCK));
            let taken = out.remaining_capacity().min(bytes.len());
            out.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if out.remaining_capacity() == 0 {
                self.commit();
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        if state.budget == 0 {
            return Poll::Pending;
        }
        let mut chunk = match state.input.take() {
            Some(chunk) => chunk,
            None => match ready!(state.io.poll_read(cx))? {
                Some(chunk) => chunk,
                None => return Poll::Ready(Ok(())),
            },
        };
        let piece = chunk.split_to(chunk.len().min(buf.remaining()));
        if !chunk.is_empty() {
            state.input = Some(chunk);
        }
        state.heard = rt::now();
        state.budget = state.budget.saturating_sub(piece.len());
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        if let Some(kind) = state.error {
            return Poll::Ready(Err(kind.into()));
        }
        let queued = state.io.queued() + state.out.as_ref().map_or(0, |out| out.len());
        if queued >= state.bound {
            ready!(state.poll_flush(cx))?;
        }
        let count = bytes.len().min(BLOCK);
        state.put(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    /// Nothing to do: the end of the turn sends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.borrow().error {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends everything, and ends our direction.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        ready!(state.poll_flush(cx))?;
        state.io.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

/// Bytes that one poll of a connection reads at most, so that a backend that sends fast does not hold up the others.
const READ_BUDGET: usize = 256 * 1024;

/// Bytes of a block that h2's writes are collected in.
const BLOCK: usize = 15 * 1024;
