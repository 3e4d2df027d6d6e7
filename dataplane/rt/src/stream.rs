//! A connected socket with its operations and their buffers: the slot of decision D3.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use smallvec::SmallVec;
use socket2::SockRef;

use crate::buf::{Buffer, CLASS_SIZES, Chunk, LARGEST_CLASS};
use crate::op::{Op, Port};
use crate::runtime;

/// Chunks that one write takes at most.
const MAX_BATCH: usize = 64;

/// A chunk up to this long is copied together with its neighbours where that makes a write simpler.
const SMALL_CHUNK: usize = 1024;

/// Bytes that are copied together at most: what fits into a block of the second class.
const MAX_COPIED: usize = CLASS_SIZES[1] - 64;

/// Bytes that a read asks for at first: most of a block of the smallest class.
const READ_SIZE: usize = CLASS_SIZES[0] - 64;

/// A connected stream socket.
///
/// Reads and writes may be awaited, given up and awaited again at will: an operation that is under way stays so, and
/// no byte is lost or sent twice. Dropping the stream closes the connection, at once as far as the peer can tell; what
/// the kernel still holds is freed when it lets go.
///
/// A stream belongs to the [`crate::run`] that it was made in.
pub struct Stream {
    socket: Socket,
    read: Op<Incoming, (io::Result<usize>, Incoming)>,
    write: Op<Outgoing, (io::Result<usize>, Outgoing)>,
    /// What was read and handed back, last first.
    unread: SmallVec<[Chunk; 2]>,
    /// The unwritten tail of the block that was last read into.
    tail: Option<Buffer>,
    /// Bytes that a fresh block for reading holds at least.
    read_size: usize,
    /// How often the block size was quadrupled because reads filled it.
    boost: u32,
    read_end: ReadEnd,
    /// What the kernel has not been given yet.
    out: VecDeque<Chunk>,
    /// Bytes in `out` and in the write under way.
    queued: usize,
    write_error: Option<io::ErrorKind>,
    /// Memory of the last batch, for the next.
    batch: Option<Box<Batch>>,
    peer: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadEnd {
    Open,
    Eof,
    Failed(io::ErrorKind),
}

impl Stream {
    /// Takes over a connected stream socket: TCP, or a Unix socket.
    ///
    /// # Errors
    /// The driver refuses the socket.
    ///
    /// # Panics
    /// Outside of [`crate::run`].
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        let kind = runtime::driver().expect("a stream is made inside of rt::run");
        let socket = std::net::TcpStream::from(fd);
        // A ring waits by itself and answers "would block" at once on a non-blocking socket; epoll needs one.
        socket.set_nonblocking(!kind.is_uring())?;
        Ok(Stream::new(TcpStream::from_std(socket)?, None))
    }

    pub(crate) fn new(socket: TcpStream, peer: Option<SocketAddr>) -> Stream {
        let socket = Socket(Rc::new(UnsafeCell::new(socket)));
        Stream {
            read: Op::new(|port| reader(socket.clone(), port)),
            write: Op::new(|port| writer(socket.clone(), port)),
            socket,
            unread: SmallVec::new(),
            tail: None,
            read_size: READ_SIZE,
            boost: 0,
            read_end: ReadEnd::Open,
            out: VecDeque::new(),
            queued: 0,
            write_error: None,
            batch: None,
            peer,
        }
    }

    // === reading ===

