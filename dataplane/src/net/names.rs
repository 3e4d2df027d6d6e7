//! The addresses of one target, as one shard knows them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_plan::integration::Host;
use tidegate_rt as rt;
use tidegate_rt::Instant;

use super::dns::{Dns, Resolved};
use super::health::Health;
use super::race::Address;

/// A target's name and where it leads.
#[derive(Debug)]
pub struct Names {
    name: Arc<str>,
    known: RefCell<Known>,
}

#[derive(Debug)]
enum Known {
    /// The target is an address.
    Literal(Rc<[Address]>),
    /// The target is a name; addresses as last resolved, and until when.
    Named {
        addresses: Rc<[Address]>,
        until: Option<Instant>,
        asked: Option<Instant>,
        waiters: Vec<Waker>,
    },
}

/// The name has no address, or nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl Names {
    /// Of a target, not yet resolved.
    pub fn new(host: &Host) -> Self {
        let known = match host {
            Host::Address(ip) => Known::Literal(Rc::new([Address { ip: *ip, place: None }])),
            Host::Name(_) => Known::Named {
                addresses: Rc::new([]),
                until: None,
                asked: None,
                waiters: Vec::new(),
            },
        };
        Self {
            name: host.to_string().into(),
            known: RefCell::new(known),
        }
    }

    /// The name that [`Resolved`] answers carry.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The resolver answered. At most `most` of its addresses are used.
    pub fn resolved(&self, answer: &Resolved, health: &Health, most: usize) {
        let mut known = self.known.borrow_mut();
        let Known::Named {
            addresses,
            until,
            asked,
            waiters,
        } = &mut *known
        else {
            return;
        };
        let used: &[IpAddr] = &answer.addresses[..answer.addresses.len().min(most)];
        if !used.iter().eq(addresses.iter().map(|address| &address.ip)) {
            let places = health.place(used);
            let placed = used.iter().zip(places);
            *addresses = placed.map(|(&ip, place)| Address { ip, place }).collect();
        }
        *until = Some(rt::now() + answer.ttl);
        *asked = None;
        let woken = std::mem::take(waiters);
        drop(known);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The addresses; asks the resolver when they are unknown, and, without waiting, when they ran out. An answer may
    /// be lost where the mailbox is full: it is asked again after `patience`.
    pub async fn addresses(
        &self,
        dns: &Dns,
        shard: usize,
        patience: Duration,
    ) -> Result<Rc<[Address]>, Unknown> {
        poll_fn(|cx| {
            let mut known = self.known.borrow_mut();
            let (addresses, until, asked, waiters) = match &mut *known {
                Known::Literal(address) => return Poll::Ready(Ok(Rc::clone(address))),
                Known::Named {
                    addresses,
                    until,
                    asked,
                    waiters,
                } => (addresses, until, asked, waiters),
            };
            let now = rt::now();
            let current = until.is_some_and(|until| until > now);
            if !current && asked.is_none_or(|at| now.saturating_duration_since(at) >= patience) {
                if dns.ask(Arc::clone(&self.name), shard) {
                    *asked = Some(now);
                } else if addresses.is_empty() {
                    return Poll::Ready(Err(Unknown));
                }
            }
            match (addresses.is_empty(), current) {
                (false, _) => Poll::Ready(Ok(Rc::clone(addresses))),
                (true, true) => Poll::Ready(Err(Unknown)),
                (true, false) => {
                    waiters.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}
