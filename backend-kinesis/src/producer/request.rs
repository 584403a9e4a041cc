//! A request of PutRecords.

use std::sync::Arc;

use crate::aggregate::Entry;

/// The [limits][limits] of one request. Its bytes, including keys, may be 10 MiB by now, but the limit was 5
/// MiB before, and still is for services other than AWS. Larger requests have no advantage.
///
/// [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
pub(super) const MOST_ENTRIES: usize = 500;
pub(super) const MOST_BYTES: usize = 5 << 20;

/// The entries of a request, and the tickets of each entry.
#[derive(Debug)]
pub(super) struct PutRequest<T> {
    pub(super) tickets: Vec<T>,
    pub(super) entries: Arc<Vec<Entry>>,
}

/// A request that is being built.
#[derive(Debug)]
pub(super) struct RequestBuilder<T> {
    tickets: Vec<T>,
    entries: Vec<Entry>,
    bytes: usize,
    most_bytes: usize,
}

impl<T> RequestBuilder<T> {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            tickets: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
            most_bytes,
        }
    }

    /// Returns the maximum size of the next entry. The first entry is not limited.
    pub(super) fn room(&self) -> usize {
        match self.tickets.len() {
            0 => usize::MAX,
            MOST_ENTRIES.. => 0,
            _ => self.most_bytes.saturating_sub(self.bytes),
        }
    }

    pub(super) fn add(&mut self, tickets: T, entry: Entry) {
        self.bytes += entry.size();
        self.tickets.push(tickets);
        self.entries.push(entry);
    }

    pub(super) fn finish(self) -> PutRequest<T> {
        PutRequest {
            tickets: self.tickets,
            entries: Arc::new(self.entries),
        }
    }
}

impl<T> PutRequest<T> {
    /// Returns both halves, to find out which one contains the rejected entry.
    pub(super) fn split(self) -> [Self; 2] {
        let (mut first, middle) = (self.tickets, self.entries.len() / 2);
        let second = first.split_off(middle);
        let (one, other) = self.entries.split_at(middle);
        [(first, one), (second, other)].map(|(tickets, entries)| Self {
            tickets,
            entries: Arc::new(entries.to_vec()),
        })
    }
}
