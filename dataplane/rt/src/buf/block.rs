//! A block: one allocation, a header with a plain count, then the payload.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;

use bytes::Bytes;

use super::pool;

/// Alignment of every block, and the size that a header takes at its front.
pub(super) const HEADER: usize = 16;

/// Largest block, so that lengths fit the header's 32-bit fields.
const MAX_BLOCK: usize = u32::MAX as usize;

/// Where a block's memory came from, and so where it goes when the last owner is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A block of the pool class of this number.
    Class0,
    Class1,
    Class2,
    Class3,
    /// A block larger than the largest class; its memory goes back to the allocator.
    Large,
    /// A `Vec<u8>` that somebody else filled.
    Vec,
    /// A `bytes::Bytes` that somebody else filled.
    Bytes,
}

impl Kind {
    pub(super) fn of_class(class: usize) -> Kind {
        [Kind::Class0, Kind::Class1, Kind::Class2, Kind::Class3][class]
    }

    pub(super) fn class(self) -> Option<usize> {
        match self {
            Kind::Class0 => Some(0),
            Kind::Class1 => Some(1),
            Kind::Class2 => Some(2),
            Kind::Class3 => Some(3),
            Kind::Large | Kind::Vec | Kind::Bytes => None,
        }
    }
}

/// What stands at the front of every block.
#[repr(C, align(16))]
pub(super) struct Header {
    /// Owners: chunks, plus one for a buffer.
    refs: Cell<u32>,
    /// Payload bytes.
    capacity: u32,
    /// Payload bytes that were written at least once since the memory was allocated: readable, whatever they hold.
    init: Cell<u32>,
    kind: Kind,
}

const _: () = assert!(size_of::<Header>() == HEADER);

/// A block whose payload lives elsewhere. `repr(C)`: the header must come first.
#[repr(C)]
struct Foreign<T> {
    header: Header,
    value: T,
}

/// One counted reference to a block. Cloning adds an owner, dropping takes one away.
pub(super) struct BlockRef(NonNull<Header>);

impl BlockRef {
    /// Takes a block that has at least `capacity` payload bytes from this thread's pool.
    pub(super) fn with_capacity(capacity: usize) -> BlockRef {
        match pool::class_for(capacity) {
            Some(class) => BlockRef(pool::take(class)),
            None => {
                assert!(capacity <= MAX_BLOCK - HEADER, "a block holds less than 4 GiB");
                BlockRef(allocate(Kind::Large, HEADER + capacity))
            }
        }
    }

    /// Wraps memory that is not the pool's.
    pub(super) fn from_vec(vec: Vec<u8>) -> BlockRef {
        BlockRef(foreign(Kind::Vec, vec))
    }

    /// Wraps memory that is not the pool's.
    pub(super) fn from_bytes(bytes: Bytes) -> BlockRef {
        BlockRef(foreign(Kind::Bytes, bytes))
    }

    fn header(&self) -> &Header {
        // SAFETY: a `BlockRef` is one of the counted owners, so the header is alive; it is only ever read through
        // shared references (its mutable fields are cells) and never leaves this thread.
        unsafe { self.0.as_ref() }
    }

    /// Payload bytes of a pool or large block.
    pub(super) fn capacity(&self) -> usize {
        self.header().capacity as usize
    }

    /// Whether this is the only owner.
    pub(super) fn is_sole(&self) -> bool {
        self.header().refs.get() == 1
    }

    /// Whether both are owners of the same block.
    pub(super) fn same(&self, other: &BlockRef) -> bool {
        self.0 == other.0
    }

    /// First payload byte. Only for pool and large blocks, whose payload follows the header.
    pub(super) fn payload(&self) -> NonNull<u8> {
        debug_assert!(!matches!(self.header().kind, Kind::Vec | Kind::Bytes));
        // SAFETY: pool and large blocks are allocated with `HEADER` bytes in front of their payload.
        unsafe { self.0.cast::<u8>().add(HEADER) }
    }

    /// Payload bytes that may be read.
    pub(super) fn initialised(&self) -> usize {
        self.header().init.get() as usize
    }

