//! The table: streams of encoded records, and the rows of groups. It represents a database with
//! conditional writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use millstream_core::driver::{
    AssignedPartition, StoredRecord, decode_record, encode_record, from_millis, key_hash, to_millis,
};
use millstream_core::{
    Error, ErrorKind, Lag, Partition, PartitionDescription, Record, RecordMetadata, Result, Start,
    StreamDescription,
};

mod connection;
mod leases;

pub(crate) use connection::Connection;
pub(crate) use leases::{Group, Lease, MemberRow};

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) streams: BTreeMap<String, Stream>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// The number of assigned ids.
    pub(crate) ids: u64,
    /// The times until which members are cut off, by group and name.
    pub(crate) frozen: BTreeMap<(String, String), Instant>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: Arc<str>,
    pub(crate) logs: Vec<Log>,
    round_robin: usize,
}

/// The records of a partition.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) first: u64,
    /// The records, each with the time at which it was stored.
    entries: VecDeque<(SystemTime, Bytes)>,
}

impl Table {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn create(&mut self, name: &str, partitions: usize) -> Result<()> {
        if self.streams.contains_key(name) {
            let message = "there is a stream of this name";
            let error = Error::new(ErrorKind::AlreadyExists, "create stream", message);
            return Err(error.with_stream(name));
        }
        let id = format!("stream-{}", self.next_id());
        let stream = Stream {
            id: id.into(),
            logs: Vec::new(),
            round_robin: 0,
        };
        self.streams.insert(name.to_owned(), stream);
        self.add_partitions(name, partitions)
    }

    /// Grows a stream to this many partitions.
    pub(crate) fn add_partitions(&mut self, name: &str, partitions: usize) -> Result<()> {
        let stream = self.stream("add partitions", name)?;
        if stream.logs.len() >= partitions {
            let message = "the stream has as many partitions";
            let error = Error::new(ErrorKind::Invalid, "add partitions", message);
            return Err(error.with_stream(name));
        }
        stream.logs.resize_with(partitions, Log::default);
        Ok(())
    }

    pub(crate) fn stream(&mut self, operation: &'static str, name: &str) -> Result<&mut Stream> {
        let unknown = || Error::new(ErrorKind::NotFound, operation, "there is no such stream");
        let stream = self.streams.get_mut(name);
        stream.ok_or_else(|| unknown().with_stream(name))
    }

    /// Returns a stream, unless it was deleted and recreated.
    pub(crate) fn same_stream(
        &mut self,
        operation: &'static str,
        name: &str,
        id: &Arc<str>,
    ) -> Result<&mut Stream> {
        let deleted = || Error::new(ErrorKind::NotFound, operation, "the stream was deleted");
        let stream = self.stream(operation, name)?;
        let same = Some(stream).filter(|stream| stream.id == *id);
        same.ok_or_else(|| deleted().with_stream(name))
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<()> {
        self.stream("delete stream", name)?;
        self.streams.remove(name);
        for group in self.groups.values_mut() {
            group.stream_deleted(name);
        }
        Ok(())
    }

    pub(crate) fn group(&mut self, operation: &'static str, name: &str) -> Result<&mut Group> {
        let unknown = || Error::new(ErrorKind::NotFound, operation, "there is no such group");
        let group = self.groups.get_mut(name);
        group.ok_or_else(|| unknown().with_group(name))
    }

    /// Stores the start of a group in a stream that it has never read, and returns the stream's id.
    pub(crate) fn start(&mut self, group: &str, stream: &str, start: Start) -> Result<Arc<str>> {
        let found = self.stream("join", stream)?;
        let (id, offsets) = (found.id.clone(), found.offsets(start)?);
        let group = self.groups.entry(group.to_owned()).or_default();
        if !group.reads(stream) {
            group.move_to(stream, &offsets);
        }
        Ok(id)
    }

    pub(crate) fn begin_reset(&mut self, group: &str, stream: &str, to: Start) -> Result<()> {
        let offsets = self.stream("reset", stream)?.offsets(to)?;
        let group = self.group("reset", group)?;
        group.resets.insert(stream.to_owned(), offsets);
        Ok(())
    }

    pub(crate) fn is_resetting(&mut self, group: &str, stream: &str) -> Result<bool> {
        self.rebalance(group, Instant::now());
        Ok(self.group("reset", group)?.resets.contains_key(stream))
    }

    /// Handles what is due in a group.
    pub(crate) fn rebalance(&mut self, group: &str, now: Instant) {
        if let Some(group) = self.groups.get_mut(group) {
            group.rebalance(&self.streams, now);
        }
    }

    pub(crate) fn remove_member(&mut self, group: &str, member: &str, now: Instant) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.remove(member);
            group.rebalance(&self.streams, now);
        }
    }

    /// Renews the session of a member, and returns its assignments; `None` if there is no such member.
    pub(crate) fn renew(
        &mut self,
        group: &str,
        member: &str,
        expires: Instant,
    ) -> Result<Option<Vec<AssignedPartition>>> {
        let members = &mut self.group("heartbeat", group)?.members;
        let Some(row) = members.get_mut(member) else {
            return Ok(None);
        };
        row.expires = expires;
        for (name, id) in row.streams.clone() {
            self.same_stream("read", &name, &id)?;
        }
        let group = &self.groups[group];
        Ok(Some(group.assigned(member, &self.streams, Instant::now())))
    }

    pub(crate) fn log(&self, partition: &Partition) -> Option<&Log> {
        let number: usize = partition.id().parse().ok()?;
        self.streams.get(partition.stream())?.logs.get(number)
    }
}

