//! Names of upstream hosts, resolved away from the shards.
//!
//! One helper thread holds the node's only cache: single flight a name, bounded, times to live held between 1 and
//! 300 seconds by default, the last good answer served when the servers fail (decision D11). A shard asks by message, gets
//! [`Resolved`] by mail, and keeps the answer with the upstream until it runs out; the request path never waits for a
//! name that it has seen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use tidegate_plan::{Limit, Limits};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::shard::mail::{Mailboxes, ShardMessage};

/// Bounds of the resolver, from the table of limits.
#[derive(Debug, Clone, Copy)]
pub struct DnsLimits {
    /// Shortest time that an answer is used for, whatever the server says.
    pub ttl_min: Duration,
    /// Longest time that an answer is used for.
    pub ttl_max: Duration,
    /// How long a failure is remembered, and a stale answer served before the servers are asked again.
    pub failure_ttl: Duration,
    /// How old a stale answer may be before a failure is reported instead.
    pub stale: Duration,
    /// One look-up, its repetition included.
    pub timeout: Duration,
    /// Names kept. Over the bound, the one unused for longest goes.
    pub names: usize,
    /// Queries that wait for the helper; over the bound a query is refused, and the request that caused it fails.
    pub queries: usize,
}

impl DnsLimits {
    /// The rows in force.
    pub fn new(limits: &Limits) -> Self {
        let ttl_min = limits.duration(Limit::DnsTtlMin);
        Self {
            ttl_min,
            ttl_max: limits.duration(Limit::DnsTtlMax).max(ttl_min),
            failure_ttl: limits.duration(Limit::DnsFailureTtl),
            stale: limits.duration(Limit::DnsStaleTime),
            timeout: limits.duration(Limit::DnsTimeout),
            names: limits.count(Limit::DnsCacheEntries),
            queries: limits.count(Limit::DnsQueries),
        }
    }
}

/// How often a server is asked within the time of one look-up.
const ATTEMPTS: u32 = 2;

/// The addresses of a name, as mailed to a shard.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The name, as asked.
    pub host: Arc<str>,
    /// All its addresses in the server's order; empty when it has none or cannot be resolved.
    pub addresses: Arc<[IpAddr]>,
    /// How long to use them.
    pub ttl: Duration,
}

/// The way to the resolver thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dns {
    queries: mpsc::Sender<Query>,
}

/// All addresses of a name and how long they hold; `None`: none could be had.
type Answer = Option<(Vec<IpAddr>, Duration)>;

#[derive(Debug)]
struct Query {
    host: Arc<str>,
    shard: usize,
}

impl Dns {
    /// A resolver and its helper thread's work, to be run on a thread of its own with [`Worker::run`].
    pub fn new(limits: DnsLimits) -> (Self, Worker) {
        let (queries, receiver) = mpsc::channel(limits.queries);
        let worker = Worker {
            queries: receiver,
            limits,
        };
        (Self { queries }, worker)
    }

    /// Asks for the addresses of `host`, to be mailed to `shard`. `false` when too many queries wait.
    pub fn ask(&self, host: Arc<str>, shard: usize) -> bool {
        self.queries.try_send(Query { host, shard }).is_ok()
    }
}

/// The resolver thread's side.
#[derive(Debug)]
pub struct Worker {
    queries: mpsc::Receiver<Query>,
    limits: DnsLimits,
}

struct Entry {
    addresses: Arc<[IpAddr]>,
    fetched: Instant,
    valid_until: Instant,
    used: Instant,
    /// Shards that wait for the query in flight; `None` when none is.
    waiting: Option<Vec<usize>>,
}

impl Worker {
    /// Answers queries until every [`Dns`] is gone. Blocks the calling thread.
    ///
    /// # Errors
    /// When the thread's event loop cannot be built.
    pub fn run(self, mailboxes: &Mailboxes) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.serve(mailboxes));
        Ok(())
    }

    async fn serve(mut self, mailboxes: &Mailboxes) {
        let limits = self.limits;
        let resolver = system_resolver(&limits);
        let mut names: HashMap<Arc<str>, Entry> = HashMap::new();
        let mut flights: JoinSet<(Arc<str>, Answer)> = JoinSet::new();
        loop {
            tokio::select! {
                query = self.queries.recv() => {
                    let Some(Query { host, shard }) = query else { return };
                    if let Some(flight) = ask(&mut names, host, shard, &limits, mailboxes) {
                        let resolver = resolver.clone();
                        flights.spawn(async move {
                            let answer = lookup(resolver.as_ref(), &flight, &limits).await;
                            (flight, answer)
                        });
                    }
                }
                Some(Ok((host, answer))) = flights.join_next(), if !flights.is_empty() => {
                    settle(&mut names, host, answer, &limits, mailboxes);
                }
            }
        }
    }
}

/// Answers from the cache, joins the query in flight, or returns the name that must be asked for.
fn ask(
    names: &mut HashMap<Arc<str>, Entry>,
    host: Arc<str>,
    shard: usize,
    limits: &DnsLimits,
    mail: &Mailboxes,
) -> Option<Arc<str>> {
    let now = Instant::now();
    if let Some(entry) = names.get_mut(&host) {
        entry.used = now;
        if let Some(waiting) = &mut entry.waiting {
            if !waiting.contains(&shard) {
                waiting.push(shard);
            }
            return None;
        }
        if entry.valid_until > now {
            let ttl = entry.valid_until - now;
            mail.send(
                shard,
                ShardMessage::Resolved(Resolved {
                    host,
                    addresses: entry.addresses.clone(),
                    ttl,
                }),
            );
            return None;
        }
        entry.waiting = Some(vec![shard]);
        return Some(host);
    }
    if names.len() >= limits.names
        && let Some(oldest) = names
            .iter()
            .filter(|(_, e)| e.waiting.is_none())
            .min_by_key(|(_, e)| e.used)
            .map(|(name, _)| name.clone())
    {
        names.remove(&oldest);
    }
    let entry = Entry {
        addresses: Arc::new([]),
        fetched: now,
        valid_until: now,
        used: now,
        waiting: Some(vec![shard]),
    };
    names.insert(host.clone(), entry);
    Some(host)
}

