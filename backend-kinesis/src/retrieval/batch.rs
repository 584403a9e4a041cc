//! The limits of one event.

use std::mem;

use millstream_core::driver::StoredRecord;

/// Collects the records of the next event: at most `most_records`, and at most `most_bytes` unless it is a single
/// record.
#[derive(Debug)]
pub(super) struct Batch {
    records: Vec<StoredRecord>,
    bytes: usize,
    most_records: usize,
    most_bytes: usize,
}

impl Batch {
    /// Creates an empty batch, with capacity for the expected records.
    pub(super) fn new(most_records: usize, most_bytes: usize, expected: usize) -> Self {
        let most_records = most_records.max(1);
        Self {
            records: Vec::with_capacity(most_records.min(expected)),
            bytes: 0,
            most_records,
            most_bytes,
        }
    }

    /// Adds a record. If there is no room for it, first takes the previous records, and returns them.
    pub(super) fn add(&mut self, record: StoredRecord) -> Option<Vec<StoredRecord>> {
        let size = record.size();
        let has_room =
            self.records.len() < self.most_records && self.bytes + size <= self.most_bytes;
        let full = (!has_room).then(|| self.take()).flatten();
        self.bytes += size;
        self.records.push(record);
        full
    }

    /// Returns the collected records, if there are any.
    pub(super) fn take(&mut self) -> Option<Vec<StoredRecord>> {
        self.bytes = 0;
        let records = mem::take(&mut self.records);
        (!records.is_empty()).then_some(records)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use millstream_core::{Headers, Position};

    use super::*;

    /// Returns the sizes of the records of each event.
    fn events(most_records: usize, most_bytes: usize, sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut batch = Batch::new(most_records, most_bytes, sizes.len());
        let record = |size: &usize| StoredRecord {
            position: Position::from(0),
            timestamp: UNIX_EPOCH,
            key: None,
            payload: Some(Bytes::from(vec![0; *size])),
            headers: Headers::new(),
        };
        let mut events: Vec<_> = sizes.iter().filter_map(|s| batch.add(record(s))).collect();
        events.extend(batch.take());
        let sizes = |event: &Vec<StoredRecord>| event.iter().map(StoredRecord::size).collect();
        events.iter().map(sizes).collect()
    }

    #[test]
    fn an_event_is_bounded_by_records_and_bytes() {
        assert_eq!(events(2, 100, &[1, 2, 3]), [vec![1, 2], vec![3]]);
        assert_eq!(events(9, 100, &[50, 50, 1]), [vec![50, 50], vec![1]]);
        assert_eq!(events(9, 100, &[1, 500, 1]), [vec![1], vec![500], vec![1]]);
        assert_eq!(events(0, 0, &[1, 1]), [[1], [1]]);
        assert!(events(9, 9, &[]).is_empty());
    }
}
