//! The thread's pool of blocks: four classes, bounded free lists, and a mode that looks for use after free.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use super::block::{self, HEADER, Header, Kind};

/// Size of the blocks of each class in bytes, the header included.
///
/// The smallest holds what one read of a request's head brings as a rule, and is what a connection holds while it waits
/// for one.
pub const CLASS_SIZES: [usize; CLASSES] = [1024, 4 * 1024, 16 * 1024, 64 * 1024];

/// Size of the largest blocks of the pool.
pub(crate) const LARGEST_CLASS: usize = CLASS_SIZES[CLASSES - 1];

/// Number of classes.
pub const CLASSES: usize = 4;

/// Free blocks kept for each class by default: at most 4 MiB a class and thread.
pub const DEFAULT_FREE: [usize; CLASSES] = [4096, 1024, 256, 64];

/// What a freed block is filled with while it is being watched.
const POISON: u8 = 0xDB;

/// What this thread's pool holds and has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blocks of each class that buffers and chunks hold now.
    pub live: [usize; CLASSES],
    /// Blocks of each class on the free lists and in quarantine.
    pub free: [usize; CLASSES],
    /// Blocks that were taken from the allocator, ever.
    pub allocated: u64,
    /// Freed blocks that something wrote to: each one is a bug. Only found while [`watch`] is on.
    pub violations: u64,
}

/// Reads the statistics of this thread's pool.
pub fn stats() -> Stats {
    POOL.with_borrow(|pool| {
        let mut stats = pool.stats;
        for (class, free) in stats.free.iter_mut().enumerate() {
            *free = pool.free[class].len();
        }
        for (class, _) in &pool.quarantine {
            stats.free[*class] += 1;
        }
        stats
    })
}

/// Bounds the free blocks that this thread keeps for each class; what is above goes back to the allocator.
pub fn set_free_limits(limits: [usize; CLASSES]) {
    POOL.with_borrow_mut(|pool| {
        pool.limits = limits;
        for (list, limit) in pool.free.iter_mut().zip(limits) {
            for block in list.drain(limit.min(list.len())..) {
                // SAFETY: blocks on a free list have no owner.
                unsafe { block::deallocate(block) };
            }
        }
    });
}

/// Poisons freed blocks of this thread, holds the last `quarantine` of them back from reuse, and checks the poison when
/// a block is used again. For tests; costs a write and a read of every freed block. `None` ends it.
pub fn watch(quarantine: Option<usize>) {
    POOL.with_borrow_mut(|pool| {
        pool.watch = quarantine;
        // What was freed without poison must not be checked for it.
        for (class, list) in pool.free.iter_mut().enumerate() {
            for block in list.drain(..) {
                // SAFETY: blocks on a free list have no owner.
                unsafe { block::deallocate(block) };
            }
            debug_assert!(class < CLASS_SIZES.len());
        }
        while let Some((_, block)) = pool.quarantine.pop_front() {
            // SAFETY: blocks in quarantine have no owner.
            unsafe { block::deallocate(block) };
        }
    });
}

/// The class whose payload holds `capacity` bytes, if there is one.
pub(super) fn class_for(capacity: usize) -> Option<usize> {
    CLASS_SIZES.iter().position(|size| capacity <= size - HEADER)
}

/// Takes a block of a class: one owner, payload as it was left.
pub(super) fn take(class: usize) -> NonNull<Header> {
    let reused = POOL
        .try_with(|pool| pool.borrow_mut().take(class))
        .unwrap_or(None);
    match reused {
        Some(block) => {
            block::reuse(block);
            block
        }
        None => block::allocate(Kind::of_class(class), CLASS_SIZES[class]),
    }
}

/// Gives a block that has no owner back.
pub(super) fn give(class: usize, block: NonNull<Header>) {
    let kept = POOL
        .try_with(|pool| pool.borrow_mut().give(class, block))
        .unwrap_or(false);
    if !kept {
        // SAFETY: the last owner just let go of it and the pool did not keep it.
        unsafe { block::deallocate(block) };
    }
}

