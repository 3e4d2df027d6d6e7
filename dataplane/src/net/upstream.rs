//! One shard's connections to one target: idle ones kept and watched, new ones made, waiters served in order.

mod counted;
mod http2;
mod pipe;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use smallvec::SmallVec;
use tidegate_plan::{ProxyProtocol, Target};
use tidegate_rt as rt;
use tidegate_rt::Instant;

use super::dns::{Dns, Resolved};
use super::io::Io;
use super::names::Names;
use super::permits::{Endpoint, Endpoints, Permit};
use super::proxy_protocol::{self, Addresses};
use super::race::{self, Address, Race};
use super::retry_budget::RetryBudget;
use super::tls::{ClientConfigs, Sessions, TlsStream};
use crate::shard::Lulls;
use crate::telemetry::ShardCounters;
use counted::Counted;
use http2::Multiplexed;
pub use http2::{Http2Limits, Opened, Slot};

/// Time-outs and bounds towards upstreams, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamLimits {
    /// One attempt at connecting, TLS handshake included.
    pub connect: Duration,
    /// One address has for itself before the next one is tried beside it.
    pub attempt_delay: Duration,
    /// Addresses of one target that are used.
    pub addresses: usize,
    /// Waiting for a connection permit.
    pub pool_wait: Duration,
    /// After which an idle connection is watched.
    pub watch_delay: Duration,
    /// Longest time that a connection is kept idle.
    pub idle: Duration,
    /// Idle connections kept for one target by one shard.
    pub max_idle: usize,
    /// Idle connections to one target that one shard opens before they are asked for.
    pub min_idle: usize,
    /// How long a target is distrusted that hung up on an idle connection.
    pub distrust: Duration,
    /// How often idle connections are looked at for their age and their number.
    pub check: Duration,
    /// Requests of one shard that wait for a connection to one target.
    pub max_waiters: usize,
    /// TLS sessions with one target that one shard keeps.
    pub tls_sessions: usize,
    /// Retries in a hundred requests.
    pub retry_percent: u32,
    /// Retries in hand after a quiet time.
    pub retry_burst: u32,
    /// How connections are made.
    pub how: race::How,
    /// HTTP/2.
    pub http2: Http2Limits,
}

/// A shard's side of a target.
#[derive(Debug)]
pub struct Upstream {
    /// The target, as the node knows it.
    pub endpoint: Arc<Endpoint>,
    /// What goes into `Host`.
    pub authority: Box<str>,
    tls: Option<Arc<ClientConfig>>,
    /// The same with an offer of HTTP/2.
    tls_http2: Option<Arc<ClientConfig>>,
    limits: UpstreamLimits,
    http2: Multiplexed,
    /// Most recently used last: what is taken is warm, what is left ages out.
    idle: RefCell<Vec<Idle>>,
    waiters: RefCell<VecDeque<(u64, Waker)>>,
    tickets: Cell<u64>,
    names: Names,
    /// Until when idle connections are looked at before every use: the target hangs up without having said so.
    distrusted: Cell<Option<Instant>>,
    /// Which address the next connection begins with.
    turn: Cell<usize>,
    retries: RetryBudget,
    /// Idle connections are being opened, or when that was begun last.
    warming: Cell<bool>,
    warmed: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
    /// A read is armed, so that its end or a byte wakes the watcher.
    watched: bool,
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
    /// Whose it is, where the backend was told.
    client: Named,
    counted: Counted,
    _permit: Permit,
}

/// Whom the backend is told a connection is for, where it is told at all; `None` also for a request of the gateway's own.
pub type Named = Option<Box<Addresses>>;

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
    /// As many requests wait for a connection as may.
    #[error("too many requests wait for a connection to the target")]
    Crowded,
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
    /// Where connections are counted.
    pub counters: Arc<ShardCounters>,
}

impl Upstream {
    /// A target without connections.
    pub fn new(endpoint: Arc<Endpoint>, tls: Option<Arc<ClientConfig>>, limits: UpstreamLimits) -> Self {
        Self {
            names: Names::new(endpoint.target.host()),
            authority: endpoint.target.authority().into(),
            endpoint,
            tls_http2: tls.as_deref().map(http2::offering),
            tls,
            limits,
            http2: Multiplexed::default(),
            idle: RefCell::default(),
            waiters: RefCell::default(),
            tickets: Cell::new(0),
            distrusted: Cell::new(None),
            turn: Cell::new(0),
            retries: RetryBudget::new(limits.retry_percent, limits.retry_burst),
            warming: Cell::new(false),
            warmed: Cell::new(None),
        }
    }

