//! A bounded ring of byte records from one shard to the log's thread.
//!
//! The bytes travel in relaxed atomic words between two counters, which costs what plain stores cost and needs
//! no unsafe code.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::Thread;

use crossbeam::utils::CachePadded;

/// The shard's end.
#[derive(Debug)]
pub(in crate::telemetry) struct Producer {
    ring: Arc<Ring>,
    head: Cell<u64>,
    /// The consumer's position when last looked at.
    tail: Cell<u64>,
    waker: Arc<Waker>,
}

/// The log thread's end.
#[derive(Debug)]
pub(super) struct Consumer {
    ring: Arc<Ring>,
    tail: u64,
}

#[derive(Debug)]
struct Ring {
    words: Box<[AtomicU64]>,
    /// Words written.
    head: CachePadded<AtomicU64>,
    /// Words read.
    tail: CachePadded<AtomicU64>,
    /// Records that found no room. Written by the producer.
    dropped: CachePadded<AtomicU64>,
}

/// Wakes the log's thread, at the cost of one load where it is awake.
#[derive(Debug)]
pub(super) struct Waker {
    asleep: AtomicBool,
    thread: Thread,
}

/// A ring of at least `bytes`, rounded up to a power of two.
pub(super) fn channel(bytes: usize, waker: Arc<Waker>) -> (Producer, Consumer) {
    let words = bytes.div_ceil(8).next_power_of_two().max(64);
    let ring = Arc::new(Ring {
        words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        head: CachePadded::new(AtomicU64::new(0)),
        tail: CachePadded::new(AtomicU64::new(0)),
        dropped: CachePadded::new(AtomicU64::new(0)),
    });
    let producer = Producer {
        ring: Arc::clone(&ring),
        head: Cell::new(0),
        tail: Cell::new(0),
        waker,
    };
    (producer, Consumer { ring, tail: 0 })
}

impl Producer {
    /// Puts a record in, or drops and counts it.
    pub(in crate::telemetry) fn push(&self, record: &[u8]) -> bool {
        let ring = &*self.ring;
        let capacity = ring.words.len() as u64;
        let needed = 1 + record.len().div_ceil(8) as u64;
        let head = self.head.get();
        if capacity - (head - self.tail.get()) < needed {
            self.tail.set(ring.tail.load(Ordering::Acquire));
            if capacity - (head - self.tail.get()) < needed {
                super::super::histogram::bump(&ring.dropped, 1);
                return false;
            }
        }
        let mut position = head;
        let mut store = |word: u64| {
            ring.words[(position & (capacity - 1)) as usize].store(word, Ordering::Relaxed);
            position += 1;
        };
        store(record.len() as u64);
        let (whole, rest) = record.as_chunks::<8>();
        for word in whole {
            store(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            store(u64::from_le_bytes(last));
        }
        ring.head.store(position, Ordering::Release);
        self.head.set(position);
        self.waker.wake();
        true
    }
}

impl Consumer {
    /// How far the producer has come.
    pub(super) fn end(&self) -> u64 {
        self.ring.head.load(Ordering::Acquire)
    }

    /// Takes the next record out into `record`, which it replaces; false where none is left before `end`.
    pub(super) fn pop_before(&mut self, end: u64, record: &mut Vec<u8>) -> bool {
        if self.tail >= end {
            return false;
        }
        let ring = &*self.ring;
        let mask = ring.words.len() as u64 - 1;
        let word = |position: u64| ring.words[(position & mask) as usize].load(Ordering::Relaxed);
        let len = word(self.tail) as usize;
        let words = len.div_ceil(8) as u64;
        record.resize(words as usize * 8, 0);
        for (at, bytes) in (self.tail + 1..).zip(record.as_chunks_mut().0) {
            *bytes = word(at).to_le_bytes();
        }
        record.truncate(len);
        self.tail += 1 + words;
        ring.tail.store(self.tail, Ordering::Release);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end() == self.tail
    }

    /// Records that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.ring.dropped.load(Ordering::Relaxed)
    }
}

impl Waker {
    /// For the calling thread.
    pub(super) fn new(thread: Thread) -> Waker {
        Waker {
            asleep: AtomicBool::new(false),
            thread,
        }
    }

    /// Called after something was made visible to the thread.
    pub(super) fn wake(&self) {
        // Pairs with the fence in `park_unless`: either we see that it sleeps or it sees what we did.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.thread.unpark();
        }
    }

    /// Ends any sleep of the thread, also the one in which it waits for company.
    pub(super) fn wake_now(&self) {
        self.thread.unpark();
    }

    /// Sleeps until [`wake`](Self::wake), unless there is something to do already. May wake for no reason.
    pub(super) fn park_unless(&self, something_to_do: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !something_to_do() {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Consumer {
        fn pop(&mut self, record: &mut Vec<u8>) -> bool {
            self.pop_before(self.end(), record)
        }
    }

    fn ring(bytes: usize) -> (Producer, Consumer) {
        channel(bytes, Arc::new(Waker::new(std::thread::current())))
    }

    #[test]
    fn records_of_every_length_arrive_whole_and_in_order() {
        let (producer, mut consumer) = ring(512);
        let mut out = Vec::new();
        for round in 0..200_usize {
            let record: Vec<u8> = (0..round % 97).map(|byte| (byte ^ round) as u8).collect();
            assert!(producer.push(&record));
            assert!(!consumer.is_empty());
            assert!(consumer.pop(&mut out));
            assert_eq!(out, record);
            assert!(!consumer.pop(&mut out) && consumer.is_empty());
        }
    }

    /// D19: full is a counted drop, never a wait.
    #[test]
    fn a_full_ring_drops_and_counts() {
        let (producer, mut consumer) = ring(512);
        let taken = (0..100).filter(|_| producer.push(&[7; 24])).count();
        assert_eq!((taken, consumer.dropped()), (16, 84));
        assert!(!producer.push(&[0; 10_000]));
        let mut out = Vec::new();
        assert!(consumer.pop(&mut out));
        assert!(producer.push(&[8; 24]));
        let rest = std::iter::from_fn(|| consumer.pop(&mut out).then(|| out[0])).collect::<Vec<_>>();
        assert_eq!((rest.len(), rest.last()), (16, Some(&8)));
    }

    #[test]
    fn two_threads_lose_nothing() {
        const RECORDS: u64 = 100_000;
        let (ready, started) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let waker = Arc::new(Waker::new(std::thread::current()));
            let (producer, mut consumer) = channel(4096, Arc::clone(&waker));
            ready.send(producer).unwrap();
            let (mut out, mut next) = (Vec::new(), 0);
            while next < RECORDS {
                waker.park_unless(|| !consumer.is_empty());
                while consumer.pop(&mut out) {
                    assert_eq!(out, next.to_be_bytes());
                    next += 1;
                }
            }
        });
        let producer = started.recv().unwrap();
        for record in 0..RECORDS {
            while !producer.push(&record.to_be_bytes()) {
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
    }
}