struct Pool {
    free: [Vec<NonNull<Header>>; CLASSES],
    limits: [usize; CLASSES],
    watch: Option<usize>,
    quarantine: VecDeque<(usize, NonNull<Header>)>,
    stats: Stats,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool {
        free: [const { Vec::new() }; CLASSES],
        limits: DEFAULT_FREE,
        watch: None,
        quarantine: VecDeque::new(),
        stats: Stats { live: [0; CLASSES], free: [0; CLASSES], allocated: 0, violations: 0 },
    }) };
}

impl Pool {
    /// A block to reuse; `None` means that the caller allocates one.
    fn take(&mut self, class: usize) -> Option<NonNull<Header>> {
        self.stats.live[class] += 1;
        let reused = self.free[class].pop();
        match reused {
            Some(block) if self.watch.is_some() => self.check(block),
            Some(_) => {}
            None => self.stats.allocated += 1,
        }
        reused
    }

    /// Whether the pool kept the block.
    fn give(&mut self, class: usize, block: NonNull<Header>) -> bool {
        self.stats.live[class] = self.stats.live[class].saturating_sub(1);
        let Some(depth) = self.watch else {
            return self.keep(class, block);
        };
        // SAFETY: the block has no owner; the slice is gone before it gets one.
        unsafe { block::free_payload(block) }.fill(POISON);
        self.quarantine.push_back((class, block));
        while self.quarantine.len() > depth {
            let Some((class, oldest)) = self.quarantine.pop_front() else {
                break;
            };
            self.check(oldest);
            if !self.keep(class, oldest) {
                // SAFETY: it has no owner and was not kept.
                unsafe { block::deallocate(oldest) };
            }
        }
        true
    }

    fn keep(&mut self, class: usize, block: NonNull<Header>) -> bool {
        let room = self.free[class].len() < self.limits[class];
        if room {
            self.free[class].push(block);
        }
        room
    }

    fn check(&mut self, block: NonNull<Header>) {
        // SAFETY: the block has no owner; the slice is gone before it gets one.
        let payload = unsafe { block::free_payload(block) };
        if payload.iter().any(|byte| *byte != POISON) {
            self.stats.violations += 1;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let free = self.free.iter_mut().flat_map(|list| list.drain(..));
        let quarantined = self.quarantine.drain(..).map(|(_, block)| block);
        for block in free.chain(quarantined) {
            // SAFETY: free and quarantined blocks have no owner.
            unsafe { block::deallocate(block) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Chunk};

    /// The free lists are bounded (architecture, invariants: every pool has a bound).
    #[test]
    fn free_lists_are_bounded_and_reused() {
        set_free_limits([2, 1, 1, 0]);
        let held: Vec<Chunk> = (0..5).map(|_| Chunk::copy_from_slice(b"x")).collect();
        assert_eq!(stats().live, [5, 0, 0, 0]);
        drop(held);
        assert_eq!((stats().live, stats().free), ([0; CLASSES], [2, 0, 0, 0]));
        let allocated = stats().allocated;
        let again = Buffer::with_capacity(100);
        assert_eq!(stats().allocated, allocated);
        drop(again);
        drop(Buffer::with_capacity(60_000));
        assert_eq!(stats().free, [2, 0, 0, 0]);
    }

    /// D3: a write into a freed block is found when the block is used again.
    #[test]
    fn a_write_after_free_is_found() {
        watch(Some(1));
        let mut buffer = Buffer::with_capacity(64);
        buffer.extend_from_slice(b"still in flight");
        let stale = buffer.as_mut_ptr();
        drop(buffer);
        // SAFETY: the block sits in this thread's quarantine, so the memory is alive; this is the misuse under test.
        unsafe { stale.write(b'!') };
        drop(Buffer::with_capacity(64));
        assert_eq!(stats().violations, 1);
        watch(None);
    }
}
