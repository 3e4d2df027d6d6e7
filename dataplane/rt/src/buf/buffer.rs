//! The writable end of a block.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::block::BlockRef;
use super::chunk::Chunk;

/// The uniquely owned, writable tail of a pool block: what was written to it so far, and the room behind it.
///
/// A full buffer grows by moving to a larger class (4 KiB, 16 KiB, 64 KiB, then exact allocations), so callers bound
/// what they write. [`Buffer::split`] hands out what was written as a [`Chunk`] and goes on in the same block.
pub struct Buffer {
    block: BlockRef,
    /// Where this buffer's part of the payload begins; what is before belongs to chunks.
    start: usize,
    len: usize,
}

impl Buffer {
    /// An empty buffer with room for at least `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Buffer {
        Buffer {
            block: BlockRef::with_capacity(capacity),
            start: 0,
            len: 0,
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that can be written in all without moving to another block.
    pub fn capacity(&self) -> usize {
        self.block.capacity() - self.start
    }

    /// Bytes that can still be written without moving to another block.
    pub fn remaining_capacity(&self) -> usize {
        self.capacity() - self.len
    }

    /// Makes room for `additional` more bytes, moving to a larger block if need be.
    pub fn reserve(&mut self, additional: usize) {
        if self.remaining_capacity() < additional {
            self.grow(additional);
        }
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        // SAFETY: `reserve` made room for `bytes.len()` more in this buffer's own part of the payload, which no chunk
        // shows, so it cannot overlap `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.end().as_ptr(), bytes.len()) };
        // SAFETY: just written.
        unsafe { self.assume_written(bytes.len()) };
    }

    /// Appends all `pieces`, one after the other, with one look at the room.
    #[inline]
    pub fn extend_from_slices<const N: usize>(&mut self, pieces: [&[u8]; N]) {
        let total = pieces
            .iter()
            .fold(0_usize, |total, piece| total.saturating_add(piece.len()));
        self.reserve(total);
        let mut end = self.end();
        for piece in pieces {
            // SAFETY: `reserve` made room for all pieces in this buffer's own part of the payload, which no chunk shows,
            // so it cannot overlap one of them; `end` is behind those that went before.
            end = unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), end.as_ptr(), piece.len());
                end.add(piece.len())
            };
        }
        // SAFETY: just written.
        unsafe { self.assume_written(total) };
    }

    /// Appends one byte.
    pub fn put_u8(&mut self, byte: u8) {
        self.reserve(1);
        // SAFETY: `reserve` made room for one more byte in this buffer's own part of the payload.
        unsafe { self.end().write(byte) };
        // SAFETY: just written.
        unsafe { self.assume_written(1) };
    }

    /// Shortens the written part to `len` bytes; no effect if it is shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets what was written, and takes the whole block back if no chunk shows a part of it.
    pub fn clear(&mut self) {
        self.len = 0;
        if self.block.is_sole() {
            self.start = 0;
        }
    }

    /// The next `count` bytes behind the written part, to be filled by code that wants a plain slice (a TLS session, a
    /// decompressor). They hold anything; [`Buffer::commit`] makes them part of the buffer.
    pub fn spare_mut(&mut self, count: usize) -> &mut [u8] {
        self.reserve(count);
        let begin = self.start + self.len;
        let written = self.block.initialised();
        if written < begin + count {
            // SAFETY: `written .. begin + count` is inside the payload and, being behind everything ever written, shown
            // by no chunk.
            unsafe {
                let from = self.block.payload().add(written);
                from.write_bytes(0, begin + count - written);
            }
            self.block.set_initialised(begin + count);
        }
        // SAFETY: inside the payload, initialised above, behind everything that chunks show; the borrow of `self` keeps
        // it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.end().as_ptr(), count) }
    }

    /// Makes the next `count` bytes, filled through [`Buffer::spare_mut`], part of the buffer.
    ///
    /// # Panics
    /// If fewer than `count` bytes have been filled.
    pub fn commit(&mut self, count: usize) {
        assert!(
            self.start + self.len + count <= self.block.initialised(),
            "commit of bytes that were never filled"
        );
        self.len += count;
    }

    /// Turns what was written into a chunk. The rest of the block goes with it.
    pub fn freeze(self) -> Chunk {
        let data = self.begin();
        Chunk::new(self.block, data, self.len)
    }

    /// Turns what was written into a chunk and goes on behind it, in the same block.
    pub fn split(&mut self) -> Chunk {
        let chunk = Chunk::new(self.block.clone(), self.begin(), self.len);
        self.start += self.len;
        self.len = 0;
        chunk
    }

    /// Like [`Buffer::split`] for the first `count` bytes; the others stay.
    ///
    /// # Panics
    /// If fewer than `count` bytes have been written.
    pub fn split_to(&mut self, count: usize) -> Chunk {
        assert!(count <= self.len, "split past the end of the buffer");
        let chunk = Chunk::new(self.block.clone(), self.begin(), count);
        self.start += count;
        self.len -= count;
        chunk
    }

    /// Where the unwritten part begins, for the kernel to write to.
    pub(crate) fn end(&self) -> NonNull<u8> {
        // SAFETY: `start + len <= capacity` always holds, so the address is inside the payload or one past its end.
        unsafe { self.block.payload().add(self.start + self.len) }
    }

    /// Notes that `count` more bytes have been written at [`Buffer::end`].
    ///
    /// # Safety
    /// They have been, and there was room for them.
    pub(crate) unsafe fn assume_written(&mut self, count: usize) {
        debug_assert!(count <= self.remaining_capacity());
        self.len += count;
        self.block.set_initialised(self.start + self.len);
    }

    fn begin(&self) -> NonNull<u8> {
        // SAFETY: `start <= capacity` always holds.
        unsafe { self.block.payload().add(self.start) }
    }

    #[cold]
    fn grow(&mut self, additional: usize) {
        let needed = self.len.checked_add(additional).expect("buffer length overflow");
        // Past the largest class sizes double, so that appending stays linear.
        let capacity = needed.max(if needed > super::LARGEST_CLASS {
            self.capacity() * 2
        } else {
            needed
        });
        let mut larger = Buffer::with_capacity(capacity);
        larger.extend_from_slice(self);
        *self = larger;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the `len` bytes from `begin` have been written and are this buffer's own.
        unsafe { std::slice::from_raw_parts(self.begin().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the `len` bytes from `begin` have been written, and no chunk shows them.
        unsafe { std::slice::from_raw_parts_mut(self.begin().as_ptr(), self.len) }
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Extend<u8> for Buffer {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        for byte in bytes {
            self.put_u8(byte);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_through_the_classes_and_past_them() {
        let mut buffer = Buffer::with_capacity(10);
        let text: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        for part in text.chunks(777) {
            buffer.extend_from_slice(part);
        }
        assert_eq!(&buffer[..], &text[..]);
        assert_eq!(&buffer.freeze()[..], &text[..]);
    }

    #[test]
    fn split_shares_the_block_and_growth_leaves_the_chunk_alone() {
        let mut buffer = Buffer::with_capacity(100);
        buffer.extend_from_slice(b"head");
        let mut head = buffer.split();
        buffer.extend_from_slice(b"body");
        let body = buffer.split();
        assert_eq!(head.try_join(body), Ok(()));
        assert_eq!(&head[..], b"headbody");
        buffer.extend_from_slice(&[7; 10_000]);
        assert_eq!((&head[..], buffer.len()), (&b"headbody"[..], 10_000));
    }

    #[test]
    fn clear_takes_the_block_back_only_from_no_one() {
        let mut buffer = Buffer::with_capacity(100);
        let whole = buffer.capacity();
        buffer.extend_from_slice(b"abc");
        let chunk = buffer.split();
        buffer.clear();
        assert_eq!(buffer.capacity(), whole - 3);
        drop(chunk);
        buffer.clear();
        assert_eq!(buffer.capacity(), whole);
    }

    #[test]
    fn spare_bytes_are_committed_once_filled() {
        let mut buffer = Buffer::with_capacity(8);
        buffer.spare_mut(5).copy_from_slice(b"hello");
        buffer.commit(5);
        buffer.spare_mut(20_000)[..6].copy_from_slice(b" world");
        buffer.commit(6);
        assert_eq!(&buffer[..], b"hello world");
    }

    #[test]
    #[should_panic(expected = "never filled")]
    fn commit_of_unfilled_bytes_is_refused() {
        crate::pool::set_free_limits([0; crate::pool::CLASSES]);
        Buffer::with_capacity(8).commit(1);
    }
}