    /// The next bytes; `None` when the peer has finished sending.
    ///
    /// Given up, the read stays under way and the next call takes it up: no byte is lost.
    pub async fn read(&mut self) -> io::Result<Option<Chunk>> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    /// As [`Stream::read`], for use inside of other futures. Starts a read if none is under way.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if let Some(chunk) = self.unread.pop() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        loop {
            if !self.read.is_armed() {
                match self.read_end {
                    ReadEnd::Open => {}
                    ReadEnd::Eof => return Poll::Ready(Ok(None)),
                    ReadEnd::Failed(kind) => return Poll::Ready(Err(kind.into())),
                }
                let incoming = self.incoming();
                self.read.arm(incoming);
            }
            let (result, incoming) = ready!(self.read.poll(cx));
            match result {
                Ok(0) => self.read_end = ReadEnd::Eof,
                Ok(count) => return Poll::Ready(Ok(Some(self.received(incoming.0, count)))),
                // Nothing was received: take the same block again.
                Err(error) if is_transient(&error) => self.tail = Some(incoming.0),
                Err(error) => {
                    self.read_end = ReadEnd::Failed(error.kind());
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Starts a read without waiting for it, so that bytes (or the end) arrive while the task does other things. The
    /// task is not woken for them before it polls.
    pub fn arm_read(&mut self) {
        if self.unread.is_empty() && !self.read.is_armed() && self.read_end == ReadEnd::Open {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(Some(chunk))) = self.poll_read(&mut cx) {
                self.unread.push(chunk);
            }
        }
    }

    /// Whether neither bytes nor an end nor an error wait to be read: one look, which starts nothing. With a read under
    /// way only what that has brought counts.
    pub fn is_quiet(&mut self) -> bool {
        if self.read.is_armed() {
            let mut cx = Context::from_waker(Waker::noop());
            return match self.poll_read(&mut cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(Some(chunk))) => {
                    self.unread.push(chunk);
                    false
                }
                Poll::Ready(_) => false,
            };
        }
        if !self.unread.is_empty() || self.read_end != ReadEnd::Open {
            return false;
        }
        let mut byte = [0_u8; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        matches!(
            rustix::net::recv(&*self, &mut byte, flags),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// Hands back bytes that were read too far: the next read returns them first.
    pub fn unread(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.unread.push(chunk);
        }
    }

    /// How many bytes a block for reading has room for at least (at most 64 KiB are used). Blocks grow by themselves
    /// while reads fill them and shrink back, never below this.
    pub fn set_read_size(&mut self, bytes: usize) {
        self.read_size = bytes.clamp(1, LARGEST_CLASS / 2);
        self.boost = 0;
    }

    fn incoming(&mut self) -> Incoming {
        let want = (self.read_size << (2 * self.boost)).min(LARGEST_CLASS / 2);
        if let Some(mut tail) = self.tail.take() {
            // All of it, if what was received before has been dropped meanwhile.
            tail.clear();
            if tail.remaining_capacity() >= want / 2 {
                return Incoming(tail);
            }
        }
        Incoming(Buffer::with_capacity(want))
    }

    fn received(&mut self, mut buffer: Buffer, count: usize) -> Chunk {
        if count == buffer.remaining_capacity() {
            self.boost = (self.boost + 1).min(3);
        } else if count < self.read_size {
            self.boost = self.boost.saturating_sub(1);
        }
        // SAFETY: the kernel says that it has written `count` bytes to where `Incoming` pointed it.
        unsafe { buffer.assume_written(count) };
        let chunk = buffer.split();
        self.tail = Some(buffer);
        chunk
    }

    // === writing ===

    /// Appends bytes to what the next flush sends.
    pub fn queue(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.out.push_back(chunk);
        }
    }

    /// Bytes that were queued and that the kernel has not taken yet.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Sends all that is queued: one send where it is one chunk, one vectored write where it is several.
    ///
    /// Given up, the write stays under way and the next call takes it up: no byte is lost or sent twice. After an error
    /// every further flush fails.
    pub async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`Stream::flush`], for use inside of other futures.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.write_error {
            return Poll::Ready(Err(kind.into()));
        }
        loop {
            if !self.write.is_armed() {
                let Some(outgoing) = self.outgoing() else {
                    return Poll::Ready(Ok(()));
                };
                self.write.arm(outgoing);
                runtime::count_send();
            }
            let (result, outgoing) = ready!(self.write.poll(cx));
            let error = match result {
                Ok(count) if count > 0 => {
                    self.sent(outgoing, count);
                    continue;
                }
                Ok(_) => io::ErrorKind::WriteZero.into(),
                Err(error) if is_transient(&error) => {
                    self.sent(outgoing, 0);
                    continue;
                }
                Err(error) => error,
            };
            self.write_error = Some(error.kind());
            self.out.clear();
            self.queued = 0;
            return Poll::Ready(Err(error));
        }
    }

    fn outgoing(&mut self) -> Option<Outgoing> {
        if self.out.len() > 1 {
            self.join_small();
        }
        if self.out.len() <= 1 {
            return self.out.pop_front().map(Outgoing::One);
        }
        let mut batch = self.batch.take().unwrap_or_default();
        batch
            .chunks
            .extend(self.out.drain(..self.out.len().min(MAX_BATCH)));
        batch.point();
        Some(Outgoing::Many(batch))
    }

    /// Copies the small chunks at the front together.
    fn join_small(&mut self) {
        let mut bytes = 0;
        let small = self.out.iter().take_while(|chunk| {
            bytes += chunk.len();
            chunk.len() <= SMALL_CHUNK && bytes <= MAX_COPIED
        });
        let count = small.count();
        if count < 2 {
            return;
        }
        let mut joined = Buffer::with_capacity(MAX_COPIED);
        for chunk in self.out.drain(..count) {
            joined.extend_from_slice(&chunk);
        }
        self.out.push_front(joined.freeze());
    }

    /// Notes that `count` bytes of a write have gone out; the rest is to be sent first.
    fn sent(&mut self, outgoing: Outgoing, mut count: usize) {
        self.queued -= count;
        match outgoing {
            Outgoing::One(mut chunk) => {
                chunk.advance(count);
                if !chunk.is_empty() {
                    self.out.push_front(chunk);
                }
            }
            Outgoing::Many(mut batch) => {
                let whole = batch.chunks.iter().position(|chunk| {
                    let before = count < chunk.len();
                    count -= if before { 0 } else { chunk.len() };
                    before
                });
                if let Some(whole) = whole {
                    batch.chunks[whole].advance(count);
                    for chunk in batch.chunks.drain(whole..).rev() {
                        self.out.push_front(chunk);
                    }
                }
                batch.chunks.clear();
                self.batch = Some(batch);
            }
        }
    }

    // === the connection ===

    /// Tells the peer that nothing more will be sent. What is queued should be flushed before.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    /// Ends the connection so that the peer sees a reset and not an end.
    pub fn reset(self) {
        let _ = SockRef::from(&self).set_linger(Some(Duration::ZERO));
        // Dissolves the association at once, whatever is in flight; closing alone would have to wait for that.
        let _ = rustix::net::connect_unspec(&self);
    }

    /// The peer's address. Not for Unix sockets.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.peer {
            Some(peer) => Ok(peer),
            None => inet(SockRef::from(self).peer_addr()?),
        }
    }

    /// This side's address. Not for Unix sockets.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        inet(SockRef::from(self).local_addr()?)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self.socket`, which the borrow of `self` keeps.
        unsafe { BorrowedFd::borrow_raw(self.socket.raw()) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let uring = runtime::driver().is_some_and(|kind| kind.is_uring());
        if uring && (self.read.is_armed() || self.write.is_armed()) {
            // Makes the kernel answer what is in flight; only then can the socket and the memory go.
            let _ = SockRef::from(&*self).shutdown(Shutdown::Both);
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("fd", &self.socket.raw())
            .field("reading", &self.read.is_armed())
            .field("writing", &self.write.is_armed())
            .field("queued", &self.queued)
            .finish()
    }
}

