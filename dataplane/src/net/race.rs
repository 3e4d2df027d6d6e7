//! Connecting to the first of several addresses that answers ("happy eyeballs", RFC 8305).
//!
//! Attempts begin one after the other, each when the one before has failed or has had its time for itself, and go on
//! side by side. So an address that does not answer costs the delay and not the whole time for connecting.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_rt as rt;
use tidegate_rt::Instant;

use super::health::Place;

/// An address of a target, and where its health stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Where to connect to.
    pub ip: IpAddr,
    /// Where its health is kept; `None` where it is not.
    pub place: Option<Place>,
}

/// Addresses in the order in which they are tried.
pub type Order = SmallVec<[Address; 4]>;

/// The order for a connection: from `first` on around, the families taking turns (RFC 8305 section 4), so that one
/// that is cut off costs one attempt and not as many as it has addresses. That it begins somewhere else each time
/// spreads connections over the addresses.
pub fn order(addresses: impl Iterator<Item = Address> + Clone, first: usize) -> Order {
    let count = addresses.clone().count();
    if count == 0 {
        return Order::new();
    }
    let around = || addresses.clone().cycle().skip(first % count).take(count);
    let Some(leader) = around().next() else {
        return Order::new();
    };
    let same = around().filter(|address| address.ip.is_ipv4() == leader.ip.is_ipv4());
    let mut other = around().filter(|address| address.ip.is_ipv4() != leader.ip.is_ipv4());
    let mut order = Order::new();
    for address in same {
        order.push(address);
        order.extend(other.next());
    }
    order.extend(other);
    order
}

/// How connections are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// What the kernel is told.
    pub tcp: rt::TcpOptions,
    /// The address from which IPv4 addresses are connected to; `None`: by the routing table.
    pub source_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<Ipv6Addr>,
}

/// Attempts at connecting to a target's addresses.
pub struct Race {
    addresses: Order,
    port: u16,
    /// The next address to be tried.
    next: usize,
    running: SmallVec<[Attempt; 2]>,
    delay: Duration,
    how: How,
    timer: rt::Timer,
    deadline: rt::Timer,
}

struct Attempt {
    address: Address,
    future: Pin<Box<dyn Future<Output = io::Result<rt::Stream>>>>,
}

/// What a race has come to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would be one more for each connection"
)]
pub enum Event {
    /// A connection is there. Those that ran before it had more time and were slower: `slower`.
    Connected(Address, rt::Stream, Order),
    /// An attempt failed. Others go on or follow.
    Failed(Address, io::Error),
    /// Nothing is left to be tried.
    Lost,
    /// The time is over for these.
    TimedOut(Order),
}

impl Race {
    /// Nothing has begun yet; the time of all attempts together ends at `deadline`.
    pub fn new(addresses: Order, port: u16, delay: Duration, deadline: Instant, how: How) -> Self {
        let mut timer = rt::Timer::new();
        timer.set(deadline);
        Self {
            addresses,
            port,
            next: 0,
            running: SmallVec::new(),
            delay,
            how,
            timer: rt::Timer::new(),
            deadline: timer,
        }
    }

    /// Goes on to the next event. After a connection that was of no use it may be asked again.
    pub async fn event(&mut self) -> Event {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            for at in 0..self.running.len() {
                let Poll::Ready(result) = self.running[at].future.as_mut().poll(cx) else {
                    continue;
                };
                let ended = self.running.remove(at).address;
                return Poll::Ready(match result {
                    Ok(stream) => {
                        let slower = self.running[..at].iter().map(|attempt| attempt.address);
                        Event::Connected(ended, stream, slower.collect())
                    }
                    Err(error) => {
                        // Whoever comes next need not wait.
                        self.timer.clear();
                        Event::Failed(ended, error)
                    }
                });
            }
            if self.deadline.poll_elapsed(cx).is_ready() {
                let late = self.running.drain(..).map(|attempt| attempt.address);
                return Poll::Ready(Event::TimedOut(late.collect()));
            }
            let waits = !self.running.is_empty() && self.timer.deadline().is_some();
            match self.addresses.get(self.next).copied() {
                None if self.running.is_empty() => return Poll::Ready(Event::Lost),
                None => return Poll::Pending,
                Some(_) if waits && self.timer.poll_elapsed(cx).is_pending() => return Poll::Pending,
                Some(address) => self.begin(address),
            }
        }
    }

    fn begin(&mut self, address: Address) {
        let peer = SocketAddr::new(address.ip, self.port);
        let source: Option<IpAddr> = match address.ip {
            IpAddr::V4(_) => self.how.source_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.how.source_v6.map(IpAddr::V6),
        };
        let options = rt::ConnectOptions {
            tcp: self.how.tcp,
            local: source.map(|source| SocketAddr::new(source, 0)),
            interface: None,
        };
        self.running.push(Attempt {
            address,
            future: Box::pin(async move { rt::Stream::connect(peer, &options).await }),
        });
        self.next += 1;
        self.timer.set_after(self.delay);
    }
}

