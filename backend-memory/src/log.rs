//! The log of one partition: its records, and retention.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use millstream_core::driver::{StoredRecord, to_millis};
use millstream_core::failpoint;
use millstream_core::{Headers, Position, Record};

use crate::clock::to_time;

/// Records per segment. With segments, a growing log does not move its records.
const SEGMENT: usize = 1024;

/// A record in the log. Its offset follows from its index.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogEntry {
    pub(crate) key: Option<Bytes>,
    pub(crate) payload: Option<Bytes>,
    pub(crate) headers: Headers,
    /// The timestamp that readers see: the producer's, or otherwise `stored_at`.
    pub(crate) timestamp: i64,
    /// Broker time of the append, never before the previous entry's. Retention and lag use it, so
    /// that a replay of old events does not count as old records.
    pub(crate) stored_at: i64,
}

impl LogEntry {
    fn size(&self) -> u64 {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        let payload = self.payload.as_ref().map_or(0, Bytes::len);
        (key + payload + self.headers.size()) as u64
    }
}

#[derive(Debug)]
struct Segment {
    entries: Vec<LogEntry>,
    newest_timestamp: i64,
}

/// The retention of a log. An unset bound is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RetentionPolicy {
    pub(crate) age: Option<Duration>,
    pub(crate) bytes: Option<u64>,
}

impl RetentionPolicy {
    pub(crate) fn keeps_everything(&self) -> bool {
        self.age.is_none() && self.bytes.is_none()
    }
}

/// The records at offsets `start..end`. An empty log allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// All are full except the last; the first starts at offset `base`.
    segments: VecDeque<Segment>,
    base: u64,
    start: u64,
    end: u64,
    bytes: u64,
    last_stored_at: Option<i64>,
}

impl Log {
    /// Returns the offset of the oldest record, or `end`.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the offset of the next append.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns the broker time of an append at `now`.
    pub(crate) fn stored_at(&self, now: i64) -> i64 {
        self.last_stored_at.map_or(now, |last| last.max(now))
    }

    /// Appends a record and returns its offset.
    pub(crate) fn append(&mut self, record: Record, now: i64) -> u64 {
        let stored_at = self.stored_at(now);
        self.push(LogEntry {
            key: record.key,
            payload: record.payload,
            headers: record.headers,
            timestamp: record.timestamp.map_or(stored_at, to_millis),
            stored_at,
        })
    }

    /// Appends an unchanged entry, for a replay of the journal.
    pub(crate) fn push(&mut self, entry: LogEntry) -> u64 {
        self.bytes += entry.size();
        self.last_stored_at = Some(entry.stored_at);
        match self.segments.back_mut() {
            Some(last) if last.entries.len() < SEGMENT => {
                last.newest_timestamp = last.newest_timestamp.max(entry.timestamp);
                last.entries.push(entry);
            }
            _ => {
                let newest_timestamp = entry.timestamp;
                // The first segment starts small, so that thousands of quiet partitions stay
                // small.
                let capacity = if self.segments.is_empty() { 4 } else { SEGMENT };
                let mut entries = Vec::with_capacity(capacity);
                entries.push(entry);
                self.segments.push_back(Segment {
                    entries,
                    newest_timestamp,
                });
            }
        }
        self.end += 1;
        self.end - 1
    }

    /// Removes everything from `end` on. No reader may have seen it.
    pub(crate) fn truncate(&mut self, end: u64) {
        while self.end > end {
            let last = self
                .segments
                .back_mut()
                .expect("a log of records has a segment");
            let entry = last.entries.pop().expect("no segment is empty");
            self.bytes -= entry.size();
            if last.entries.is_empty() {
                self.segments.pop_back();
            }
            self.end -= 1;
        }
    }

    pub(crate) fn get(&self, offset: u64) -> Option<&LogEntry> {
        if !(self.start..self.end).contains(&offset) {
            return None;
        }
        let index = (offset - self.base) as usize;
        Some(&self.segments[index / SEGMENT].entries[index % SEGMENT])
    }

    /// Returns records from `from` on, which must not be before `start`, and their size. Returns at
    /// most `records` and `bytes`, but at least one record if there is one.
    pub(crate) fn read(&self, from: u64, records: usize, bytes: u64) -> (Vec<StoredRecord>, u64) {
        let count = records.min((self.end - from) as usize);
        let mut batch = Vec::with_capacity(count);
        let mut size = 0;
        let mut offset = from;
        while batch.len() < count {
            let index = (offset - self.base) as usize;
            let segment = &self.segments[index / SEGMENT].entries[index % SEGMENT..];
            for entry in &segment[..segment.len().min(count - batch.len())] {
                let entry_size = entry.size();
                if size + entry_size > bytes && !batch.is_empty() {
                    return (batch, size);
                }
                size += entry_size;
                batch.push(StoredRecord {
                    position: Position::from(offset),
                    timestamp: to_time(entry.timestamp),
                    key: entry.key.clone(),
                    payload: match &entry.payload {
                        None if failpoint!(TombstoneEmptied) => Some(Bytes::new()),
                        payload => payload.clone(),
                    },
                    headers: entry.headers.clone(),
                });
                offset += 1;
            }
        }
        (batch, size)
    }