fn inet(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

// === the two engines ===

/// The runtime's socket, shared by the stream and its engines.
#[derive(Clone)]
struct Socket(Rc<UnsafeCell<TcpStream>>);

impl Socket {
    fn raw(&self) -> RawFd {
        // SAFETY: mutable references are used for one call in the engines only, which does not come back here; so none
        // is in use while this one is.
        unsafe { &*self.0.get() }.as_raw_fd()
    }

    /// The runtime's socket, to start one operation on.
    ///
    /// # Safety
    /// The reference is used for one call of `read`, `write` or `writev` and not kept. Those take `&mut self` but only
    /// copy the descriptor into an operation; the future they return owns that and the buffer and does not use the
    /// reference again, so that one for reading and one for writing may exist side by side. The runtime's own split
    /// halves rest on the same fact.
    #[allow(clippy::mut_from_ref)]
    unsafe fn starter(&self) -> &mut TcpStream {
        // SAFETY: by this function's contract no other reference is in use.
        unsafe { &mut *self.0.get() }
    }
}

async fn reader(socket: Socket, port: Port<Incoming, (io::Result<usize>, Incoming)>) -> Infallible {
    loop {
        let buffer = port.request().await;
        // SAFETY: used for the one call.
        let read = unsafe { socket.starter() }.read(buffer);
        port.finish(read.await);
    }
}

async fn writer(socket: Socket, port: Port<Outgoing, (io::Result<usize>, Outgoing)>) -> Infallible {
    loop {
        let done = match port.request().await {
            Outgoing::One(chunk) => {
                // SAFETY: used for the one call.
                let write = unsafe { socket.starter() }.write(SendChunk(chunk));
                let (result, chunk) = write.await;
                (result, Outgoing::One(chunk.0))
            }
            Outgoing::Many(batch) => {
                // SAFETY: used for the one call.
                let write = unsafe { socket.starter() }.writev(SendBatch(batch));
                let (result, batch) = write.await;
                (result, Outgoing::Many(batch.0))
            }
        };
        port.finish(done);
    }
}

/// A block's tail for the kernel to receive into.
struct Incoming(Buffer);

// SAFETY: the pointer is into a block that the buffer owns a count of; moving the buffer does not move the block.
unsafe impl IoBufMut for Incoming {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.end().as_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.remaining_capacity()
    }

    unsafe fn set_init(&mut self, _written: usize) {
        // The stream does so, with the count that the read returns.
    }
}

/// What one write sends.
enum Outgoing {
    One(Chunk),
    /// Boxed, as it is rare and would make every write's state large.
    Many(Box<Batch>),
}

struct SendChunk(Chunk);

// SAFETY: the pointer is to bytes that the chunk keeps alive and that nobody writes; moving the chunk does not move
// them.
unsafe impl IoBuf for SendChunk {
    fn read_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

/// Chunks for one vectored write, with the table that tells the kernel where they are.
#[derive(Default)]
struct Batch {
    chunks: Vec<Chunk>,
    vectors: Vec<libc::iovec>,
}

impl Batch {
    fn point(&mut self) {
        self.vectors.clear();
        self.vectors.extend(self.chunks.iter().map(|chunk| libc::iovec {
            iov_base: chunk.as_ptr().cast_mut().cast(),
            iov_len: chunk.len(),
        }));
    }
}

struct SendBatch(Box<Batch>);

// SAFETY: the table is heap memory of the vector, which stays where it is when the batch moves; it points at bytes that
// the batch's chunks keep alive.
unsafe impl IoVecBuf for SendBatch {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.0.vectors.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.0.vectors.len()
    }
}
