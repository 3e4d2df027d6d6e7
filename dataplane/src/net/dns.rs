//! Names of upstream hosts, resolved away from the shards.
//!
//! One helper thread holds the node's only cache: single flight a name, bounded, times to live held between 1 and
//! 300 seconds, the last good answer served when the servers fail (decision D11). A shard asks by message, gets
//! [`Resolved`] by mail, and keeps the answer with the upstream until it runs out; the request path never waits for a
//! name that it has seen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::shard::mail::{Mailboxes, ShardMessage};

/// Shortest and longest time that an answer is used for, whatever the server says.
pub const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How long a failure is remembered, and how long a stale answer is served before the servers are asked again.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// How old a stale answer may be before a failure is reported instead.
const STALE_BOUND: Duration = Duration::from_secs(3600);
/// Names kept. Over the bound, the one unused for longest goes.
const MAX_NAMES: usize = 10_000;
/// Queries that wait for the helper; over the bound a query is refused, and the request that caused it fails.
const MAX_QUEUED: usize = 4_096;

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
    pub fn new() -> (Self, Worker) {
        let (queries, receiver) = mpsc::channel(MAX_QUEUED);
        (Self { queries }, Worker { queries: receiver })
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
        let resolver = system_resolver();
        let mut names: HashMap<Arc<str>, Entry> = HashMap::new();
        let mut flights: JoinSet<(Arc<str>, Answer)> = JoinSet::new();
        loop {
            tokio::select! {
                query = self.queries.recv() => {
                    let Some(Query { host, shard }) = query else { return };
                    if let Some(flight) = ask(&mut names, host, shard, mailboxes) {
                        let resolver = resolver.clone();
                        flights.spawn(async move {
                            let answer = lookup(resolver.as_ref(), &flight).await;
                            (flight, answer)
                        });
                    }
                }
                Some(Ok((host, answer))) = flights.join_next(), if !flights.is_empty() => {
                    settle(&mut names, host, answer, mailboxes);
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
    if names.len() >= MAX_NAMES
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
fn settle(names: &mut HashMap<Arc<str>, Entry>, host: Arc<str>, answer: Answer, mail: &Mailboxes) {
    let now = Instant::now();
    let Some(entry) = names.get_mut(&host) else { return };
    match answer {
        Some((addresses, ttl)) if !addresses.is_empty() => {
            entry.addresses = addresses.into();
            entry.fetched = now;
            entry.valid_until = now + ttl.clamp(TTL_BOUNDS.0, TTL_BOUNDS.1);
        }
        _ => {
            if now.duration_since(entry.fetched) > STALE_BOUND {
                entry.addresses = Arc::new([]);
            }
            entry.valid_until = now + FAILURE_TTL;
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
fn system_resolver() -> Option<TokioResolver> {
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
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    builder
        .build()
        .map_err(|error| tracing::warn!(%error, "the DNS resolver cannot be built"))
        .ok()
}

async fn lookup(resolver: Option<&TokioResolver>, host: &str) -> Answer {
    // RFC 6761: these names never leave the machine.
    if host == "localhost" || host.ends_with(".localhost") {
        return Some((
            vec![
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ],
            TTL_BOUNDS.1,
        ));
    }
    // A trailing dot makes the name absolute: search domains are not for upstream names with a dot in them.
    let absolute = if host.contains('.') && !host.ends_with('.') {
        format!("{host}.")
    } else {
        host.to_owned()
    };
    match resolver?.lookup_ip(absolute).await {
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

    #[test]
    fn one_query_is_in_flight_for_a_name() {
        let mut names = HashMap::new();
        let host: Arc<str> = "backend.example".into();
        assert!(ask(&mut names, host.clone(), 0, &no_mail()).is_some());
        assert!(ask(&mut names, host.clone(), 1, &no_mail()).is_none());
        assert_eq!(names[&host].waiting.as_deref(), Some(&[0, 1][..]));
        settle(
            &mut names,
            host.clone(),
            Some((vec![IpAddr::from([10, 0, 0, 1])], Duration::ZERO)),
            &no_mail(),
        );
        assert!(
            names[&host].valid_until > Instant::now(),
            "a time to live of zero is raised to the lower bound"
        );
        assert!(
            ask(&mut names, host, 0, &no_mail()).is_none(),
            "answered from the cache"
        );
    }

    #[test]
    fn a_failure_serves_the_last_good_answer() {
        let mut names = HashMap::new();
        let host: Arc<str> = "backend.example".into();
        ask(&mut names, host.clone(), 0, &no_mail());
        settle(
            &mut names,
            host.clone(),
            Some((vec![IpAddr::from([10, 0, 0, 1])], Duration::ZERO)),
            &no_mail(),
        );
        names.get_mut(&host).unwrap().valid_until = Instant::now();
        assert!(ask(&mut names, host.clone(), 0, &no_mail()).is_some());
        settle(&mut names, host.clone(), None, &no_mail());
        assert_eq!(names[&host].addresses.len(), 1);
    }

    #[test]
    fn names_are_bounded() {
        let mut names = HashMap::new();
        for i in 0..MAX_NAMES + 5 {
            let host: Arc<str> = format!("h{i}.example").into();
            ask(&mut names, host.clone(), 0, &no_mail());
            settle(&mut names, host, None, &no_mail());
        }
        assert_eq!(names.len(), MAX_NAMES);
    }
}
