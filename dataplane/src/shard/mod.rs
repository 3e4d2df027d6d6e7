//! A shard: one thread with its own listeners, connections, upstream pools, credits and counters. Nothing here is
//! shared with another shard but the node-wide cells that it takes credit and permits from.

mod accept;
mod bindings;
pub mod bounds;
mod client;
pub mod clock;
mod connection;
mod http1;
pub mod http2;
pub mod mail;
mod overload;
mod places;
mod routes;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::server::ProducesTickets;
use tidegate_plan::{Limit, Limits};
use tidegate_policy::sigv4::SigningKeys;
use tidegate_proto::config::v1::FlushResult;
use tidegate_rt as rt;

use accept::Gate;
pub use accept::Protocol;
pub use bindings::LocalBindings;
pub use bounds::Bounds;
pub(crate) use client::Stall;
pub use client::{Client, Delivery, Gone, Origin, Response};
pub(crate) use connection::serve_test;
pub use places::Lulls;
pub(crate) use places::Registered;
pub use routes::{LocalStage, Routes};

use crate::config::{Apply, Change, ConfigMessage, FlushCall};
use crate::function::{Calls, Functions};
use crate::limit::{self, Credits};
use crate::net::dns::Dns;
use crate::net::permits::Endpoints;
use crate::net::proxy_protocol::Required;
use crate::net::tls::{ClientConfigs, ServerTls};
use crate::net::upstream::{Helpers, Upstreams};
use crate::pipeline;
use crate::pipeline::ids::Ids;
use crate::telemetry::{self, ShardCounters};
use clock::Clock;
use mail::ShardMessage;
use overload::{FRESH, Newcomers, Place, Refusals, Wanted};
use places::Places;

/// What a shard is started with. Built on the node's thread, sent to the shard's.
#[derive(Debug)]
pub struct Start {
    /// Its number, from 0.
    pub index: usize,
    /// How many shards the node has.
    pub shards: usize,
    /// Its mailbox, by which it gets its listeners.
    pub mail: rt::mail::Receiver<ShardMessage>,
    /// The table of limits.
    pub limits: Limits,
    /// The resolver.
    pub dns: Dns,
    /// Functions with workers.
    pub functions: Functions,
    /// The node's upstream targets.
    pub endpoints: Arc<Endpoints>,
    /// Listeners that require the PROXY protocol.
    pub proxy_protocol: Arc<Required>,
    /// TLS towards upstreams.
    pub client_tls: ClientConfigs,
    /// TLS session tickets, one source for all shards.
    pub tickets: Option<Arc<dyn ProducesTickets>>,
    /// Where it counts and logs.
    pub recorder: telemetry::Shard,
    /// The instant from which limits count time; the same for all shards.
    pub epoch: rt::Instant,
    /// Requests may make a phase panic. For tests.
    pub fault_injection: bool,
    /// Plain connections may begin with HTTP/2.
    pub http2_prior_knowledge: bool,
    /// Addresses from which backends are connected to.
    pub upstream_source: Vec<IpAddr>,
}

/// How far a shard's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Each connection ends after its current or next response.
    Retiring,
    /// Idle connections end at once.
    Draining,
    Stopping,
}

