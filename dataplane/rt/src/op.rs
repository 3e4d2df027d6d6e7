//! An operation in the kernel that belongs to a socket and not to the future that awaits it (decision D3).
//!
//! The runtime's own operations lose what they carry when their future is dropped. Here each kind of operation of a
//! socket has one *engine*: a boxed future, made once, that takes a request, performs it and leaves the result, for
//! ever. Whoever awaits an operation only polls the engine; when he goes away the engine stays as it is, and the next
//! to come polls on. An operation costs no allocation.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::runtime;

/// One kind of operation on one socket: requests `Q`, results `R`, at most one in flight.
pub(crate) struct Op<Q: 'static, R: 'static> {
    port: Port<Q, R>,
    engine: Option<Engine>,
    armed: bool,
}

type Engine = Pin<Box<dyn Future<Output = Infallible>>>;

/// The engine's side: where it takes requests and leaves results.
pub(crate) struct Port<Q, R> {
    cell: Rc<Exchange<Q, R>>,
}

struct Exchange<Q, R> {
    request: Cell<Option<Q>>,
    result: Cell<Option<R>>,
}

impl<Q, R> Port<Q, R> {
    /// Waits for the next request. Nobody is woken for it: who places a request polls the engine.
    pub(crate) async fn request(&self) -> Q {
        std::future::poll_fn(|_| match self.cell.request.take() {
            Some(request) => Poll::Ready(request),
            None => Poll::Pending,
        })
        .await
    }

    /// Leaves the result of the request.
    pub(crate) fn finish(&self, result: R) {
        self.cell.result.set(Some(result));
    }
}

impl<Q: 'static, R: 'static> Op<Q, R> {
    /// An operation that `engine` performs.
    pub(crate) fn new<F>(engine: impl FnOnce(Port<Q, R>) -> F) -> Op<Q, R>
    where
        F: Future<Output = Infallible> + 'static,
    {
        let cell = Rc::new(Exchange {
            request: Cell::new(None),
            result: Cell::new(None),
        });
        Op {
            engine: Some(Box::pin(engine(Port { cell: cell.clone() }))),
            port: Port { cell },
            armed: false,
        }
    }

    /// Whether a request has been placed whose result has not been taken.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Places a request; it goes to the kernel with the first poll.
    pub(crate) fn arm(&mut self, request: Q) {
        debug_assert!(!self.armed);
        self.port.cell.request.set(Some(request));
        self.armed = true;
        runtime::begin_operation();
    }

    /// Polls for the result of the request that was placed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<R> {
        debug_assert!(self.armed);
        if let Some(engine) = &mut self.engine {
            let Poll::Pending = engine.as_mut().poll(cx);
        }
        match self.port.cell.result.take() {
            Some(result) => {
                self.armed = false;
                runtime::end_operation();
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl<Q: 'static, R: 'static> Drop for Op<Q, R> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Some(engine) = self.engine.take() else { return };
        match runtime::driver() {
            // A task of its own polls on until the kernel has answered; whoever owns the socket has seen to it that it
            // will. It is not one of the tasks that the end of `run` stops, but one that it waits for.
            Some(kind) if kind.is_uring() => {
                let port = Port {
                    cell: self.port.cell.clone(),
                };
                drop(monoio::spawn(Linger {
                    engine: Some(engine),
                    port,
                }));
            }
            // On epoll an armed operation is an interest in readiness: the kernel holds no memory of ours.
            Some(_) => {
                drop(engine);
                runtime::end_operation();
            }
            // The ring is gone or leaked, and with it the only way to learn when the kernel is done.
            None => std::mem::forget(engine),
        }
    }
}

/// What remains of an operation whose owner is gone.
struct Linger<Q, R> {
    engine: Option<Engine>,
    port: Port<Q, R>,
}

impl<Q, R> Unpin for Linger<Q, R> {}

impl<Q, R> Future for Linger<Q, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(engine) = &mut this.engine else {
            return Poll::Ready(());
        };
        match catch_unwind(AssertUnwindSafe(|| engine.as_mut().poll(cx).is_pending())) {
            Ok(_) => {}
            Err(_) => {
                // The runtime failed in the middle of an operation: nobody knows whether the kernel still has the
                // memory, so it stays, and the count with it.
                std::mem::forget(this.engine.take());
                return Poll::Ready(());
            }
        }
        let Some(result) = this.port.cell.result.take() else {
            return Poll::Pending;
        };
        crate::task::guard(|| drop((result, this.engine.take())));
        runtime::end_operation();
        Poll::Ready(())
    }
}
