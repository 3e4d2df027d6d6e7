//! A connection's bytes as h2 wants to read and write them. Reading copies once, into h2's buffer, and counts the
//! frames that pass. Writing copies once, into a pool buffer, which leaves at the end of the turn with whatever else the
//! connection's streams had to say in it (decision D5).

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tidegate_rt as rt;
use tidegate_rt::{Buffer, Chunk, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Allowances, Meter, Refused};
use crate::http::frames::Frames;
use crate::net::io::Io;
use crate::shard::Shard;
use crate::shard::client::Stall;

/// The connection's end of the pipe, and h2's: both are used by the connection's task alone.
#[derive(Clone)]
pub(super) struct Pipe(Rc<RefCell<State>>);

struct State {
    io: Io,
    /// Received, and not yet taken by h2.
    input: Option<Chunk>,
    /// The client has ended its direction.
    finished: bool,
    /// Bytes that h2 may still read before other tasks have their turn.
    budget: usize,
    frames: Frames,
    /// Since when a frame has begun and not ended.
    partial: Option<Instant>,
    meter: Meter,
    /// What h2 has written.
    written: Frames,
    /// Why nothing is read any more.
    refused: Option<Refused>,
    /// Written by h2, and not yet queued.
    out: Option<Buffer>,
    /// Bytes that may be queued; h2 waits beyond them.
    bound: usize,
    stall: Stall,
    /// What is queued will be sent at the end of the turn.
    scheduled: bool,
    /// A send is under way.
    sending: bool,
    error: Option<io::ErrorKind>,
}

impl Pipe {
    /// Around a connection of which nothing has been read.
    pub(super) fn new(io: Io, allowances: Allowances, bound: usize) -> Self {
        Pipe(Rc::new(RefCell::new(State {
            io,
            input: None,
            finished: false,
            budget: 0,
            frames: Frames::new(),
            partial: None,
            meter: Meter::new(allowances, rt::now()),
            written: Frames::of_server(),
            refused: None,
            out: None,
            bound,
            stall: Stall::default(),
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
        if state.budget == 0 && state.refused.is_none() {
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

    /// What the client has sent that ends the connection. Nothing more is read from it.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.0.borrow().refused
    }

    /// Since when the client has been in the middle of a head, or its SETTINGS have been missing.
    pub(super) fn head_since(&self) -> Option<Instant> {
        let state = self.0.borrow();
        state.meter.unfinished().or(state.partial)
    }

    /// Whether the client has taken nothing for too long. Moves the timer closer where that comes first.
    pub(super) fn is_stalled(&self, timer: &mut rt::Timer, shard: &Shard) -> bool {
        self.0.borrow().stall.is_over(timer, shard)
    }

    /// The connection below, and whether the client has ended its direction; `None` while h2 has its end.
    pub(super) fn into_io(self) -> Option<(Io, bool)> {
        let mut state = Rc::try_unwrap(self.0).ok()?.into_inner();
        state.commit();
        Some((state.io, state.finished))
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
        self.stall.note(&sent, || self.io.queued());
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

    fn queued(&self) -> usize {
        self.io.queued() + self.out.as_ref().map_or(0, |out| out.len())
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
        if state.refused.is_some() || state.budget == 0 {
            return Poll::Pending;
        }
        let mut chunk = match state.input.take() {
            Some(chunk) => chunk,
            None => match ready!(state.io.poll_read(cx))? {
                Some(chunk) => chunk,
                None => {
                    state.finished = true;
                    return Poll::Ready(Ok(()));
                }
            },
        };
        let piece = chunk.split_to(chunk.len().min(buf.remaining()));
        if !chunk.is_empty() {
            state.input = Some(chunk);
        }
        let (now, meter, mut begun) = (rt::now(), &mut state.meter, false);
        let counted = state.frames.advance(&piece, |head| {
            begun = true;
            meter.received(&head, now)
        });
        if let Err((refused, before)) = counted {
            // What came before it counts: the client learns which of its streams did.
            state.refused = Some(refused);
            buf.put_slice(&piece[..before]);
            return if before > 0 {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        state.partial = match state.partial {
            _ if !state.frames.is_within_frame() => None,
            Some(since) if !begun => Some(since),
            _ => Some(now),
        };
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
        if state.queued() >= state.bound {
            ready!(state.poll_flush(cx))?;
        }
        let count = bytes.len().min(BLOCK);
        let (written, meter) = (&mut state.written, &mut state.meter);
        let Ok(()) = written.advance(&bytes[..count], |head| {
            meter.sent(&head);
            Ok::<_, Infallible>(())
        });
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

    /// Sends everything; the connection below is closed by its owner.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

/// Bytes that one poll of a connection reads at most, so that a client that sends fast does not hold up the others.
const READ_BUDGET: usize = 256 * 1024;

/// Bytes of a block that h2's writes are collected in.
const BLOCK: usize = 15 * 1024;