impl Stream {
    pub(crate) fn append(&mut self, name: &str, record: &Record) -> RecordMetadata {
        self.round_robin += 1;
        let hash = record.key.as_deref().map(|key| key_hash(key) as usize);
        let number = hash.unwrap_or(self.round_robin) % self.logs.len();
        let log = &mut self.logs[number];
        let now = from_millis(to_millis(SystemTime::now())).expect("the platform has this time");
        let offset = log.end();
        log.entries.push_back((now, encode_record(record)));
        RecordMetadata::new(Partition::new(name, number.to_string()), offset.into())
    }

    pub(crate) fn describe(&self, name: &str) -> StreamDescription {
        let partition = |(number, log): (usize, &Log)| PartitionDescription {
            partition: Partition::new(name, number.to_string()),
            open: true,
            parents: Vec::new(),
            earliest: (log.first < log.end()).then(|| log.first.into()),
            latest: (log.first < log.end()).then(|| (log.end() - 1).into()),
        };
        StreamDescription {
            name: name.to_owned(),
            partitions: self.logs.iter().enumerate().map(partition).collect(),
        }
    }

    /// Returns the initial offset of each partition for a group that starts at `start`.
    pub(crate) fn offsets(&self, start: Start) -> Result<Vec<u64>> {
        self.logs.iter().map(|log| log.offset(start)).collect()
    }

    /// Removes all records.
    pub(crate) fn trim(&mut self) {
        for log in &mut self.logs {
            log.first = log.end();
            log.entries.clear();
        }
    }
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Returns records from an offset on: at most `count`, and at most `bytes` unless it is a single record.
    pub(crate) fn read(&self, from: u64, count: usize, bytes: usize) -> Result<Vec<StoredRecord>> {
        let mut left = bytes;
        let mut records = Vec::new();
        let skipped = from.saturating_sub(self.first) as usize;
        for (offset, entry) in (self.first..).zip(&self.entries).skip(skipped).take(count) {
            let record = decode_record(entry.1.clone())?;
            if record.size() > left && !records.is_empty() {
                break;
            }
            left = left.saturating_sub(record.size());
            records.push(StoredRecord {
                position: offset.into(),
                timestamp: record.timestamp.unwrap_or(entry.0),
                key: record.key,
                payload: record.payload,
                headers: record.headers,
            });
        }
        Ok(records)
    }

    pub(crate) fn lag(&self, from: u64) -> Lag {
        let from = from.max(self.first);
        let next = self.entries.get((from - self.first) as usize);
        let age = next.and_then(|(stored_at, _)| stored_at.elapsed().ok());
        Lag {
            records: Some(self.end() - from),
            time: Some(age.unwrap_or_default()),
        }
    }

    fn offset(&self, start: Start) -> Result<u64> {
        match start {
            Start::Earliest => Ok(self.first),
            Start::Latest => Ok(self.end()),
            Start::At(time) => {
                let records = self.read(self.first, usize::MAX, usize::MAX)?;
                let before = records.iter().take_while(|record| record.timestamp < time);
                Ok(self.first + before.count() as u64)
            }
            other => {
                let message = format!("the driver does not know {other:?}");
                Err(Error::new(ErrorKind::Unsupported, "start", message))
            }
        }
    }
}
