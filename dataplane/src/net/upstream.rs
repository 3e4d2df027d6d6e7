//! One shard's connections to one target: idle ones kept and watched, new ones made, waiters served in order.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ClientConfig;
use tidegate_plan::Target;
use tidegate_plan::integration::Host;
use tidegate_rt as rt;
use tidegate_rt::Instant;

use super::dns::{Dns, Resolved};
use super::io::Io;
use super::permits::{Endpoint, Endpoints, Permit};
use super::tls::{ClientConfigs, TlsStream};
use crate::shard::Lulls;

/// Time-outs and bounds towards upstreams, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamLimits {
    /// One attempt at connecting, TLS handshake included.
    pub connect: Duration,
    /// Waiting for a connection permit.
    pub pool_wait: Duration,
    /// After which an idle connection is watched.
    pub watch_delay: Duration,
    /// Longest time that a connection is kept idle.
    pub idle: Duration,
    /// Idle connections kept for one target by one shard.
    pub max_idle: usize,
    /// Requests of one shard that wait for a connection to one target.
    pub max_waiters: usize,
    /// Retries in a hundred requests.
    pub retry_percent: u32,
}

/// A shard's side of a target.
#[derive(Debug)]
pub struct Upstream {
    /// The target, as the node knows it.
    pub endpoint: Arc<Endpoint>,
    /// What goes into `Host`.
    pub authority: Box<str>,
    tls: Option<Arc<ClientConfig>>,
    limits: UpstreamLimits,
    /// Most recently used last: what is taken is warm, what is left ages out.
    idle: RefCell<Vec<Idle>>,
    waiters: RefCell<VecDeque<(u64, Waker)>>,
    tickets: Cell<u64>,
    names: RefCell<Names>,
    name: Arc<str>,
    /// Until when idle connections are looked at before every use: the target hangs up without having said so.
    distrusted: Cell<Option<Instant>>,
    /// Which address the next connection begins with.
    turn: Cell<usize>,
    retries: RetryBudget,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
    /// A read is armed, so that its end or a byte wakes the watcher.
    watched: bool,
}

/// The addresses of a target.
#[derive(Debug)]
enum Names {
    /// The target is an address.
    Literal(IpAddr),
    /// The target is a name; addresses as last resolved, and until when.
    Named {
        addresses: Arc<[IpAddr]>,
        until: Option<Instant>,
        asked: Option<Instant>,
        waiters: Vec<Waker>,
    },
}

/// A connection to an upstream with its permit.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub io: Io,
    /// It has carried a request before: it may have been closed by the other side in the meantime.
    pub reused: bool,
    /// It must not carry another request.
    pub spoiled: bool,
    _permit: Permit,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The target's name has no address.
    #[error("no address for {0}")]
    Name(Arc<str>),
    /// Every address refused, reset or did not answer.
    #[error("cannot connect: {0}")]
    Refused(io::Error),
    /// No answer in time.
    #[error("no connection in time")]
    TimedOut,
    /// TLS failed: certificate, protocol.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The target has as many connections as it may have, and none came free in time.
    #[error("all connections to the target are in use")]
    Exhausted,
}

/// What a shard lends to its upstreams while they connect.
#[derive(Debug, Clone)]
pub struct Helpers {
    /// The resolver.
    pub dns: Dns,
    /// This shard's number.
    pub shard: usize,
    /// Tells when connections have been idle for a while.
    pub lulls: Rc<Lulls>,
    /// Wakes the task that watches idle connections.
    pub watcher: Rc<RefCell<Waker>>,
}

