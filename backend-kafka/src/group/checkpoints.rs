//! The stored progress of a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use millstream_core::{Checkpoint, Error, ErrorKind, Lag, Partition, Result, Start, driver};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;

use crate::background;
use crate::cluster::list_offsets::{OffsetSpec, list_led_offsets};
use crate::cluster::topics;
use crate::connection::Connection;
use crate::error;
use crate::group::group_offsets::GroupOffsets;
use crate::group::note::Note;
use crate::group::oldest::{First, RecordReader};
use crate::group::reset;
use crate::native::group_offsets::StoredOffset;
use crate::native::topic_ids::{self, TopicId};
use crate::offsets;

const READ: &str = "read checkpoints";

/// How long to search for the oldest records of one stream. Records that are not found are not reported.
const LOOK: Duration = Duration::from_secs(3);

/// How long to wait for the id of a topic.
const FOR_TOPIC_ID: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Checkpoints {
    connection: Arc<Connection>,
    group: String,
}

/// The stored offsets and the bounds of one stream, by partition.
struct Reading {
    stream: String,
    stored: BTreeMap<i32, StoredOffset>,
    /// The bounds, by partition, if it has a leader.
    ends: Vec<Option<Ends>>,
}

/// The first and the next offset of a partition.
#[derive(Debug, Clone, Copy)]
struct Ends {
    low: i64,
    high: i64,
}

impl Checkpoints {
    pub(crate) fn new(connection: &Arc<Connection>, group: &str) -> Self {
        Self {
            connection: connection.clone(),
            group: group.to_owned(),
        }
    }

    /// Reads all streams. A deleted stream is left out: its offsets are about to be removed.
    async fn readings(&self) -> Result<Vec<Reading>> {
        let timeout = self.connection.config.request_timeout;
        let request_client = &self.connection.request_client;
        let of_group = GroupOffsets::new(&self.connection, READ, &self.group);
        let stored = of_group.read(timeout).await?;
        if stored.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                READ,
                "the group has no progress on any stream",
            ));
        }
        let mut streams: BTreeMap<String, BTreeMap<i32, StoredOffset>> = BTreeMap::new();
        for offset in stored {
            let stream = streams.entry(offset.topic.clone()).or_default();
            stream.insert(offset.partition, offset);
        }
        let mut readings = Vec::with_capacity(streams.len());
        for (stream, stored) in streams {
            let topic = stream.clone();
            let asked = request_client.ask(READ, move |client| {
                let Some(found) = topics::look_up(client, &topic, timeout)? else {
                    return Ok(None);
                };
                let list = |spec| list_led_offsets(client, &topic, &found, spec, timeout);
                let (lows, highs) = (list(OffsetSpec::Earliest)?, list(OffsetSpec::Latest)?);
                let ends = lows.into_iter().zip(highs);
                let ends = ends.map(|(low, high)| {
                    Some(Ends {
                        low: low?,
                        high: high?,
                    })
                });
                let ends: Vec<Option<Ends>> = ends.collect();
                let ids = topic_ids::read(client.client(), &[&*topic], FOR_TOPIC_ID);
                // Without the id, the stored offset is assumed to be of this topic.
                let id = ids.ok().and_then(|ids| ids.get(&*topic)?.ok()?);
                Ok(Some((ends, id)))
            });
            match asked.await {
                Ok(Some((ends, id))) => readings.push(Reading {
                    stream,
                    stored: of_topic(id, stored),
                    ends,
                }),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.with_stream(stream)),
            }
        }
        Ok(readings)
    }
}

/// Returns the stored offsets of a topic, without those of an earlier topic of the same name.
fn of_topic(
    id: Option<TopicId>,
    mut stored: BTreeMap<i32, StoredOffset>,
) -> BTreeMap<i32, StoredOffset> {
    stored.retain(|_, offset| {
        let known = Note::from_metadata(&offset.metadata).topic;
        known.is_none() || id.is_none() || known == id
    });
    stored
}

impl Reading {
    /// Returns the offset at which the group continues. A partition that was added later is read from its beginning.
    fn next(&self, partition: i32, low: i64) -> i64 {
        let stored = self.stored.get(&partition).map_or(0, |stored| stored.next);
        stored.max(low)
    }

    /// Returns the partitions with unsettled records, and the offset at which these begin.
    fn behind(&self) -> BTreeMap<i32, i64> {
        let partitions = (0..).zip(&self.ends);
        let behind = partitions.filter_map(|(id, ends)| {
            let Ends { low, high } = (*ends)?;
            let next = self.next(id, low);
            (next < high).then_some((id, next))
        });
        behind.collect()
    }

    fn checkpoints(&self, firsts: &BTreeMap<i32, First>, now: SystemTime) -> Vec<Checkpoint> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name: Arc<str> = self.stream.as_str().into();
        let checkpoint = |(id, ends): (i32, &Option<Ends>)| {
            let left = ends.map_or(0, |Ends { low, high }| {
                u64::try_from(high - self.next(id, low)).unwrap_or(0)
            });
            let lag = match firsts.get(&id) {
                _ if ends.is_none() => (None, None),
                _ if left == 0 => (Some(0), Some(Duration::ZERO)),
                Some(First::Nothing) => (Some(0), Some(Duration::ZERO)),
                Some(First::Record(Some(millis))) => {
                    let then = Duration::from_millis(u64::try_from(*millis).unwrap_or(0));
                    // Whole milliseconds, because records have no finer timestamps.
                    let now = Duration::from_millis(now.as_millis() as u64);
                    (Some(left), Some(now.saturating_sub(then)))
                }
                Some(First::Record(None)) | None => (Some(left), None),
            };
            let stored = self.stored.get(&id);
            let note = stored.and_then(|stored| Note::of_ours(&stored.metadata));
            // If a group was only created here or moved here, nothing is settled yet. Another client's
            // offset shows nothing but its position.
            let moved = note.is_some_and(|note| note.epoch.is_none());
            let settled = stored.filter(|_| !moved);
            Checkpoint {
                partition: Partition::new(name.clone(), id.to_string()),
                position: settled.and_then(|stored| offsets::settled(stored.next)),
                epoch: note.and_then(|note| note.epoch),
                completed: false,
                lag: Lag {
                    records: lag.0,
                    time: lag.1,
                },
            }
        };
        (0..).zip(&self.ends).map(checkpoint).collect()
    }
}

#[async_trait]
impl driver::Checkpoints for Checkpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let readings = self.readings().await;
        let readings = readings.map_err(|e| e.with_group(self.group.as_str()))?;
        let (settings, context) = (self.connection.common(), self.connection.context(READ));
        let mut reader = RecordReader::new(settings, context, &self.group);
        let read = background::run(READ, move || {
            let mut checkpoints = Vec::new();
            for reading in readings {
                let firsts = reader.first_records(&reading.stream, &reading.behind(), LOOK)?;
                checkpoints.extend(reading.checkpoints(&firsts, SystemTime::now()));
            }
            Ok::<_, KafkaError>(checkpoints)
        });
        let read = read
            .await
            .and_then(|read| read.map_err(|e| error::from(READ, e)));
        read.map_err(|e| e.with_group(self.group.as_str()))
    }

    /// A dropped call leaves the group moved, or the move requested, or neither.
    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let reset = reset::reset(&self.connection, &self.group, stream, to);
        reset.await.map_err(|e| {
            // A refused request names the group in which it is stored.
            let e = match e.group() {
                Some(_) => e,
                None => e.with_group(self.group.as_str()),
            };
            e.with_stream(stream)
        })
    }
}
