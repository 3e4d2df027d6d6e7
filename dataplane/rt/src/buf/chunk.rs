//! A counted, read-only slice of a block.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, RangeBounds};
use std::ptr::NonNull;

use bytes::{Buf, Bytes};

use super::block::BlockRef;
use super::buffer::Buffer;

/// A read-only slice of bytes that keeps its memory alive by a plain (not atomic) count. Cloning and slicing copy no
/// bytes; the type stays on its thread.
pub struct Chunk {
    data: NonNull<u8>,
    len: usize,
    /// `None`: the bytes are `'static`.
    owner: Option<BlockRef>,
    /// Not `Send`, not `Sync`, also where there is no owner: what holds a chunk must not depend on its contents.
    _thread: PhantomData<*const u8>,
}

impl Chunk {
    /// A chunk over bytes that are never freed.
    pub const fn from_static(bytes: &'static [u8]) -> Chunk {
        Chunk {
            // A reference is never null; `NonNull::from` is not const.
            data: match NonNull::new(bytes.as_ptr().cast_mut()) {
                Some(data) => data,
                None => NonNull::dangling(),
            },
            len: bytes.len(),
            owner: None,
            _thread: PhantomData,
        }
    }

    /// A chunk with a copy of `bytes` in a pool block.
    pub fn copy_from_slice(bytes: &[u8]) -> Chunk {
        let mut buffer = Buffer::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer.freeze()
    }

    /// The `len` bytes at `data`, which are kept alive by `owner`, are initialised, and will not be written again.
    pub(super) fn new(owner: BlockRef, data: NonNull<u8>, len: usize) -> Chunk {
        Chunk {
            data,
            len,
            owner: Some(owner),
            _thread: PhantomData,
        }
    }

    /// Length in bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A chunk over a part of this one.
    ///
    /// # Panics
    /// If the range is not inside this chunk.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Chunk {
        let begin = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => *at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => *at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => self.len,
        };
        assert!(begin <= end && end <= self.len, "slice outside of the chunk");
        let mut part = self.clone();
        part.advance_by(begin);
        part.len = end - begin;
        part
    }

    /// Takes the first `count` bytes off and returns them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_to(&mut self, count: usize) -> Chunk {
        assert!(count <= self.len, "split past the end of the chunk");
        let mut front = self.clone();
        front.len = count;
        self.advance_by(count);
        front
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "advance past the end of the chunk");
        self.advance_by(count);
    }

    /// Drops all but the first `len` bytes; no effect if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends `next` without copying, if it follows directly in the same block; gives it back otherwise.
    ///
    /// Consecutive reads of one connection usually do follow, so that a head that arrives in parts becomes one slice.
    pub fn try_join(&mut self, next: Chunk) -> Result<(), Chunk> {
        if next.is_empty() {
            return Ok(());
        }
        let (Some(mine), Some(theirs)) = (&self.owner, &next.owner) else {
            return Err(next);
        };
        // SAFETY: one past the end of this chunk is still inside, or one past, its block.
        let end = unsafe { self.data.add(self.len) };
        if !mine.same(theirs) || end != next.data {
            return Err(next);
        }
        self.len += next.len;
        Ok(())
    }

    /// A copy that may go to another thread.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }

    fn advance_by(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        // SAFETY: callers checked `count <= len`, so the result is inside the slice or one past its end.
        self.data = unsafe { self.data.add(count) };
        self.len -= count;
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `data` points at `len` initialised bytes that the owner keeps alive (or that are static), and that
        // nobody writes to: buffers write only behind what they have split off.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        Chunk {
            data: self.data,
            len: self.len,
            owner: self.owner.clone(),
            _thread: PhantomData,
        }
    }
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk::from_static(&[])
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self
    }

    fn advance(&mut self, count: usize) {
        Chunk::advance(self, count);
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(vec: Vec<u8>) -> Chunk {
        let (data, len) = (vec.as_ptr().cast_mut(), vec.len());
        match NonNull::new(data) {
            // The vector's heap memory does not move with the vector itself, and nothing touches it until it is freed.
            Some(data) if len > 0 => Chunk::new(BlockRef::from_vec(vec), data, len),
            _ => Chunk::default(),
        }
    }
}

impl From<String> for Chunk {
    fn from(text: String) -> Chunk {
        Chunk::from(text.into_bytes())
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Chunk {
        let (data, len) = (bytes.as_ptr().cast_mut(), bytes.len());
        match NonNull::new(data) {
            // `Bytes` promises that its contents stay where they are and as they are while it lives.
            Some(data) if len > 0 => Chunk::new(BlockRef::from_bytes(bytes), data, len),
            _ => Chunk::default(),
        }
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Chunk {
        Chunk::from_static(bytes)
    }
}

impl From<&'static str> for Chunk {
    fn from(text: &'static str) -> Chunk {
        Chunk::from_static(text.as_bytes())
    }
}

impl From<Buffer> for Chunk {
    fn from(buffer: Buffer) -> Chunk {
        buffer.freeze()
    }
}

impl PartialEq for Chunk {
    fn eq(&self, other: &Chunk) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Chunk {}

impl PartialEq<[u8]> for Chunk {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Chunk {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self[..] == other[..]
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({:?})", Bytes::copy_from_slice(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool;

    #[test]
    fn slices_share_and_count() {
        let chunk = Chunk::copy_from_slice(b"hello world");
        let live = pool::stats().live[0];
        let mut tail = chunk.slice(6..);
        let head = chunk.slice(..=4);
        drop(chunk);
        assert_eq!(pool::stats().live[0], live);
        assert_eq!((&head, &tail), (&Chunk::from("hello"), &Chunk::from("world")));
        let w = tail.split_to(1);
        tail.advance(3);
        assert_eq!((&w[..], &tail[..]), (&b"w"[..], &b"d"[..]));
        drop((head, tail, w));
        assert_eq!(pool::stats().live[0], live - 1);
    }

    #[test]
    fn joins_only_what_is_contiguous_in_one_block() {
        let mut all = Chunk::copy_from_slice(b"abcdef");
        let mut front = all.split_to(2);
        let gap = all.split_to(1);
        let back = front.try_join(all).unwrap_err();
        assert_eq!(front.try_join(gap), Ok(()));
        assert_eq!(front.try_join(back), Ok(()));
        assert_eq!(&front[..], b"abcdef");
        assert!(front.try_join(Chunk::from("abc")).is_err());
        assert!(front.try_join(Chunk::from(b"abc".to_vec())).is_err());
        assert!(front.try_join(Chunk::default()).is_ok());
    }

    #[test]
    fn foreign_memory_is_freed_with_the_last_chunk() {
        let bytes = Bytes::from(vec![1u8; 100]);
        let chunk = Chunk::from(bytes.clone());
        let part = chunk.slice(50..);
        drop(chunk);
        assert!(!bytes.is_unique());
        drop(part);
        assert!(bytes.is_unique());
        assert_eq!(Chunk::from(vec![9u8; 70_000]).slice(69_999..), &[9u8]);
        assert!(Chunk::from(Vec::new()).is_empty());
    }

    #[test]
    fn is_a_buf() {
        let mut chunk = Chunk::from("abcd");
        assert_eq!(chunk.get_u16(), u16::from_be_bytes(*b"ab"));
        assert_eq!(chunk.copy_to_bytes(2), Bytes::from("cd"));
        assert!(!chunk.has_remaining());
    }

    #[test]
    #[should_panic(expected = "outside of the chunk")]
    fn slice_outside_is_refused() {
        let _ = Chunk::from("abc").slice(2..5);
    }
}