/// A shard's state. Owned by its thread.
#[derive(Debug)]
pub struct Shard {
    /// Its number.
    pub index: usize,
    /// Bounds and time-outs.
    pub bounds: Bounds,
    /// The table they come from.
    pub limits: Limits,
    /// Where requests go.
    pub routes: RefCell<Routes>,
    /// Certificates of its HTTPS listeners.
    pub tls: ServerTls,
    /// Its connections to upstreams.
    pub upstreams: Upstreams,
    /// Where cloud names lead.
    pub bindings: RefCell<LocalBindings>,
    /// Keys that sign calls.
    pub signing_keys: RefCell<SigningKeys>,
    /// Its calls of functions with workers.
    pub calls: Calls,
    /// Wall-clock time.
    pub clock: Clock,
    /// Identifiers.
    pub ids: Ids,
    /// Listeners that require the PROXY protocol.
    pub proxy_protocol: Arc<Required>,
    /// Its share of the node's limits.
    pub credits: RefCell<Credits>,
    /// Requests may make a phase panic. For tests.
    pub fault_injection: bool,
    /// Plain connections may begin with HTTP/2.
    pub http2_prior_knowledge: bool,
    /// HTTP/2 streams that are being served.
    pub(crate) http2_streams: Cell<usize>,
    /// Counters and access log.
    pub recorder: telemetry::Shard,
    /// Time for telling clients that there is too much to do.
    pub refusals: Refusals,
    newcomers: Newcomers,
    gate: Gate,
    /// What it accepts from.
    listeners: RefCell<Vec<rt::Listener>>,
    /// Accept tasks that have not ended.
    accepting: Cell<usize>,
    /// Told when none is left.
    pausing: RefCell<Vec<mpsc::Sender<usize>>>,
    epoch: rt::Instant,
    phase: Cell<Phase>,
    /// One place a connection, so that draining reaches those that wait for a client.
    connections: RefCell<Places>,
    /// Tells long waits from short ones.
    lulls: Rc<Lulls>,
    /// Connections that shall close if they are idle.
    wanted: Wanted,
}

/// Runs a shard on this thread until it has drained.
///
/// # Errors
/// When a listener or the mailbox cannot be set up.
pub async fn run(start: Start) -> io::Result<()> {
    let Start {
        index,
        shards,
        mail,
        limits,
        dns,
        functions,
        endpoints,
        proxy_protocol,
        client_tls,
        tickets,
        recorder,
        epoch,
        fault_injection,
        http2_prior_knowledge,
        upstream_source,
    } = start;
    let mut bounds = Bounds::new(&limits);
    for source in upstream_source {
        match source {
            IpAddr::V4(address) => bounds.upstream.how.source_v4 = Some(address),
            IpAddr::V6(address) => bounds.upstream.how.source_v6 = Some(address),
        }
    }
    let mut inbox = mail.attach()?;
    let lulls = Rc::new(Lulls::default());
    let helpers = Helpers {
        dns,
        shard: index,
        lulls: Rc::clone(&lulls),
        watcher: Rc::new(RefCell::new(Waker::noop().clone())),
        counters: Arc::clone(recorder.counters()),
    };
    let shard = Rc::new(Shard {
        index,
        routes: RefCell::new(Routes::default()),
        tls: ServerTls::new(tickets),
        bindings: RefCell::default(),
        signing_keys: RefCell::new(SigningKeys::new(limits.count(Limit::SigningKeys))),
        calls: Calls::new(functions, index),
        upstreams: Upstreams::new(endpoints, client_tls, bounds.upstream, helpers),
        clock: Clock::new(rt::now()),
        ids: Ids::new(),
        proxy_protocol,
        credits: RefCell::new(Credits::new(shards)),
        recorder,
        refusals: Refusals::new(limits.get(Limit::OverloadBudget), rt::now()),
        newcomers: Newcomers::new(limits.get(Limit::NewcomerShare), bounds.newcomers, rt::now()),
        gate: Gate::new(bounds.connections),
        listeners: RefCell::default(),
        accepting: Cell::new(0),
        pausing: RefCell::default(),
        epoch,
        phase: Cell::new(Phase::Serving),
        connections: RefCell::default(),
        lulls,
        wanted: Wanted::default(),
        bounds,
        limits,
        fault_injection,
        http2_prior_knowledge,
        http2_streams: Cell::new(0),
    });
    let watch = Rc::clone(&shard);
    drop(rt::spawn(async move { watch.upstreams.watch().await }));
    let watch = Rc::clone(&shard);
    drop(rt::spawn(async move { watch.notice_lulls().await }));
    drop(rt::spawn(overload::usher(Rc::clone(&shard))));
    let settle = Rc::clone(&shard);
    drop(rt::spawn(async move { settle.settle_credits().await }));

    let mut open = true;
    poll_fn(|cx| {
        while open {
            match inbox.poll_recv(cx) {
                Poll::Ready(Some(message)) => Shard::receive(&shard, message),
                // Nobody is left who could stop it: the process is going down.
                Poll::Ready(None) => {
                    open = false;
                    shard.enter(Phase::Draining);
                }
                Poll::Pending => break,
            }
        }
        if shard.draining() && shard.gate.open() == 0 && shard.accepting.get() == 0 {
            return Poll::Ready(());
        }
        shard.gate.note(cx.waker());
        Poll::Pending
    })
    .await;
    shard.credits.borrow_mut().settle_all();
    shard.upstreams.close_idle();
    Ok(())
}