impl Upstream {
    /// A target without connections.
    pub fn new(endpoint: Arc<Endpoint>, tls: Option<Arc<ClientConfig>>, limits: UpstreamLimits) -> Self {
        let names = match endpoint.target.host() {
            Host::Address(address) => Names::Literal(*address),
            Host::Name(_) => Names::Named {
                addresses: Arc::new([]),
                until: None,
                asked: None,
                waiters: Vec::new(),
            },
        };
        Self {
            name: endpoint.target.host().to_string().into(),
            authority: endpoint.target.authority().into(),
            endpoint,
            tls,
            limits,
            idle: RefCell::default(),
            waiters: RefCell::default(),
            tickets: Cell::new(0),
            names: RefCell::new(names),
            distrusted: Cell::new(None),
            turn: Cell::new(0),
            retries: RetryBudget::new(limits.retry_percent),
        }
    }

    /// The name that [`Resolved`] answers carry for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether one more attempt at a request is within the retry budget.
    pub fn may_retry(&self) -> bool {
        self.retries.take()
    }

    /// An idle connection turned out to be dead when a request was sent on it: for a while they are looked at first,
    /// which costs each request a system call.
    pub fn distrust(&self) {
        self.distrusted.set(Some(rt::now() + DISTRUST));
    }

    /// A connection: an idle one, else a new one, else the first that comes free. `fresh` asks for one that has carried
    /// no request; `careful` for one that is known to be open at this moment, as the request cannot be sent twice.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn checkout(
        &self,
        helpers: &Helpers,
        fresh: bool,
        careful: bool,
    ) -> Result<Box<Connection>, ConnectError> {
        self.retries.credit();
        let careful = careful || self.distrusted.get().is_some_and(|until| rt::now() < until);
        if !fresh && let Some(connection) = self.take_idle(careful) {
            return Ok(connection);
        }
        let permit = match self.endpoint.try_acquire() {
            Some(permit) => permit,
            None => match self.wait_for_permit(helpers).await? {
                Won::Permit(permit) => permit,
                Won::Connection(connection) => return Ok(connection),
            },
        };
        let mut timer = rt::Timer::new();
        timer.set_after(self.limits.connect);
        rt::with_deadline(&mut timer, self.connect(helpers, permit))
            .await
            .unwrap_or(Err(ConnectError::TimedOut))
    }

    /// Takes a connection back that can carry another request. It is watched when it has been idle for a while
    /// (`watch-delay`), and looked at when it is taken before that.
    pub fn check_in(&self, mut connection: Box<Connection>, helpers: &Helpers) {
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.limits.max_idle {
            return;
        }
        idle.push(Idle {
            connection,
            since: rt::now(),
            watched: false,
        });
        drop(idle);
        helpers.lulls.note();
        self.wake_one();
    }

    /// Begins to watch the connections that were idle already when the last period began, and asks for another period
    /// where there are younger ones.
    fn watch_idle(&self, helpers: &Helpers) {
        let watcher = helpers.watcher.borrow();
        let mut cx = Context::from_waker(&watcher);
        let now = rt::now();
        let mut gone = Vec::new();
        let mut begun = false;
        let mut idle = self.idle.borrow_mut();
        let mut at = 0;
        while at < idle.len() {
            let one = &mut idle[at];
            if !one.watched {
                if now.saturating_duration_since(one.since) < self.limits.watch_delay {
                    helpers.lulls.note();
                } else {
                    one.watched = true;
                    begun = true;
                    // Anything that can be read from an idle connection, its end included, makes it useless.
                    if one.connection.io.poll_read(&mut cx).is_ready() {
                        gone.push(idle.remove(at));
                        continue;
                    }
                }
            }
            at += 1;
        }
        drop(idle);
        // Dropped with no borrow held: a permit given back may wake a waiter.
        drop(gone);
        if begun {
            // From now on it looks at their age too.
            watcher.wake_by_ref();
        }
    }

    /// Drops idle connections that ended, spoke, or were idle for too long. Returns whether any is left to watch.
    pub fn sweep(&self, cx: &mut Context<'_>) -> bool {
        let now = rt::now();
        let mut gone = Vec::new();
        let mut idle = self.idle.borrow_mut();
        let mut at = 0;
        while at < idle.len() {
            let expired = now.saturating_duration_since(idle[at].since) >= self.limits.idle;
            if expired || idle[at].watched && idle[at].connection.io.poll_read(cx).is_ready() {
                gone.push(idle.remove(at));
            } else {
                at += 1;
            }
        }
        let left = !idle.is_empty();
        drop(idle);
        // Dropped with no borrow held: a permit given back may wake a waiter.
        drop(gone);
        left
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        drop(idle);
    }

    /// Closes the idle connection that was used least recently, for a shard that has none.
    pub fn yield_one(&self) {
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        drop(oldest);
    }

    /// The resolver answered.
    pub fn resolved(&self, answer: &Resolved) {
        let mut names = self.names.borrow_mut();
        if let Names::Named {
            addresses,
            until,
            asked,
            waiters,
        } = &mut *names
        {
            *addresses = Arc::clone(&answer.addresses);
            *until = Some(rt::now() + answer.ttl);
            *asked = None;
            let woken = std::mem::take(waiters);
            drop(names);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    fn wake_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        if let Some((_, waiter)) = waiter {
            waiter.wake();
        }
    }

    fn take_idle(&self, careful: bool) -> Option<Box<Connection>> {
        loop {
            let mut taken = self.idle.borrow_mut().pop()?;
            let quiet = if taken.watched {
                let mut cx = Context::from_waker(Waker::noop());
                taken.connection.io.poll_read(&mut cx).is_pending()
            } else {
                !careful || taken.connection.io.is_quiet()
            };
            if quiet {
                return Some(taken.connection);
            }
        }
    }

    async fn wait_for_permit(&self, helpers: &Helpers) -> Result<Won, ConnectError> {
        if self.waiters.borrow().len() >= self.limits.max_waiters {
            return Err(ConnectError::Exhausted);
        }
        let mut timer = rt::Timer::new();
        timer.set_after(self.limits.pool_wait);
        let mut place = Waiting::begin(self);
        let won = poll_fn(|cx| {
            if let Some(connection) = self.take_idle(true) {
                return Poll::Ready(Won::Connection(connection));
            }
            place.stand(cx.waker());
            self.endpoint.wait(helpers.shard);
            match self.endpoint.try_acquire() {
                Some(permit) => Poll::Ready(Won::Permit(permit)),
                None => Poll::Pending,
            }
        });
        let won = rt::with_deadline(&mut timer, won).await;
        place.served = won.is_ok();
        won.map_err(|_| ConnectError::Exhausted)
    }

    async fn connect(&self, helpers: &Helpers, permit: Permit) -> Result<Box<Connection>, ConnectError> {
        let addresses = self.addresses(helpers).await?;
        let first = self.turn.get();
        self.turn.set(first.wrapping_add(1));
        let count = addresses.len();
        let mut refused = None;
        // Each address gets its share of the time, so that a silent one does not hide the others.
        let share = self.limits.connect / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut timer = rt::Timer::new();
        for at in 0..count {
            let address = SocketAddr::new(
                addresses[first.wrapping_add(at) % count],
                self.endpoint.target.port(),
            );
            timer.set_after(share);
            match rt::with_deadline(
                &mut timer,
                rt::Stream::connect(address, &rt::ConnectOptions::default()),
            )
            .await
            {
                Ok(Ok(stream)) => {
                    let io = self.secure(stream).await?;
                    return Ok(Box::new(Connection {
                        io,
                        reused: false,
                        spoiled: false,
                        _permit: permit,
                    }));
                }
                Ok(Err(error)) => refused = Some(error),
                Err(_) => {}
            }
        }
        Err(refused.map_or(ConnectError::TimedOut, ConnectError::Refused))
    }

    async fn secure(&self, stream: rt::Stream) -> Result<Io, ConnectError> {
        let Some(config) = &self.tls else {
            return Ok(Io::Plain(stream));
        };
        let mut stream =
            TlsStream::client(stream, Arc::clone(config), &self.name).map_err(ConnectError::Tls)?;
        poll_fn(|cx| stream.poll_handshake(cx))
            .await
            .map_err(ConnectError::Tls)?;
        Ok(Io::Tls(Box::new(stream)))
    }

    /// The target's addresses; asks the resolver when they are unknown, and, without waiting, when they ran out.
    async fn addresses(&self, helpers: &Helpers) -> Result<Arc<[IpAddr]>, ConnectError> {
        let found = poll_fn(|cx| {
            let mut names = self.names.borrow_mut();
            let (addresses, until, asked, waiters) = match &mut *names {
                Names::Literal(address) => return Poll::Ready(Ok(Arc::from([*address]))),
                Names::Named {
                    addresses,
                    until,
                    asked,
                    waiters,
                } => (addresses, until, asked, waiters),
            };
            let now = rt::now();
            let current = until.is_some_and(|until| until > now);
            // Asked again after a while: an answer can be lost when the mailbox is full.
            if !current && asked.is_none_or(|at| now.saturating_duration_since(at) >= self.limits.connect) {
                if helpers.dns.ask(Arc::clone(&self.name), helpers.shard) {
                    *asked = Some(now);
                } else if addresses.is_empty() {
                    return Poll::Ready(Err(()));
                }
            }
            match (addresses.is_empty(), current) {
                (false, _) => Poll::Ready(Ok(Arc::clone(addresses))),
                (true, true) => Poll::Ready(Err(())),
                (true, false) => {
                    waiters.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        found
            .await
            .map_err(|()| ConnectError::Name(Arc::clone(&self.name)))
    }
}

/// A place in the queue of those who wait for a connection. Who leaves it unserved after having been woken passes the
/// wake on.
struct Waiting<'u> {
    upstream: &'u Upstream,
    ticket: u64,
    stood: bool,
    served: bool,
}

impl<'u> Waiting<'u> {
    fn begin(upstream: &'u Upstream) -> Self {
        let ticket = upstream.tickets.get();
        upstream.tickets.set(ticket + 1);
        Self {
            upstream,
            ticket,
            stood: false,
            served: false,
        }
    }

    fn stand(&mut self, waker: &Waker) {
        let mut waiters = self.upstream.waiters.borrow_mut();
        match waiters.iter_mut().find(|(ticket, _)| *ticket == self.ticket) {
            Some((_, known)) => known.clone_from(waker),
            // Woken and not served: in front again, where it was.
            None if self.stood => waiters.push_front((self.ticket, waker.clone())),
            None => waiters.push_back((self.ticket, waker.clone())),
        }
        self.stood = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiters = self.upstream.waiters.borrow_mut();
        let place = waiters.iter().position(|(ticket, _)| *ticket == self.ticket);
        match place {
            Some(place) => drop(waiters.remove(place)),
            None => {
                drop(waiters);
                if self.stood && !self.served {
                    self.upstream.wake_one();
                }
            }
        }
    }
}

/// All upstreams of a shard.
#[derive(Debug)]
pub struct Upstreams {
    by_target: RefCell<HashMap<Target, Rc<Upstream>, ahash::RandomState>>,
    endpoints: Arc<Endpoints>,
    client_tls: ClientConfigs,
    limits: UpstreamLimits,
    /// What connecting needs.
    pub helpers: Helpers,
}

impl Upstreams {
    /// None yet.
    pub fn new(
        endpoints: Arc<Endpoints>,
        client_tls: ClientConfigs,
        limits: UpstreamLimits,
        helpers: Helpers,
    ) -> Self {
        Self {
            by_target: RefCell::default(),
            endpoints,
            client_tls,
            limits,
            helpers,
        }
    }

    /// This shard's side of a target; connections are kept over changes of configuration (decision D9). The node's
    /// table is asked once a target, while configuration is applied, never while a request is served.
    pub fn of(&self, target: &Target) -> Rc<Upstream> {
        if let Some(known) = self.by_target.borrow().get(target) {
            return Rc::clone(known);
        }
        let tls = self.client_tls.of(target).cloned();
        let upstream = Rc::new(Upstream::new(self.endpoints.resolve(target), tls, self.limits));
        self.by_target
            .borrow_mut()
            .insert(target.clone(), Rc::clone(&upstream));
        upstream
    }

    /// Drops the upstreams that no stage names any more, with their idle connections.
    pub fn forget_unused(&self) {
        let mut unused = Vec::new();
        self.by_target.borrow_mut().retain(|_, upstream| {
            let used = Rc::strong_count(upstream) > 1;
            if !used {
                unused.push(Rc::clone(upstream));
            }
            used
        });
    }

    /// Watches idle connections: drops them when they end, speak, or grow old. Never returns.
    pub async fn watch(&self) {
        let mut timer = rt::Timer::new();
        poll_fn(|cx| {
            self.helpers.watcher.borrow_mut().clone_from(cx.waker());
            let mut any = false;
            for upstream in self.by_target.borrow().values() {
                any |= upstream.sweep(cx);
            }
            if any {
                timer.set_after(SWEEP);
                while timer.poll_elapsed(cx).is_ready() {
                    timer.set_after(SWEEP);
                }
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Begins to watch connections that have been idle for a while.
    pub fn watch_idle(&self) {
        for upstream in self.by_target.borrow().values() {
            upstream.watch_idle(&self.helpers);
        }
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        for upstream in self.by_target.borrow().values() {
            upstream.close_idle();
        }
    }

    /// The resolver answered.
    pub fn resolved(&self, answer: &Resolved) {
        for upstream in self
            .by_target
            .borrow()
            .values()
            .filter(|upstream| upstream.name() == &*answer.host)
        {
            upstream.resolved(answer);
        }
    }

    /// A permit of this endpoint came free.
    pub fn permit_freed(&self, endpoint: u32) {
        if let Some(upstream) = self.numbered(endpoint) {
            upstream.wake_one();
        }
    }

    /// Another shard waits for a permit of this endpoint.
    pub fn permit_wanted(&self, endpoint: u32) {
        if let Some(upstream) = self.numbered(endpoint) {
            upstream.yield_one();
        }
    }

    /// Looked for one by one: such mail is rare.
    fn numbered(&self, endpoint: u32) -> Option<Rc<Upstream>> {
        self.by_target
            .borrow()
            .values()
            .find(|upstream| upstream.endpoint.id() == endpoint)
            .map(Rc::clone)
    }
}

/// How long a target is distrusted that hung up on an idle connection.
const DISTRUST: Duration = Duration::from_secs(60);

/// How often idle connections are looked at for their age.
const SWEEP: Duration = Duration::from_secs(5);

enum Won {
    Permit(Permit),
    Connection(Box<Connection>),
}

/// Retries in proportion to requests, with ten in hand after a quiet time.
#[derive(Debug)]
struct RetryBudget {
    /// In hundredths of a retry.
    left: Cell<u32>,
    percent: u32,
}

const RETRY_COST: u32 = 100;
const RETRY_CAP: u32 = 10 * RETRY_COST;

impl RetryBudget {
    fn new(percent: u32) -> Self {
        Self {
            left: Cell::new(if percent == 0 { 0 } else { RETRY_CAP }),
            percent,
        }
    }

    fn credit(&self) {
        self.left.set((self.left.get() + self.percent).min(RETRY_CAP));
    }

    fn take(&self) -> bool {
        let left = self.left.get().checked_sub(RETRY_COST);
        if let Some(left) = left {
            self.left.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D11.
    #[test]
    fn retries_are_a_fifth_of_the_requests() {
        let budget = RetryBudget::new(20);
        while budget.take() {}
        let mut retried = 0;
        for _ in 0..100 {
            budget.credit();
            retried += u32::from(budget.take());
        }
        assert_eq!(retried, 20);
        assert!(!RetryBudget::new(0).take());
    }
}
