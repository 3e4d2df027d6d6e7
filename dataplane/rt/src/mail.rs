//! Messages from any thread to a shard (decision D6): a bounded ring, and one byte on a socket pair when the shard
//! sleeps. No waker crosses threads.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll};

use crossbeam::queue::ArrayQueue;

use crate::stream::Stream;

/// Makes a ring with room for `capacity` messages (at least one).
///
/// # Errors
/// No descriptors are left for the socket pair.
pub fn channel<T: Send>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    let (wake, sleep) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        sleeping: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    let sender = Sender {
        shared: shared.clone(),
        wake: Arc::new(wake),
    };
    Ok((
        sender,
        Receiver {
            ring: Ring(shared),
            sleep: sleep.into(),
        },
    ))
}

/// The sending end, for any thread. Clones send to the same ring.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    wake: Arc<UnixStream>,
}

/// The receiving end on its way to its shard.
pub struct Receiver<T> {
    ring: Ring<T>,
    sleep: OwnedFd,
}

/// The receiving end in its shard.
pub struct Inbox<T> {
    ring: Ring<T>,
    sleep: Stream,
}

/// The message was not taken: the ring is full, or nobody receives any more. It is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// The receiver has seen an empty ring and waits for a byte.
    sleeping: AtomicBool,
    closed: AtomicBool,
}

impl<T: Send> Sender<T> {
    /// Puts a message into the ring, and wakes the receiver if it sleeps. Never waits.
    ///
    /// # Errors
    /// [`Full`], with the message; [`Sender::is_closed`] tells whether for good.
    pub fn send(&self, message: T) -> Result<(), Full<T>> {
        if self.is_closed() {
            return Err(Full(message));
        }
        self.shared.queue.push(message).map_err(Full)?;
        // Pairs with the fence in `poll_recv`: either this sees `sleeping`, or the receiver sees the message.
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed) && self.shared.sleeping.swap(false, Ordering::Relaxed)
        {
            // It fails only when the pair is full of unread bytes, which wake as well, or when the receiver is gone.
            let _ = (&*self.wake).write(&[1]);
        }
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            shared: self.shared.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<T: Send> Receiver<T> {
    /// Opens the inbox on the shard's thread.
    ///
    /// # Panics
    /// Outside of [`crate::run`].
    pub fn attach(self) -> io::Result<Inbox<T>> {
        let sleep = Stream::from_fd(self.sleep)?;
        Ok(Inbox {
            ring: self.ring,
            sleep,
        })
    }
}

impl<T: Send> Inbox<T> {
    /// The next message; `None` when all senders are gone and the ring is empty. May be given up at will.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next message if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        self.ring.0.queue.pop()
    }

    /// As [`Inbox::recv`], for use inside of other futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(message) = self.ring.0.queue.pop() {
                return Poll::Ready(Some(message));
            }
            self.ring.0.sleeping.store(true, Ordering::Relaxed);
            // Pairs with the fence in `send`.
            fence(Ordering::SeqCst);
            if let Some(message) = self.ring.0.queue.pop() {
                // A byte may be under way all the same; it wakes once in vain.
                self.ring.0.sleeping.store(false, Ordering::Relaxed);
                return Poll::Ready(Some(message));
            }
            match self.sleep.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(_))) => {}
                // The last sender is gone. What it sent before that is in the ring.
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(self.ring.0.queue.pop()),
            }
        }
    }
}

/// The receiver's hold on the ring; whoever has it receives.
struct Ring<T>(Arc<Shared<T>>);

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
        // What nobody will receive is freed now, not when the last sender goes.
        while self.0.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("queued", &self.shared.queue.len())
            .finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("queued", &self.ring.0.queue.len())
            .finish()
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("queued", &self.ring.0.queue.len())
            .finish()
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's mail ring is full or closed")
    }
}

impl<T> std::error::Error for Full<T> {}