impl Shard {
    /// Whether it takes no more connections, and ends those it has after their current response.
    pub fn draining(&self) -> bool {
        self.phase.get() >= Phase::Retiring
    }

    /// Whether connections that wait for their next request end now.
    pub fn closing_idle(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Whether every connection must end now.
    pub fn stopping(&self) -> bool {
        self.phase.get() == Phase::Stopping
    }

    /// Time since the instant that the node's limits count from.
    pub fn limit_time(&self, now: rt::Instant) -> limit::Nanos {
        limit::Nanos::try_from(now.duration_since(self.epoch).as_nanos()).unwrap_or(limit::Nanos::MAX)
    }

    /// The shard's own numbers.
    pub fn counters(&self) -> &ShardCounters {
        self.recorder.counters()
    }

    /// Ready when it is a newcomer's turn.
    fn poll_newcomer(&self, cx: &Context<'_>, place: &mut Place) -> Poll<()> {
        let waited = self.newcomers.waits(place);
        let turn = self.newcomers.poll_turn(cx, place);
        if !waited && turn.is_pending() {
            self.counters().newcomers_delayed.add(1);
        }
        turn
    }

    /// Asks so many of the connections that have waited for their next request for a while to close, unless asking
    /// would come to nothing now; returns when to ask again.
    fn ask_for_places(&self, count: usize) -> rt::Instant {
        let now = rt::now();
        if self.wanted.ask(count, now) {
            self.connections.borrow().wake_all();
        }
        self.wanted.again(now)
    }

    /// Whether a connection that has been idle since then closes to make room for another. A `fresh` one has not had a
    /// request yet: its first may be on the way.
    pub fn yields_place(&self, idle_since: rt::Instant, fresh: bool) -> bool {
        if !self.wanted.any() {
            return false;
        }
        let grace = if fresh { FRESH } else { Duration::ZERO };
        if rt::now().saturating_duration_since(idle_since) < self.bounds.yield_after.max(grace) {
            return false;
        }
        self.wanted.found();
        self.counters().connections_yielded.add(1);
        true
    }

    fn enter(&self, phase: Phase) {
        if phase <= self.phase.get() {
            return;
        }
        self.phase.set(phase);
        self.stop_accepting();
        self.connections.borrow().wake_all();
    }

    /// Accepts from further sockets.
    fn listen(this: &Rc<Self>, listeners: Vec<(TcpListener, Protocol)>) {
        if this.draining() {
            return;
        }
        for (socket, protocol) in listeners {
            match rt::Listener::from_std(socket) {
                Ok(listener) => {
                    this.listeners.borrow_mut().push(listener.clone());
                    drop(rt::spawn(accept::accept(Rc::clone(this), listener, protocol)));
                }
                Err(error) => {
                    tracing::error!(shard = this.index, %error, "a socket cannot be accepted from");
                }
            }
        }
    }

    /// Ends the accept tasks, each after what has been accepted already.
    fn stop_accepting(&self) {
        for listener in self.listeners.take() {
            listener.close();
        }
        self.gate.wake();
    }

    fn note_paused(&self) {
        if self.accepting.get() > 0 {
            return;
        }
        for told in self.pausing.take() {
            self.credits.borrow_mut().settle_all();
            // Whoever asked may have given up.
            let _ = told.send(self.index);
        }
    }

    fn receive(this: &Rc<Self>, message: ShardMessage) {
        match message {
            ShardMessage::Listen(listeners) => Self::listen(this, listeners),
            ShardMessage::Pause(told) => {
                this.pausing.borrow_mut().push(told);
                this.stop_accepting();
                this.note_paused();
            }
            other => this.heed(other),
        }
    }

    fn heed(self: &Rc<Self>, message: ShardMessage) {
        match message {
            ShardMessage::Config(ConfigMessage::Apply(apply)) => self.apply(apply),
            ShardMessage::Config(ConfigMessage::Probe(call)) => pipeline::command(self, call),
            ShardMessage::Config(ConfigMessage::Flush(call)) => flush(call),
            // Taken up before.
            ShardMessage::Listen(_) | ShardMessage::Pause(_) => {}
            ShardMessage::Retire => self.enter(Phase::Retiring),
            ShardMessage::Drain => self.enter(Phase::Draining),
            ShardMessage::Stop => self.enter(Phase::Stopping),
            ShardMessage::Resolved(answer) => self.upstreams.resolved(&answer),
            ShardMessage::Invoked(reply) => self.calls.settle(reply),
            ShardMessage::PermitFreed(endpoint) => self.upstreams.permit_freed(endpoint),
            ShardMessage::PermitWanted(endpoint) => self.upstreams.permit_wanted(endpoint),
        }
    }

    /// Switches to new content. Between two polls of any connection's task, hence between two requests; a request in
    /// flight keeps what it began with.
    fn apply(
        &self,
        Apply {
            changes,
            confirmation,
        }: Apply,
    ) {
        let mut certificates = false;
        for change in changes.iter() {
            match change {
                Change::Stage(stage) => {
                    {
                        let mut credits = self.credits.borrow_mut();
                        stage.limit_handles().for_each(|handle| credits.install(handle));
                    }
                    let local = LocalStage::new(Arc::clone(stage), &self.upstreams);
                    self.routes.borrow_mut().put(local);
                }
                Change::StageRemoved { api_id, name } => self.routes.borrow_mut().remove(api_id, name),
                Change::Certificate(certificate) => {
                    self.tls.put(certificate);
                    certificates = true;
                }
                Change::CertificateRemoved { id } => {
                    self.tls.remove(id);
                    certificates = true;
                }
                Change::Settings(settings) => self.routes.borrow_mut().settings(settings),
                Change::Bindings(bindings) => {
                    let local = LocalBindings::new(Arc::clone(bindings), &self.upstreams);
                    let before = self.bindings.replace(local);
                    drop(before);
                }
                Change::LimitsForgotten(indexes) => {
                    let mut credits = self.credits.borrow_mut();
                    indexes.iter().for_each(|&index| credits.forget(index));
                }
            }
        }
        if certificates {
            self.tls.rebuild();
        }
        // Limits may have changed: what was lent under the old ones goes back.
        self.credits.borrow_mut().settle_all();
        self.upstreams.forget_unused();
        confirmation.confirm();
    }

    /// Wakes the connections whose wait has become a long one, and has idle connections to backends watched. Never
    /// returns.
    async fn notice_lulls(&self) {
        loop {
            self.lulls.period(self.bounds.lull).await;
            self.connections.borrow().notice(&self.lulls);
            self.upstreams.watch_idle();
        }
    }

    /// Shows how much memory the buffer pool holds.
    fn count_buffers(&self) {
        let stats = rt::pool::stats();
        let bytes = |blocks: [usize; rt::pool::CLASS_SIZES.len()]| {
            let sizes = blocks.iter().zip(rt::pool::CLASS_SIZES);
            sizes.map(|(blocks, size)| (blocks * size) as u64).sum()
        };
        self.counters().pool_used_bytes.set(bytes(stats.live));
        self.counters().pool_free_bytes.set(bytes(stats.free));
    }

    async fn settle_credits(&self) {
        while !self.draining() {
            rt::sleep(limit::IDLE).await;
            self.count_buffers();
            let mut credits = self.credits.borrow_mut();
            if credits.has_loans() {
                credits.settle_idle(self.limit_time(rt::now()));
            }
        }
    }
}

/// Nothing is cached yet, neither responses nor authorizers' results: every cache is empty when this returns, as asked,
/// and was before.
fn flush(call: FlushCall) {
    let result = FlushResult {
        id: call.flush.id.clone(),
        entries: 0,
        ..FlushResult::default()
    };
    // The asker may have gone.
    let _ = call.reply.send(result);
}
