//! The node's listening sockets: bound, inherited from systemd, or taken over from the process before (D17).
//!
//! The node keeps a copy of each beside those that its shards accept from, so that it can hand them over. A socket is never
//! bound again while it serves: connections wait in its queue, whichever process accepts them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tidegate_plan::{Limit, Limits};
use tidegate_rt as rt;

use crate::node::{Error, Options};
use crate::shard::Protocol;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Plain HTTP.
    Http,
    /// HTTPS.
    Https,
    /// Metrics and health.
    Metrics,
}

/// The node's sockets, in the order in which they were bound. Cheap to share.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Mutex<Vec<(Role, TcpListener)>>,
}

// === impl Role ===

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Metrics];

    /// Its flag, and its name among the sockets of systemd (`FileDescriptorName=`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Metrics => "metrics",
        }
    }

    fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Http => Some(Protocol::Http),
            Self::Https => Some(Protocol::Https),
            Self::Metrics => None,
        }
    }

    /// The address that is set for it.
    fn wanted(self, options: &Options) -> Option<SocketAddr> {
        match self {
            Self::Http => options.http,
            Self::Https => options.https,
            Self::Metrics => options.metrics,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Sockets ===

impl Sockets {
    /// Binds one socket a shard for HTTP and HTTPS, and one for metrics; what `inherited` holds is not bound.
    ///
    /// # Errors
    /// When an address cannot be had, or nothing is to be served.
    pub fn bind(
        options: &Options,
        inherited: Vec<(Role, TcpListener)>,
        shards: usize,
    ) -> Result<Self, Error> {
        let mut held = inherited;
        for role in Role::ALL {
            let Some(address) = role.wanted(options) else {
                continue;
            };
            if held.iter().any(|(known, _)| *known == role) {
                continue;
            }
            let count = if role == Role::Metrics { 1 } else { shards };
            let bound = bind(address, count, listening(&options.limits)).map_err(|source| Error::Listen {
                address,
                purpose: role.name(),
                source,
            })?;
            held.extend(bound.into_iter().map(|socket| (role, socket)));
        }
        if !held.iter().any(|(role, _)| role.protocol().is_some()) {
            return Err(Error::NothingToServe);
        }
        let sockets = Self {
            held: Mutex::new(held),
        };
        sockets.tune(options);
        Ok(sockets)
    }

    /// Tells the kernel about sockets that another process has made.
    fn tune(&self, options: &Options) {
        let listening = listening(&options.limits);
        for (role, socket) in &*self.held() {
            if let Err(error) = listening.apply(socket) {
                tracing::warn!(%role, %error, "an option of a listening socket cannot be set");
            }
        }
    }

    /// Sockets that another process has bound. Each must be a TCP socket that listens.
    pub fn adopt(sockets: Vec<(Role, OwnedFd)>) -> io::Result<Vec<(Role, TcpListener)>> {
        sockets
            .into_iter()
            .map(|(role, socket)| {
                let reference = SockRef::from(&socket);
                let is_tcp = reference.r#type()? == socket2::Type::STREAM
                    && matches!(reference.domain()?, socket2::Domain::IPV4 | socket2::Domain::IPV6);
                if !is_tcp || !reference.is_listener()? {
                    return Err(io::Error::other(format!(
                        "the socket for {role} is no listening TCP socket"
                    )));
                }
                Ok((role, TcpListener::from(socket)))
            })
            .collect()
    }

    /// Where a role answers, if it does.
    pub fn address(&self, role: Role) -> Option<SocketAddr> {
        let held = self.held();
        let socket = &held.iter().find(|(known, _)| *known == role)?.1;
        socket.local_addr().ok()
    }

    /// The sockets of the process before; none is bound.
    ///
    /// # Errors
    /// When an address is to be another one than they have; for people.
    pub fn taken_over(options: &Options, held: Vec<(Role, TcpListener)>) -> Result<Self, String> {
        let sockets = Self {
            held: Mutex::new(held),
        };
        match sockets.mismatch(options) {
            None => {
                sockets.tune(options);
                Ok(sockets)
            }
            Some(mismatch) => Err(mismatch),
        }
    }

    fn mismatch(&self, options: &Options) -> Option<String> {
        Role::ALL.into_iter().find_map(|role| {
            let (wanted, has) = (role.wanted(options), self.address(role));
            let matches = match (wanted, has) {
                (Some(wanted), Some(has)) => {
                    wanted.ip() == has.ip() && (wanted.port() == 0 || wanted.port() == has.port())
                }
                (None, None) => true,
                _ => false,
            };
            let show = |address: Option<SocketAddr>| {
                address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
            };
            (!matches).then(|| {
                format!(
                    "{role} is set to {} and the running data plane listens on {}; an upgrade keeps its addresses: \
                     restart it to change them",
                    show(wanted),
                    show(has)
                )
            })
        })
    }

    /// Copies of the sockets that shards accept from, by shard. Where there are fewer sockets than shards, several accept
    /// from one; where there are more, a shard accepts from several, so that none is left without anyone.
    pub fn assign(&self, shards: usize) -> io::Result<Vec<Vec<(TcpListener, Protocol)>>> {
        let held = self.held();
        let mut assigned: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
        for role in Role::ALL {
            let Some(protocol) = role.protocol() else { continue };
            let sockets: Vec<_> = held.iter().filter(|(known, _)| *known == role).collect();
            if sockets.is_empty() {
                continue;
            }
            for place in 0..sockets.len().max(shards) {
                let socket = sockets[place % sockets.len()].1.try_clone()?;
                assigned[place % shards].push((socket, protocol));
            }
        }
        Ok(assigned)
    }

    /// Copies of all of them.
    pub fn copies(&self) -> io::Result<Vec<(Role, TcpListener)>> {
        self.held()
            .iter()
            .map(|(role, socket)| Ok((*role, socket.try_clone()?)))
            .collect()
    }

    /// A copy of a role's first socket.
    pub fn copy(&self, role: Role) -> io::Result<Option<TcpListener>> {
        self.held()
            .iter()
            .find(|(known, _)| *known == role)
            .map(|(_, socket)| socket.try_clone())
            .transpose()
    }

    /// Closes this process's copies. Whoever else holds one goes on listening.
    pub fn close(&self) {
        self.held().clear();
    }

    fn held(&self) -> MutexGuard<'_, Vec<(Role, TcpListener)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How sockets listen. Accepted connections inherit what it says of them, so that accepting costs no further calls.
fn listening(limits: &Limits) -> rt::ListenOptions {
    let some = |limit| Some(limits.duration(limit)).filter(|time| !time.is_zero());
    rt::ListenOptions {
        reuse_port: false,
        backlog: i32::try_from(limits.get(Limit::ListenBacklog)).unwrap_or(i32::MAX),
        defer_accept: some(Limit::DeferAccept),
        fast_open: u32::try_from(limits.get(Limit::FastOpen)).unwrap_or(u32::MAX),
        tcp: tcp(limits, Limit::ClientKeepaliveIdle, Limit::ClientUserTimeout),
    }
}

/// How connections to backends behave.
pub(crate) fn towards_backends(limits: &Limits) -> rt::TcpOptions {
    tcp(limits, Limit::UpstreamKeepaliveIdle, Limit::UpstreamUserTimeout)
}

fn tcp(limits: &Limits, keepalive_idle: Limit, user_timeout: Limit) -> rt::TcpOptions {
    let some = |limit| Some(limits.duration(limit)).filter(|time| !time.is_zero());
    rt::TcpOptions {
        nodelay: limits.get(Limit::TcpNodelay) == 1,
        keepalive: some(keepalive_idle).map(|idle| rt::Keepalive {
            // The kernel takes whole seconds, and one at least.
            idle: idle.max(Duration::from_secs(1)),
            interval: limits.duration(Limit::KeepaliveInterval),
            retries: u32::try_from(limits.get(Limit::KeepaliveProbes)).unwrap_or(u32::MAX),
        }),
        user_timeout: some(user_timeout),
        receive_buffer: limits.count(Limit::SocketReceiveBytes),
        send_buffer: limits.count(Limit::SocketSendBytes),
        unsent_low_water: u32::try_from(limits.get(Limit::SocketUnsentBytes)).unwrap_or(u32::MAX),
    }
}

/// So many sockets on one address; the port is chosen once.
fn bind(wanted: SocketAddr, count: usize, listening: rt::ListenOptions) -> io::Result<Vec<TcpListener>> {
    // A socket without SO_REUSEPORT finds out whether another process holds the port: sharing it would steal from both.
    if wanted.port() != 0 {
        drop(rt::listen(wanted, &rt::ListenOptions::default())?);
    }
    let options = rt::ListenOptions {
        reuse_port: count > 1,
        ..listening
    };
    let mut bound = wanted;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = rt::listen(bound, &options)?;
        bound = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(http: usize) -> Sockets {
        let listening = listening(&Limits::default());
        let bound = bind("127.0.0.1:0".parse().unwrap(), http, listening).unwrap();
        Sockets {
            held: Mutex::new(bound.into_iter().map(|socket| (Role::Http, socket)).collect()),
        }
    }

    /// D17: with any number of shards every socket is accepted from, and every shard accepts.
    #[test]
    fn every_socket_has_a_shard_and_every_shard_a_socket() {
        for count in 1..=5 {
            let sockets = sockets(count);
            for shards in 1..=5 {
                let assigned = sockets.assign(shards).unwrap();
                assert!(assigned.iter().all(|own| !own.is_empty()), "{count} for {shards}");
                let total: usize = assigned.iter().map(Vec::len).sum();
                assert_eq!(total, count.max(shards));
            }
        }
    }

    /// Each row of the table comes out where it belongs; zeros leave it to the kernel.
    #[test]
    fn options_come_from_the_table() {
        let mut limits = Limits::default();
        for (name, value) in [
            ("listen-backlog", "11"),
            ("defer-accept", "12s"),
            ("fast-open", "13"),
            ("tcp-nodelay", "0"),
            ("client-keepalive-idle", "14s"),
            ("client-user-timeout", "15s"),
            ("upstream-keepalive-idle", "16s"),
            ("upstream-user-timeout", "17s"),
            ("keepalive-interval", "18s"),
            ("keepalive-probes", "19"),
            ("socket-receive-bytes", "20000"),
            ("socket-send-bytes", "21000"),
            ("socket-unsent-bytes", "22000"),
        ] {
            limits.set(name, value).unwrap();
        }
        let seconds = Duration::from_secs;
        let expected = |idle, user_timeout| rt::TcpOptions {
            nodelay: false,
            keepalive: Some(rt::Keepalive {
                idle: seconds(idle),
                interval: seconds(18),
                retries: 19,
            }),
            user_timeout: Some(seconds(user_timeout)),
            receive_buffer: 20_000,
            send_buffer: 21_000,
            unsent_low_water: 22_000,
        };
        let options = listening(&limits);
        assert_eq!((options.backlog, options.defer_accept), (11, Some(seconds(12))));
        assert_eq!((options.fast_open, options.tcp), (13, expected(14, 15)));
        assert_eq!(towards_backends(&limits), expected(16, 17));

        let options = listening(&Limits::default());
        let plain = rt::TcpOptions::default();
        assert_eq!(
            (options.backlog, options.defer_accept, options.fast_open),
            (4096, None, 0)
        );
        assert!(options.tcp.keepalive.is_some());
        assert_eq!(
            rt::TcpOptions {
                keepalive: None,
                ..options.tcp
            },
            plain
        );
        assert_eq!(towards_backends(&Limits::default()), plain);
    }

    /// D17: sockets that systemd or the process before has made get the options, too.
    #[test]
    fn inherited_sockets_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = Options::new("unused");
        options.limits.set("client-keepalive-idle", "123s").unwrap();
        options.http = Some(listener.local_addr().unwrap());
        let copy = listener.try_clone().unwrap();
        for held in [
            Sockets::bind(&options, vec![(Role::Http, listener)], 1).unwrap(),
            Sockets::taken_over(&options, vec![(Role::Http, copy)]).unwrap(),
        ] {
            let address = held.address(Role::Http).unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let (accepted, _) = held.copy(Role::Http).unwrap().unwrap().accept().unwrap();
            let accepted = SockRef::from(&accepted);
            assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
            assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(123));
        }
    }

    #[test]
    fn what_does_not_listen_is_not_adopted() {
        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for socket in [OwnedFd::from(unbound), datagrams.into(), file.into()] {
            assert!(Sockets::adopt(vec![(Role::Http, socket)]).is_err());
        }
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            Sockets::adopt(vec![(Role::Https, listening.into())])
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn another_address_is_a_mismatch() {
        let sockets = sockets(2);
        let address = sockets.address(Role::Http).unwrap();
        let mut options = Options::new("unused");
        options.https = None;
        for (wanted, fits) in [
            (Some(address), true),
            (Some("127.0.0.1:0".parse().unwrap()), true),
            (Some("0.0.0.0:0".parse().unwrap()), false),
            (Some("127.0.0.1:1".parse().unwrap()), false),
            (None, false),
        ] {
            options.http = wanted;
            let mismatch = sockets.mismatch(&options);
            assert_eq!(mismatch.is_none(), fits, "{wanted:?}: {mismatch:?}");
        }
    }
}