    /// Notes that the first `upto` payload bytes have been written.
    pub(super) fn set_initialised(&self, upto: usize) {
        debug_assert!(upto <= self.capacity());
        let init = &self.header().init;
        init.set(init.get().max(upto as u32));
    }
}

impl Clone for BlockRef {
    fn clone(&self) -> BlockRef {
        let refs = &self.header().refs;
        // A count that wraps would free memory in use; four billion owners is a leak, not a load.
        refs.set(refs.get().checked_add(1).expect("block owners overflow"));
        BlockRef(self.0)
    }
}

impl Drop for BlockRef {
    fn drop(&mut self) {
        let refs = self.header().refs.get() - 1;
        self.header().refs.set(refs);
        if refs == 0 {
            release(self.0);
        }
    }
}

/// Allocates a block of `size` bytes, header included, with one owner.
pub(super) fn allocate(kind: Kind, size: usize) -> NonNull<Header> {
    let layout = layout(size);
    // SAFETY: the layout is not empty, it has room for the header at least.
    let raw = unsafe { alloc(layout) };
    let Some(block) = NonNull::new(raw.cast::<Header>()) else {
        handle_alloc_error(layout)
    };
    let header = Header {
        refs: Cell::new(1),
        capacity: (size - HEADER) as u32,
        init: Cell::new(0),
        kind,
    };
    // SAFETY: freshly allocated, aligned for `Header` by `layout`, large enough.
    unsafe { block.write(header) };
    block
}

/// Marks a pooled block as taken again.
pub(super) fn reuse(block: NonNull<Header>) {
    // SAFETY: the pool holds blocks whose header is alive and that nobody else owns.
    unsafe { block.as_ref() }.refs.set(1);
}

/// Gives the memory of a pool or large block back to the allocator.
///
/// # Safety
/// The block came from [`allocate`] and nobody uses it any more.
pub(super) unsafe fn deallocate(block: NonNull<Header>) {
    // SAFETY: alive until the next line, by this function's contract.
    let size = unsafe { block.as_ref() }.capacity as usize + HEADER;
    // SAFETY: allocated with this very layout, by this function's contract.
    unsafe { dealloc(block.as_ptr().cast(), layout(size)) };
}

/// The written part of a free block's payload, for poisoning and for checking the poison.
///
/// # Safety
/// The block is a pool block that nobody owns, and stays so while the slice lives.
pub(super) unsafe fn free_payload<'a>(block: NonNull<Header>) -> &'a mut [u8] {
    // SAFETY: alive and not owned by anybody, by this function's contract; the first `init` payload bytes have been
    // written, so they may be read.
    unsafe {
        let init = block.as_ref().init.get() as usize;
        std::slice::from_raw_parts_mut(block.cast::<u8>().add(HEADER).as_ptr(), init)
    }
}

fn release(block: NonNull<Header>) {
    // SAFETY: the last owner is being dropped, so the header is alive and nobody else looks at it.
    let kind = unsafe { block.as_ref() }.kind;
    match kind {
        Kind::Class0 | Kind::Class1 | Kind::Class2 | Kind::Class3 => {
            pool::give(kind.class().unwrap_or(0), block);
        }
        // SAFETY: a large block comes from `allocate`, and its last owner is gone.
        Kind::Large => unsafe { deallocate(block) },
        // SAFETY: made by `foreign` with this type; `Foreign` is `repr(C)` with the header first.
        Kind::Vec => drop(unsafe { Box::from_raw(block.cast::<Foreign<Vec<u8>>>().as_ptr()) }),
        // SAFETY: as above.
        Kind::Bytes => drop(unsafe { Box::from_raw(block.cast::<Foreign<Bytes>>().as_ptr()) }),
    }
}

fn foreign<T>(kind: Kind, value: T) -> NonNull<Header> {
    let header = Header {
        refs: Cell::new(1),
        capacity: 0,
        init: Cell::new(0),
        kind,
    };
    let block = Box::leak(Box::new(Foreign { header, value }));
    NonNull::from(block).cast()
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, HEADER).expect("block sizes are bounded")
}
