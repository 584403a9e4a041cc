//! The entries of the journal.

use bytes::Bytes;
use millstream_core::driver::to_millis;
use millstream_core::{Headers, Record};
use serde::{Deserialize, Serialize};

use crate::clock::to_time;
use crate::coordinator::StartOffset;
use crate::ids::{GroupId, PartitionId, PartitionRef, StreamId};
use crate::log::LogEntry;

/// One change of the broker. The file stores a variant by its index: new variants are appended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum JournalEntry {
    /// The folder was opened.
    Opened,
    StreamCreated {
        name: String,
        public_id: String,
        partitions: usize,
    },
    StreamDeleted {
        stream: StreamId,
    },
    PartitionSplit {
        stream: StreamId,
        parent: PartitionId,
    },
    PartitionsMerged {
        stream: StreamId,
        one: PartitionId,
        other: PartitionId,
    },
    PartitionsAdded {
        stream: StreamId,
        partitions: usize,
    },
    Appended {
        stream: StreamId,
        records: Vec<JournalRecord>,
    },
    GroupCreated {
        name: String,
    },
    /// The group was moved in a stream: by its first join, or by a reset.
    OffsetsSet {
        group: GroupId,
        stream: StreamId,
        offsets: Vec<StartOffset>,
    },
    Checkpointed {
        group: GroupId,
        commits: Vec<OffsetCommit>,
    },
    Completed {
        group: GroupId,
        partition: PartitionRef,
        end: u64,
    },
    /// Records and progress in one step.
    Published {
        group: GroupId,
        commits: Vec<OffsetCommit>,
        stream: StreamId,
        records: Vec<JournalRecord>,
    },
}

/// The progress of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OffsetCommit {
    pub(crate) partition: PartitionRef,
    /// The epoch of the owner that commits it.
    pub(crate) epoch: u64,
    /// The offset of the first record that is not settled.
    pub(crate) next_offset: u64,
}

impl JournalEntry {
    /// Returns when the newest record of the entry was stored.
    pub(crate) fn stored_at(&self) -> Option<i64> {
        match self {
            Self::Appended { records, .. } | Self::Published { records, .. } => {
                records.iter().map(|record| record.stored_at).max()
            }
            _ => None,
        }
    }

    /// Returns the records of an `Appended` entry.
    pub(crate) fn into_records(self) -> Vec<Record> {
        match self {
            Self::Appended { records, .. } => records
                .into_iter()
                .map(JournalRecord::into_record)
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// A record in the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JournalRecord {
    partition: PartitionId,
    key: Option<Bytes>,
    payload: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
    timestamp: i64,
    stored_at: i64,
}

impl JournalRecord {
    pub(crate) fn from_log_entry(partition: PartitionId, entry: &LogEntry) -> Self {
        let header = |(name, value): (&str, Option<&Bytes>)| (name.to_owned(), value.cloned());
        Self {
            partition,
            key: entry.key.clone(),
            payload: entry.payload.clone(),
            headers: entry.headers.iter().map(header).collect(),
            timestamp: entry.timestamp,
            stored_at: entry.stored_at,
        }
    }

    /// Creates the entry of a record that is stored at `stored_at`.
    pub(crate) fn from_record(partition: PartitionId, record: &Record, stored_at: i64) -> Self {
        let header = |(name, value): (&str, Option<&Bytes>)| (name.to_owned(), value.cloned());
        Self {
            partition,
            key: record.key.clone(),
            payload: record.payload.clone(),
            headers: record.headers.iter().map(header).collect(),
            timestamp: record.timestamp.map_or(stored_at, to_millis),
            stored_at,
        }
    }

    pub(crate) fn into_log_entry(self) -> (PartitionId, LogEntry) {
        let mut headers = Headers::new();
        headers.extend(self.headers);
        let entry = LogEntry {
            key: self.key,
            payload: self.payload,
            headers,
            timestamp: self.timestamp,
            stored_at: self.stored_at,
        };
        (self.partition, entry)
    }

    fn into_record(self) -> Record {
        // A timestamp from the broker is not part of the record: it is set again by the next send.
        let has_own_timestamp = self.timestamp != self.stored_at;
        let (_, entry) = self.into_log_entry();
        let mut record = Record::default();
        record.payload = entry.payload;
        record.key = entry.key;
        record.headers = entry.headers;
        record.timestamp = has_own_timestamp.then(|| to_time(entry.timestamp));
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_kept() {
        let mut sent = Record::tombstone("k");
        sent.headers.push_null("n");
        sent.headers.push("e", "");
        for sent in [sent, Record::new("").key("k")] {
            let record = JournalRecord::from_record(0, &sent, 7);
            let body = postcard::to_allocvec(&record).unwrap();
            let read: JournalRecord = postcard::from_bytes(&body).unwrap();
            assert_eq!(read.into_record(), sent);
        }
    }
}