    /// The name that [`Resolved`] answers carry for it.
    pub fn name(&self) -> &str {
        self.names.name()
    }

    /// Whether one more attempt at a request is within the retry budget.
    pub fn may_retry(&self) -> bool {
        self.retries.take()
    }

    /// An idle connection turned out to be dead when a request was sent on it: for a while they are looked at first,
    /// which costs each request a system call.
    pub fn distrust(&self) {
        self.distrusted.set(Some(rt::now() + self.limits.distrust));
    }

    /// How the backend is told whose a connection is. Where it is, a connection is one client's, and who checks one out
    /// says whose.
    pub fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.endpoint.target.proxy_protocol()
    }

    /// An idle connection for a request's first attempt, if there is one. `careful` asks for one that is known to be
    /// open at this moment, as the request cannot be sent twice.
    pub fn checkout_idle(&self, careful: bool, client: &Named) -> Option<Box<Connection>> {
        self.retries.credit();
        let careful = careful || self.distrusted.get().is_some_and(|until| rt::now() < until);
        self.take_idle(careful, client)
    }

    /// A new connection, or else the first that comes free.
    ///
    /// # Errors
    /// When none can be had in time.
    pub async fn checkout(&self, helpers: &Helpers, client: Named) -> Result<Box<Connection>, ConnectError> {
        let permit = match self.acquire() {
            Some(permit) => permit,
            None => match self.wait_for_permit(helpers, &client).await? {
                Won::Permit(permit) => permit,
                Won::Connection(connection) => return Ok(connection),
            },
        };
        // Boxed, as it is rare and large, and every connection's task would hold it.
        Box::pin(self.connect(helpers, permit, self.tls.as_ref(), client)).await
    }

    /// A permit for another connection. Where idle connections are other clients', the one used least recently makes
    /// room.
    fn acquire(&self) -> Option<Permit> {
        self.endpoint.try_acquire().or_else(|| {
            self.proxy_protocol()?;
            self.yield_one();
            self.endpoint.try_acquire()
        })
    }

    /// Takes a connection back that can carry another request. It is watched when it has been idle for a while
    /// (`watch-delay`), and looked at when it is taken before that.
    pub fn check_in(&self, mut connection: Box<Connection>, helpers: &Helpers) {
        connection.reused = true;
        if self.limits.max_idle == 0 {
            return;
        }
        connection.counted.set_idle(true);
        let mut idle = self.idle.borrow_mut();
        let oldest = (idle.len() >= self.limits.max_idle).then(|| idle.remove(0));
        idle.push(Idle {
            connection,
            since: rt::now(),
            watched: false,
        });
        drop(idle);
        // As in `sweep`.
        drop(oldest);
        helpers.lulls.note();
        if self.waiters.borrow().is_empty() && self.endpoint.is_waited_for() {
            // Another shard has asked for it while it was in use, and does not ask again.
            self.yield_one();
        }
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
        self.close_sessions();
    }

    /// Closes the idle connection that was used least recently, for a shard that has none.
    pub fn yield_one(&self) {
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        if oldest.is_none() {
            self.yield_session();
        }
        drop(oldest);
    }

    /// The resolver answered.
    pub fn resolved(&self, answer: &Resolved) {
        self.names
            .resolved(answer, &self.endpoint.health, self.limits.addresses);
    }

    /// Whether idle connections are to be opened now, and not only after the next look: a backend that closes them at
    /// once is not to be met with ever more of them.
    fn is_cold(&self) -> bool {
        let wanted = self.limits.min_idle.min(self.limits.max_idle);
        let now = rt::now();
        let lately = |at| now.saturating_duration_since(at) < self.limits.check;
        self.idle.borrow().len() < wanted
            // For whom?
            && self.proxy_protocol().is_none()
            && !self.warming.get()
            && !self.has_sessions()
            && !self.warmed.get().is_some_and(lately)
            && !self.endpoint.is_waited_for()
    }

    /// Opens idle connections one after the other until there are enough, or one cannot be had.
    async fn warm(&self, helpers: &Helpers) {
        self.warming.set(true);
        self.warmed.set(Some(rt::now()));
        let wanted = self.limits.min_idle.min(self.limits.max_idle);
        while self.idle.borrow().len() < wanted {
            let Some(permit) = self.endpoint.try_acquire() else {
                break;
            };
            match self.connect(helpers, permit, self.tls.as_ref(), None).await {
                Ok(connection) => {
                    helpers.counters.upstream_connects.add(1);
                    let before = self.idle.borrow().len();
                    self.check_in(connection, helpers);
                    // Closed by the other side already, or taken by a request that waited.
                    if self.idle.borrow().len() <= before {
                        break;
                    }
                }
                Err(error) => {
                    helpers.counters.upstream_connect_failures.add(1);
                    tracing::debug!(target = %self.authority, %error, "no idle connection to the backend");
                    break;
                }
            }
        }
        self.warming.set(false);
    }

    fn wake_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        if let Some((_, waiter)) = waiter {
            waiter.wake();
        }
    }

    fn take_idle(&self, careful: bool, client: &Named) -> Option<Box<Connection>> {
        loop {
            let mut taken = match self.proxy_protocol() {
                None => self.idle.borrow_mut().pop()?,
                Some(_) => {
                    let mut idle = self.idle.borrow_mut();
                    let own = idle.iter().rposition(|one| one.connection.client == *client)?;
                    idle.remove(own)
                }
            };
            let quiet = if taken.watched {
                let mut cx = Context::from_waker(Waker::noop());
                taken.connection.io.poll_read(&mut cx).is_pending()
            } else {
                !careful || taken.connection.io.is_quiet()
            };
            if quiet {
                taken.connection.counted.set_idle(false);
                return Some(taken.connection);
            }
        }
    }

    async fn wait_for_permit(&self, helpers: &Helpers, client: &Named) -> Result<Won, ConnectError> {
        if self.waiters.borrow().len() >= self.limits.max_waiters {
            return Err(ConnectError::Crowded);
        }
        let mut timer = rt::Timer::new();
        timer.set_after(self.limits.pool_wait);
        let mut place = Waiting::begin(self);
        let won = poll_fn(|cx| {
            if let Some(connection) = self.take_idle(true, client) {
                return Poll::Ready(Won::Connection(connection));
            }
            place.stand(cx.waker());
            self.endpoint.wait(helpers.shard);
            match self.acquire() {
                Some(permit) => Poll::Ready(Won::Permit(permit)),
                None => Poll::Pending,
            }
        });
        let won = rt::with_deadline(&mut timer, won).await;
        place.served = won.is_ok();
        won.map_err(|_| ConnectError::Exhausted)
    }

    /// Connects to the first of the target's addresses that answers and, where it speaks TLS, shakes hands.
    async fn connect(
        &self,
        helpers: &Helpers,
        permit: Permit,
        tls: Option<&Arc<ClientConfig>>,
        client: Named,
    ) -> Result<Box<Connection>, ConnectError> {
        let deadline = rt::now() + self.limits.connect;
        let mut timer = rt::Timer::new();
        timer.set(deadline);
        let addresses = self
            .names
            .addresses(&helpers.dns, helpers.shard, self.limits.connect);
        let addresses = rt::with_deadline(&mut timer, addresses)
            .await
            .map_err(|_| ConnectError::TimedOut)?
            .map_err(|_| ConnectError::Name(Arc::clone(self.names.name())))?;
        let order = self.order(&addresses);
        let port = self.endpoint.target.port();
        let mut race = Race::new(order, port, self.limits.attempt_delay, deadline, self.limits.how);
        let mut last = ConnectError::TimedOut;
        loop {
            match race.event().await {
                race::Event::Connected(address, mut stream, slower) => {
                    for late in slower {
                        self.failed(late, helpers);
                    }
                    if let Some(version) = self.proxy_protocol() {
                        // Leaves with the request's head, or the handshake's first message.
                        let mut header = rt::Buffer::with_capacity(proxy_protocol::WRITTEN_MAX);
                        proxy_protocol::write(version, client.as_deref(), &mut header);
                        stream.queue(header.freeze());
                    }
                    match rt::with_deadline(&mut timer, self.secure(stream, tls)).await {
                        Ok(Ok(io)) => {
                            if let Some(place) = address.place {
                                self.endpoint.health.succeeded(place);
                            }
                            return Ok(Box::new(Connection {
                                io,
                                reused: false,
                                spoiled: false,
                                client,
                                counted: Counted::active(&helpers.counters),
                                _permit: permit,
                            }));
                        }
                        Ok(Err(error)) => {
                            self.failed(address, helpers);
                            last = ConnectError::Tls(error);
                        }
                        Err(_) => {
                            self.failed(address, helpers);
                            return Err(ConnectError::TimedOut);
                        }
                    }
                }
                race::Event::Failed(address, error) => {
                    self.failed(address, helpers);
                    last = ConnectError::Refused(error);
                }
                race::Event::TimedOut(late) => {
                    for late in late {
                        self.failed(late, helpers);
                    }
                    return Err(ConnectError::TimedOut);
                }
                race::Event::Lost => return Err(last),
            }
        }
    }

    /// The addresses for the next connection, in order; without the ejected ones, unless that leaves none.
    fn order(&self, addresses: &[Address]) -> race::Order {
        let first = self.turn.get();
        self.turn.set(first.wrapping_add(1));
        let ejected = self.endpoint.health.ejected(rt::now());
        if ejected.is_empty() {
            return race::order(addresses.iter().copied(), first);
        }
        let left = addresses
            .iter()
            .filter(|address| !ejected.contains(address.place));
        let order = race::order(left.copied(), first);
        match order.is_empty() {
            true => race::order(addresses.iter().copied(), first),
            false => order,
        }
    }

    /// Notes that an address took no connection.
    fn failed(&self, address: Address, helpers: &Helpers) {
        let Some(place) = address.place else { return };
        if let Some(time) = self.endpoint.health.failed(place, rt::now()) {
            helpers.counters.upstream_ejections.add(1);
            tracing::info!(
                target = %self.authority,
                address = %address.ip,
                seconds = time.as_secs(),
                "an address of a backend takes no connections and gets none for a while"
            );
        }
    }

    async fn secure(&self, stream: rt::Stream, tls: Option<&Arc<ClientConfig>>) -> io::Result<Io> {
        let Some(config) = tls else {
            return Ok(Io::Plain(stream));
        };
        let mut stream = TlsStream::client(stream, Arc::clone(config), self.names.name())?;
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(Io::Tls(Box::new(stream)))
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
    /// Some target was told of clients.
    tell_clients: Cell<bool>,
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
            tell_clients: Cell::new(false),
            helpers,
        }
    }

    /// Whether backends are told whose connections are.
    pub fn tell_clients(&self) -> bool {
        self.tell_clients.get()
    }

    /// This shard's side of a target; connections are kept over changes of configuration (decision D9). The node's
    /// table is asked once a target, while configuration is applied, never while a request is served.
    pub fn of(&self, target: &Target) -> Rc<Upstream> {
        if let Some(known) = self.by_target.borrow().get(target) {
            return Rc::clone(known);
        }
        if target.proxy_protocol().is_some() {
            self.tell_clients.set(true);
        }
        let tls = self.client_tls.of(target).map(|config| {
            // Sessions are the target's own: another's may not even be of the same policy.
            let mut own = ClientConfig::clone(config);
            own.resumption = match self.limits.tls_sessions {
                0 => Resumption::disabled(),
                most => Resumption::store(Arc::new(Sessions::new(most))),
            };
            Arc::new(own)
        });
        let upstream = Rc::new(Upstream::new(self.endpoints.resolve(target), tls, self.limits));
        self.by_target
            .borrow_mut()
            .insert(target.clone(), Rc::clone(&upstream));
        if self.limits.min_idle > 0 {
            self.helpers.watcher.borrow().wake_by_ref();
        }
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

    /// Watches idle connections: drops them when they end, speak, or grow old, and opens some where the table of
    /// limits says so. Never returns.
    pub async fn watch(&self) {
        let mut timer = rt::Timer::new();
        poll_fn(|cx| {
            self.helpers.watcher.borrow_mut().clone_from(cx.waker());
            let mut again = self.limits.min_idle > 0;
            let mut cold = SmallVec::<[Rc<Upstream>; 4]>::new();
            for upstream in self.by_target.borrow().values() {
                again |= upstream.sweep(cx);
                if self.limits.min_idle > 0 && upstream.is_cold() {
                    cold.push(Rc::clone(upstream));
                }
            }
            for upstream in cold {
                let helpers = self.helpers.clone();
                drop(rt::spawn(async move { upstream.warm(&helpers).await }));
            }
            if again {
                timer.set_after(self.limits.check);
                while timer.poll_elapsed(cx).is_ready() {
                    timer.set_after(self.limits.check);
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

enum Won {
    Permit(Permit),
    Connection(Box<Connection>),
}