    /// Returns the first offset whose timestamp is not before `millis`, or `end`.
    pub(crate) fn first_at(&self, millis: i64) -> u64 {
        let mut first = self.base;
        for segment in &self.segments {
            if segment.newest_timestamp >= millis {
                let within = segment
                    .entries
                    .iter()
                    .zip(first..)
                    .find(|(entry, offset)| *offset >= self.start && entry.timestamp >= millis);
                if let Some((_, offset)) = within {
                    return offset;
                }
            }
            first += segment.entries.len() as u64;
        }
        self.end
    }

    /// Removes records beyond the policy. The byte bound always keeps the newest record.
    pub(crate) fn trim(&mut self, retention: RetentionPolicy, now: i64) {
        if let Some(age) = retention.age {
            let oldest = now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            while self
                .get(self.start)
                .is_some_and(|entry| entry.stored_at < oldest)
            {
                self.drop_first();
            }
        }
        if let Some(bytes) = retention.bytes {
            while self.bytes > bytes && self.end - self.start > 1 {
                self.drop_first();
            }
        }
    }

    fn drop_first(&mut self) {
        let index = (self.start - self.base) as usize;
        let first = self
            .segments
            .front_mut()
            .expect("a log of records has a segment");
        let entry = std::mem::take(&mut first.entries[index]);
        self.bytes -= entry.size();
        self.start += 1;
        if index + 1 == first.entries.len() && (self.start == self.end || index + 1 == SEGMENT) {
            self.segments.pop_front();
            self.base = self.start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: u64) -> Log {
        let mut log = Log::default();
        for n in 0..records {
            log.append(Record::new(n.to_string()), n as i64);
        }
        log
    }

    #[test]
    fn reads_across_segments_in_order() {
        let log = log(5_000);
        let batch = log.read(1_000, 3_000, u64::MAX).0;
        assert_eq!(batch.len(), 3_000);
        for (record, offset) in batch.iter().zip(1_000u64..) {
            assert_eq!(record.position, Position::from(offset));
            assert_eq!(record.payload.as_ref().unwrap(), &offset.to_string());
        }
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_but_has_one_record() {
        let mut log = Log::default();
        for _ in 0..3 {
            log.append(Record::new(vec![0; 100]), 0);
        }
        assert_eq!(log.read(0, 10, 250).0.len(), 2);
        assert_eq!(log.read(0, 10, 1).0.len(), 1);
    }

    #[test]
    fn trims_by_age_and_by_bytes_across_segments() {
        let mut log = log(3_000);
        let retention = RetentionPolicy {
            age: Some(Duration::from_millis(500)),
            bytes: None,
        };
        log.trim(retention, 2_999);
        assert_eq!((log.start(), log.end()), (2_499, 3_000));
        assert_eq!(
            log.read(2_499, 1, 1).0[0].payload.as_deref(),
            Some(&b"2499"[..])
        );
        let retention = RetentionPolicy {
            age: None,
            bytes: Some(4),
        };
        log.trim(retention, 2_999);
        assert_eq!((log.start(), log.end()), (2_999, 3_000));
        log.append(Record::new("next"), 0);
        assert_eq!(log.get(3_000).map(|entry| entry.stored_at), Some(2_999));
    }

    #[test]
    fn appends_after_everything_was_trimmed() {
        let mut log = log(10);
        let retention = RetentionPolicy {
            age: Some(Duration::ZERO),
            bytes: None,
        };
        log.trim(retention, 100);
        assert!(log.is_empty());
        assert_eq!(log.append(Record::new("x"), 100), 10);
        assert_eq!(log.read(10, 5, 5).0.len(), 1);
    }

    #[test]
    fn finds_the_first_record_at_a_time() {
        let mut log = log(2_000);
        log.append(Record::new("late").timestamp(to_time(10_000)), 2_000);
        assert_eq!(log.first_at(-5), 0);
        assert_eq!(log.first_at(1_500), 1_500);
        assert_eq!(log.first_at(5_000), 2_000);
        assert_eq!(log.first_at(20_000), 2_001);
    }

    #[test]
    fn truncate_removes_the_newest() {
        let mut log = log(2_050);
        log.truncate(1_024);
        assert_eq!(log.end(), 1_024);
        assert_eq!(log.append(Record::new("x"), 9_000), 1_024);
        assert_eq!(log.read(1_023, 5, u64::MAX).0.len(), 2);
    }
}
