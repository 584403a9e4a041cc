//! Memory for the records that partitions hold, passed on from one partition to the next.
//!
//! A partition whose records are all settled returns its memory. So partitions without records hold none, and a
//! member of many partitions uses the same memory for one after the other, while it is still in the cache of the
//! processor.

use std::collections::VecDeque;

/// The maximum number of bytes that are kept.
const MAX_BYTES: usize = 1 << 20;

/// The memory of empty queues.
#[derive(Debug)]
pub(crate) struct SpareMemory<T> {
    queues: Vec<VecDeque<T>>,
    bytes: usize,
}

impl<T> Default for SpareMemory<T> {
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            bytes: 0,
        }
    }
}

impl<T> SpareMemory<T> {
    /// Gives memory to a queue that has none, if there is some.
    pub(crate) fn lend(&mut self, queue: &mut VecDeque<T>) {
        if queue.capacity() > 0 {
            return;
        }
        if let Some(spare) = self.queues.pop() {
            self.bytes -= size(&spare);
            *queue = spare;
        }
    }

    /// Takes the memory of an empty queue.
    pub(crate) fn take_back(&mut self, queue: &mut VecDeque<T>) {
        let spare = std::mem::take(queue);
        debug_assert!(spare.is_empty(), "its items are still needed");
        let bytes = size(&spare);
        if bytes > 0 && self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.queues.push(spare);
        }
    }
}

fn size<T>(queue: &VecDeque<T>) -> usize {
    queue.capacity() * size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_passed_on_within_its_bound() {
        let mut spare = SpareMemory::default();
        let mut queue: VecDeque<u64> = VecDeque::with_capacity(1_000);
        let memory = queue.as_slices().0.as_ptr();
        spare.take_back(&mut queue);
        assert_eq!(queue.capacity(), 0);

        let mut next = VecDeque::new();
        spare.lend(&mut next);
        assert_eq!(next.as_slices().0.as_ptr(), memory);
        assert_eq!(spare.bytes, 0);

        let mut large: VecDeque<u64> = VecDeque::with_capacity(MAX_BYTES);
        spare.take_back(&mut large);
        assert_eq!((large.capacity(), spare.bytes), (0, 0));
    }
}