/// Takes the servers' answer in and mails it to whoever waits.
fn settle(
    names: &mut HashMap<Arc<str>, Entry>,
    host: Arc<str>,
    answer: Answer,
    limits: &DnsLimits,
    mail: &Mailboxes,
) {
    let now = Instant::now();
    let Some(entry) = names.get_mut(&host) else { return };
    match answer {
        Some((addresses, ttl)) if !addresses.is_empty() => {
            entry.addresses = addresses.into();
            entry.fetched = now;
            entry.valid_until = now + ttl.clamp(limits.ttl_min, limits.ttl_max);
        }
        _ => {
            if now.duration_since(entry.fetched) > limits.stale {
                entry.addresses = Arc::new([]);
            }
            entry.valid_until = now + limits.failure_ttl;
        }
    }
    let ttl = entry.valid_until - now;
    for shard in entry.waiting.take().unwrap_or_default() {
        let message = Resolved {
            host: host.clone(),
            addresses: entry.addresses.clone(),
            ttl,
        };
        mail.send(shard, ShardMessage::Resolved(message));
    }
}

/// The system's servers and hosts file. `None`: the system names no servers; then only the hosts file's usual names
/// resolve.
fn system_resolver(limits: &DnsLimits) -> Option<TokioResolver> {
    let mut builder = match TokioResolver::builder_tokio() {
        Ok(builder) => builder,
        Err(error) => {
            tracing::warn!(%error, "the system's DNS settings cannot be read; upstream names other than localhost fail");
            return None;
        }
    };
    let options = builder.options_mut();
    // The cache is ours: it serves stale answers, which the resolver's does not.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    options.timeout = limits.timeout / ATTEMPTS;
    options.attempts = ATTEMPTS as usize;
    builder
        .build()
        .map_err(|error| tracing::warn!(%error, "the DNS resolver cannot be built"))
        .ok()
}

async fn lookup(resolver: Option<&TokioResolver>, host: &str, limits: &DnsLimits) -> Answer {
    // RFC 6761: these names never leave the machine.
    if host == "localhost" || host.ends_with(".localhost") {
        return Some((
            vec![
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ],
            limits.ttl_max,
        ));
    }
    // A trailing dot makes the name absolute: search domains are not for upstream names with a dot in them.
    let absolute = if host.contains('.') && !host.ends_with('.') {
        format!("{host}.")
    } else {
        host.to_owned()
    };
    // The resolver's own time-out is one server's.
    let answer = tokio::time::timeout(limits.timeout, resolver?.lookup_ip(absolute)).await;
    let Ok(answer) = answer else {
        tracing::debug!(host, "upstream name not resolved in time");
        return None;
    };
    match answer {
        Ok(answer) => {
            let ttl = answer.valid_until().saturating_duration_since(Instant::now());
            Some((answer.iter().collect(), ttl))
        }
        Err(error) => {
            tracing::debug!(host, %error, "upstream name not resolved");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_mail() -> Mailboxes {
        Mailboxes::new(Vec::new())
    }

    fn limits() -> DnsLimits {
        DnsLimits::new(&Limits::default())
    }

    #[test]
    fn one_query_is_in_flight_for_a_name() {
        let mut names = HashMap::new();
        let host: Arc<str> = "backend.example".into();
        assert!(ask(&mut names, host.clone(), 0, &limits(), &no_mail()).is_some());
        assert!(ask(&mut names, host.clone(), 1, &limits(), &no_mail()).is_none());
        assert_eq!(names[&host].waiting.as_deref(), Some(&[0, 1][..]));
        settle(
            &mut names,
            host.clone(),
            Some((vec![IpAddr::from([10, 0, 0, 1])], Duration::ZERO)),
            &limits(),
            &no_mail(),
        );
        assert!(
            names[&host].valid_until > Instant::now(),
            "a time to live of zero is raised to the lower bound"
        );
        assert!(
            ask(&mut names, host, 0, &limits(), &no_mail()).is_none(),
            "answered from the cache"
        );
    }

    #[test]
    fn a_failure_serves_the_last_good_answer() {
        let mut names = HashMap::new();
        let host: Arc<str> = "backend.example".into();
        ask(&mut names, host.clone(), 0, &limits(), &no_mail());
        settle(
            &mut names,
            host.clone(),
            Some((vec![IpAddr::from([10, 0, 0, 1])], Duration::ZERO)),
            &limits(),
            &no_mail(),
        );
        names.get_mut(&host).unwrap().valid_until = Instant::now();
        assert!(ask(&mut names, host.clone(), 0, &limits(), &no_mail()).is_some());
        settle(&mut names, host.clone(), None, &limits(), &no_mail());
        assert_eq!(names[&host].addresses.len(), 1);
    }

    #[test]
    fn names_are_bounded() {
        let mut names = HashMap::new();
        let limits = DnsLimits {
            names: 20,
            ..limits()
        };
        for i in 0..limits.names + 5 {
            let host: Arc<str> = format!("h{i}.example").into();
            ask(&mut names, host.clone(), 0, &limits, &no_mail());
            settle(&mut names, host, None, &limits, &no_mail());
        }
        assert_eq!(names.len(), limits.names);
    }
}