impl fmt::Debug for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race")
            .field("addresses", &self.addresses)
            .field("next", &self.next)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn address(text: &str) -> Address {
        Address {
            ip: text.parse().unwrap(),
            place: None,
        }
    }

    fn shown(order: &Order) -> Vec<String> {
        order.iter().map(|address| address.ip.to_string()).collect()
    }

    /// RFC 8305 section 4.
    #[test]
    fn families_take_turns() {
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1", "::2"].map(address);
        let of = |first| shown(&order(all.iter().copied(), first));
        assert_eq!(of(0), ["10.0.0.1", "::1", "10.0.0.2", "::2", "10.0.0.3"]);
        assert_eq!(of(2), ["10.0.0.3", "::1", "10.0.0.1", "::2", "10.0.0.2"]);
        assert_eq!(of(4), ["::2", "10.0.0.1", "::1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(of(7), of(2));
        assert!(order(std::iter::empty(), 3).is_empty());
    }

    /// A port of which 127.0.0.1 answers, 127.0.0.2 refuses, and 127.0.0.3 never answers: its queue is full.
    struct Hosts {
        port: u16,
        _open: TcpListener,
        _silent: socket2::Socket,
        _filling: Vec<TcpStream>,
    }

    impl Hosts {
        fn new() -> Self {
            let open = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = open.local_addr().unwrap().port();
            let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let here = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 3), port));
            silent.bind(&here.into()).unwrap();
            silent.listen(0).unwrap();
            let filling =
                std::iter::from_fn(|| TcpStream::connect_timeout(&here, Duration::from_millis(300)).ok());
            Self {
                port,
                _open: open,
                _filling: filling.take(64).collect(),
                _silent: silent,
            }
        }
    }

    /// Runs a race on each driver and returns what happened until it was over.
    fn race(delay: Duration, limit: Duration, addresses: &[&str]) -> Vec<String> {
        let hosts = Hosts::new();
        let port = hosts.port;
        let addresses: Order = addresses.iter().map(|text| address(text)).collect();
        let mut told = Vec::new();
        for choice in [rt::DriverChoice::Epoll, rt::DriverChoice::Auto] {
            let addresses = addresses.clone();
            let kind = rt::probe(choice).unwrap();
            let events = rt::run(rt::RuntimeOptions::new(kind), async move {
                let mut race = Race::new(addresses, port, delay, rt::now() + limit, How::default());
                let mut events = Vec::new();
                loop {
                    match race.event().await {
                        Event::Connected(address, _, slower) => {
                            events.push(format!("{} before {}", address.ip, shown(&slower).join(" ")));
                            return events;
                        }
                        Event::Failed(address, error) => {
                            events.push(format!("{} {:?}", address.ip, error.kind()));
                        }
                        Event::Lost => {
                            events.push("lost".into());
                            return events;
                        }
                        Event::TimedOut(late) => {
                            events.push(format!("late {}", shown(&late).join(" ")));
                            return events;
                        }
                    }
                }
            })
            .unwrap();
            if !told.is_empty() {
                assert_eq!(told, events, "the drivers differ");
            }
            told = events;
        }
        told
    }

    const LONG: Duration = Duration::from_secs(60);

    /// RFC 8305 section 5, D11.
    #[test]
    fn a_silent_address_costs_the_delay_alone() {
        let delay = Duration::from_millis(20);
        assert_eq!(
            race(delay, LONG, &["127.0.0.3", "127.0.0.1"]),
            ["127.0.0.1 before 127.0.0.3"]
        );
    }

    /// RFC 8305 section 5: a failure begins the next attempt at once. The delay is longer than the test's patience.
    #[test]
    fn a_refusal_begins_the_next_attempt() {
        assert_eq!(
            race(LONG, LONG, &["127.0.0.2", "127.0.0.1"]),
            ["127.0.0.2 ConnectionRefused", "127.0.0.1 before "]
        );
        assert_eq!(
            race(LONG, LONG, &["127.0.0.2", "127.0.0.2"]),
            [
                "127.0.0.2 ConnectionRefused",
                "127.0.0.2 ConnectionRefused",
                "lost"
            ]
        );
    }

    /// D15: all attempts together have the time for connecting.
    #[test]
    fn the_deadline_ends_all_attempts() {
        let short = Duration::from_millis(10);
        assert_eq!(
            race(short, 10 * short, &["127.0.0.3", "127.0.0.3"]),
            ["late 127.0.0.3 127.0.0.3"]
        );
    }
}
