//! Buffers that a splice borrows while bytes move, and gives back when none do.
//!
//! An idle visit holds no buffer at all. A busy one starts with [`MIN_BUFFER_BYTES`] and gets twice
//! as much each time a read filled what it had, up to [`MAX_BUFFER_BYTES`].

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};

/// What a read begins with: tokio's own default, and more than most requests have.
pub const MIN_BUFFER_BYTES: usize = 8 * 1024;
/// Where doubling ends: past this a system call costs little against the copying.
pub const MAX_BUFFER_BYTES: usize = 256 * 1024;
/// The sizes from [`MIN_BUFFER_BYTES`] to [`MAX_BUFFER_BYTES`].
const CLASSES: usize = (MAX_BUFFER_BYTES / MIN_BUFFER_BYTES).ilog2() as usize + 1;
/// What the pool keeps of each size when nobody needs it: enough that two busy cores never
/// allocate, 12 MiB in all.
const KEPT_BYTES_PER_CLASS: usize = 2 * 1024 * 1024;

/// Idle buffers of one size.
type Class = Mutex<Vec<Box<[u8]>>>;

/// A process's idle buffers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Arc<[Class; CLASSES]>);

impl BufferPool {
    /// A buffer of at least `bytes`, rounded up to a size of the pool and at most
    /// [`MAX_BUFFER_BYTES`]. It returns to the pool when it is dropped.
    pub fn take(&self, bytes: usize) -> Buffer {
        let size = bytes
            .clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)
            .next_power_of_two();
        let kept = self
            .class(size)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let data = kept.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer {
            data,
            start: 0,
            end: 0,
            pool: self.clone(),
        }
    }

    fn class(&self, size: usize) -> &Class {
        &self.0[(size / MIN_BUFFER_BYTES).ilog2() as usize]
    }

    fn give_back(&self, data: Box<[u8]>) {
        let size = data.len();
        let mut kept = self
            .class(size)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() * size < KEPT_BYTES_PER_CLASS {
            kept.push(data);
        }
    }

    /// Bytes that lie idle in the pool.
    #[cfg(test)]
    fn idle_bytes(&self) -> usize {
        let count = |class: &Class| {
            class
                .lock()
                .map(|kept| kept.iter().map(|data| data.len()).sum::<usize>())
                .unwrap_or(0)
        };
        self.0.iter().map(count).sum()
    }
}

/// A borrowed buffer, with the part of it that is filled and not yet taken.
#[derive(Debug)]
pub struct Buffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
    pool: BufferPool,
}

impl Buffer {
    /// All of it, to be read into. What was in it is gone.
    pub fn space(&mut self) -> &mut [u8] {
        (self.start, self.end) = (0, 0);
        &mut self.data
    }

    /// Says that the first `bytes` of [`space`](Self::space) now hold data.
    pub fn fill(&mut self, bytes: usize) {
        (self.start, self.end) = (0, bytes.min(self.data.len()));
    }

    fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.data));
    }
}

/// Bytes that have left their source and not yet all reached their sink.
#[derive(Debug, Default)]
pub enum Held {
    /// None: the splice is waiting for its source.
    #[default]
    Nothing,
    /// In a buffer that was read into.
    Buffer(Buffer),
    /// In the pieces that the transport itself handed out: they are never copied.
    Chunks(VecDeque<Bytes>),
}

impl Held {
    /// Whether there is nothing left to put.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Buffer(buffer) => buffer.filled().is_empty(),
            Self::Chunks(chunks) => chunks.is_empty(),
        }
    }

    /// The first piece; empty when all is put.
    pub fn first(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Buffer(buffer) => buffer.filled(),
            Self::Chunks(chunks) => chunks.front().map_or(&[], |chunk| chunk),
        }
    }

    /// Fills `slices` with the pieces in order and says how many there were.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Chunks(chunks) => {
                let count = chunks.len().min(slices.len());
                for (slice, chunk) in slices.iter_mut().zip(chunks) {
                    *slice = IoSlice::new(chunk);
                }
                count
            }
            _ => {
                slices[0] = IoSlice::new(self.first());
                1
            }
        }
    }

    /// Drops the first `bytes`, and the buffer with the last of them.
    pub fn advance(&mut self, mut bytes: usize) {
        match self {
            Self::Nothing => {}
            Self::Buffer(buffer) => buffer.start += bytes,
            Self::Chunks(chunks) => {
                while let Some(chunk) = chunks.front_mut() {
                    let step = bytes.min(chunk.len());
                    chunk.advance(step);
                    bytes -= step;
                    if !chunk.is_empty() {
                        break;
                    }
                    chunks.pop_front();
                }
            }
        }
        if self.is_empty() {
            *self = Self::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_taken_again() {
        let pool = BufferPool::default();
        let buffer = pool.take(1);
        let address = buffer.data.as_ptr();
        drop(buffer);
        assert_eq!(pool.idle_bytes(), MIN_BUFFER_BYTES);
        let again = pool.take(MIN_BUFFER_BYTES);
        assert_eq!(again.data.as_ptr(), address);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn sizes_double_up_to_the_largest() {
        let pool = BufferPool::default();
        assert_eq!(
            pool.take(MIN_BUFFER_BYTES + 1).space().len(),
            2 * MIN_BUFFER_BYTES
        );
        assert_eq!(pool.take(usize::MAX / 4).space().len(), MAX_BUFFER_BYTES);
    }

    #[test]
    fn what_the_pool_keeps_is_bounded() {
        let pool = BufferPool::default();
        for size in [MIN_BUFFER_BYTES, MAX_BUFFER_BYTES] {
            let many: Vec<_> = (0..1000).map(|_| pool.take(size)).collect();
            drop(many);
        }
        assert_eq!(pool.idle_bytes(), 2 * KEPT_BYTES_PER_CLASS);
    }

    #[test]
    fn held_chunks_are_put_in_any_steps() {
        for step in 1..=6 {
            let chunks = ["ab", "", "cde", "f"].map(|text| Bytes::from_static(text.as_bytes()));
            let mut held = Held::Chunks(chunks.into());
            let mut put = Vec::new();
            while !held.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = held.slices(&mut slices);
                let flat: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
                let step = step.min(flat.len());
                put.extend_from_slice(&flat[..step]);
                held.advance(step);
            }
            assert_eq!(put, b"abcdef", "in steps of {step}");
            assert!(matches!(held, Held::Nothing));
        }
    }

    #[test]
    fn a_held_buffer_goes_back_with_its_last_byte() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(1);
        buffer.space()[..3].copy_from_slice(b"abc");
        buffer.fill(3);
        let mut held = Held::Buffer(buffer);
        held.advance(2);
        assert_eq!(held.first(), b"c");
        assert_eq!(pool.idle_bytes(), 0);
        held.advance(1);
        assert_eq!(pool.idle_bytes(), MIN_BUFFER_BYTES);
    }
}
