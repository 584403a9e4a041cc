//! Streams whose shards a test splits and merges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_kinesis::types::StreamStatus;
use millstream_core::{Error, ErrorKind, Position, Result};

use crate::lease::row::Pin;
use crate::lease::source::ShardSource;
use crate::stream::{HashRange, Shard, StreamInfo};

#[derive(Debug, Clone)]
struct Stream {
    created: SystemTime,
    shards: Vec<Shard>,
    made: usize,
    distributes: bool,
}

/// Cheap to clone: all clones share the same streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemorySource {
    streams: Arc<Mutex<BTreeMap<String, Stream>>>,
    pins: Arc<Mutex<u64>>,
    failing: Arc<Mutex<Option<ErrorKind>>>,
}

pub(crate) fn id(number: usize) -> Arc<str> {
    format!("shardId-{number:012}").into()
}

impl MemorySource {
    /// Creates a stream whose shards have equal parts of the hash keys. An existing stream is replaced by a
    /// new one.
    pub(crate) fn create(&self, name: &str, shards: usize) {
        let mut streams = self.streams.lock().unwrap();
        let age = streams
            .get(name)
            .map_or(0, |stream| stream.made as u64 + 60);
        let part = u128::MAX / shards as u128;
        let shard = |number: usize| Shard {
            id: id(number),
            parents: Vec::new(),
            range: HashRange {
                first: match number {
                    0 => 0,
                    _ => part * number as u128 + 1,
                },
                last: match number + 1 == shards {
                    true => u128::MAX,
                    false => part * (number as u128 + 1),
                },
            },
            starting: Position::from(1),
            open: true,
        };
        let stream = Stream {
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + age),
            shards: (0..shards).map(shard).collect(),
            made: shards,
            distributes: false,
        };
        streams.insert(name.to_owned(), stream);
    }

    pub(crate) fn delete(&self, name: &str) {
        self.streams.lock().unwrap().remove(name);
    }

    /// Returns the children.
    pub(crate) fn split(&self, stream: &str, shard: usize) -> Vec<Shard> {
        self.reshard(stream, &[shard], |ranges| {
            let range = ranges[0];
            let middle = range.first + (range.last - range.first) / 2;
            vec![
                HashRange {
                    last: middle,
                    ..range
                },
                HashRange {
                    first: middle + 1,
                    ..range
                },
            ]
        })
    }

    /// Returns the child. The first shard has the smaller hash keys.
    pub(crate) fn merge(&self, stream: &str, one: usize, other: usize) -> Vec<Shard> {
        self.reshard(stream, &[one, other], |ranges| {
            vec![HashRange {
                first: ranges[0].first,
                last: ranges[1].last,
            }]
        })
    }

    fn reshard(
        &self,
        stream: &str,
        parents: &[usize],
        ranges: impl FnOnce(&[HashRange]) -> Vec<HashRange>,
    ) -> Vec<Shard> {
        let mut streams = self.streams.lock().unwrap();
        let stream = streams.get_mut(stream).unwrap();
        let parents: Vec<Arc<str>> = parents.iter().copied().map(id).collect();
        let mut before = Vec::new();
        for parent in &parents {
            let shard = stream.shards.iter_mut().find(|shard| shard.id == *parent);
            let shard = shard.unwrap();
            shard.open = false;
            before.push(shard.range);
        }
        let mut children = Vec::new();
        for range in ranges(&before) {
            children.push(Shard {
                id: id(stream.made),
                parents: parents.clone(),
                range,
                starting: Position::from(stream.made as u64 + 100),
                open: true,
            });
            stream.made += 1;
        }
        stream.shards.extend(children.iter().cloned());
        children
    }

    /// Sets whether a stream distributes records itself.
    pub(crate) fn distribute(&self, stream: &str, distributes: bool) {
        let mut streams = self.streams.lock().unwrap();
        streams.get_mut(stream).unwrap().distributes = distributes;
    }

    /// Lists a shard as open, or as closed.
    pub(crate) fn list_open(&self, stream: &str, shard: usize, open: bool) {
        let mut streams = self.streams.lock().unwrap();
        let shards = &mut streams.get_mut(stream).unwrap().shards;
        let listed = shards.iter_mut().find(|listed| listed.id == id(shard));
        listed.unwrap().open = open;
    }

    /// Sets the position before which a shard has no record.
    pub(crate) fn begin_at(&self, stream: &str, shard: usize, starting: Position) {
        let mut streams = self.streams.lock().unwrap();
        let shards = &mut streams.get_mut(stream).unwrap().shards;
        let listed = shards.iter_mut().find(|listed| listed.id == id(shard));
        listed.unwrap().starting = starting;
    }

    /// Deletes a shard, like retention.
    pub(crate) fn trim(&self, stream: &str, shard: usize) {
        let mut streams = self.streams.lock().unwrap();
        let shards = &mut streams.get_mut(stream).unwrap().shards;
        shards.retain(|other| other.id != id(shard));
    }

    pub(crate) fn fail(&self, kind: Option<ErrorKind>) {
        *self.failing.lock().unwrap() = kind;
    }

    /// Returns the number of pins that were taken.
    pub(crate) fn pins(&self) -> u64 {
        *self.pins.lock().unwrap()
    }

    /// Returns the description of a stream that exists, even while requests fail.
    pub(crate) fn described(&self, name: &str) -> StreamInfo {
        info(name, &self.streams.lock().unwrap()[name])
    }

    fn stream(&self, name: &str) -> Result<Stream> {
        if let Some(kind) = *self.failing.lock().unwrap() {
            return Err(Error::new(kind, "test", "scripted"));
        }
        let streams = self.streams.lock().unwrap();
        let missing = || Error::new(ErrorKind::NotFound, "test", "no such stream");
        streams.get(name).cloned().ok_or_else(missing)
    }
}

fn info(name: &str, stream: &Stream) -> StreamInfo {
    StreamInfo {
        name: name.into(),
        arn: format!("arn:aws:kinesis:test:000000000000:stream/{name}").into(),
        created: stream.created,
        record_bytes: 1 << 20,
        status: StreamStatus::Active,
        distributes: stream.distributes,
    }
}

#[async_trait]
impl ShardSource for MemorySource {
    async fn info(&self, stream: &str) -> Result<StreamInfo> {
        let found = self.stream(stream).map_err(|e| e.with_stream(stream))?;
        Ok(info(stream, &found))
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        Ok(self.stream(stream)?.shards)
    }

    async fn latest(&self, stream: &str, shard: &str) -> Result<Pin> {
        self.stream(stream)?;
        let mut pins = self.pins.lock().unwrap();
        *pins += 1;
        Ok(Pin {
            iterator: format!("{shard}#{pins}"),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(*pins),
        })
    }
}
