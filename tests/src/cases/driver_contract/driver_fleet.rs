//! A stream and a group that reads it, for members without a runtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::driver::{self, FilteredCounter, JoinOptions};
use millstream_core::{Checkpoint, Client, Partition, Position, Record, Start};

use super::driver_member::DriverMember;
use crate::harness::unique_stream;
use crate::{Harness, Timing};

/// The positions of the records of each partition, in stored order.
pub(super) type StoredPositions = BTreeMap<Partition, Vec<Position>>;

/// A stream, a group, and a connection to produce and to inspect.
pub(super) struct DriverFleet {
    pub(super) harness: Arc<dyn Harness>,
    pub(super) client: Client,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) timing: Timing,
}

impl DriverFleet {
    /// Creates a stream, and names a group.
    pub(super) async fn new(harness: Arc<dyn Harness>, partitions: usize) -> Self {
        Self {
            client: harness.client().await,
            stream: unique_stream(&*harness, partitions).await,
            group: harness.unique("group"),
            timing: harness.timing(),
            harness,
        }
    }

    /// Joins with a separate connection, and a drain that is long enough for everything that a case
    /// does within it, on a busy machine too.
    pub(super) async fn join(&self, name: &str) -> DriverMember {
        self.join_with(self.options(name)).await
    }

    /// Joins with a separate connection.
    pub(super) async fn join_with_drain(&self, name: &str, drain: Duration) -> DriverMember {
        let options = JoinOptions {
            drain,
            ..self.options(name)
        };
        self.join_with(options).await
    }

    /// Joins with a separate connection.
    pub(super) async fn join_with(&self, options: JoinOptions) -> DriverMember {
        let name = options.member.as_deref().expect("members are named");
        let client = self.harness.named_client(name).await;
        DriverMember::join(client, &self.group, options, self.timing).await
    }

    /// Returns the options of a member.
    pub(super) fn options(&self, name: &str) -> JoinOptions {
        JoinOptions {
            streams: vec![self.stream.as_str().into()],
            start: Start::Earliest,
            member: Some(name.into()),
            batch_records: 100,
            batch_bytes: 1 << 20,
            buffer_bytes: 16 << 20,
            drain: self.timing.timeout / 2,
            required: Vec::new(),
            filtered: FilteredCounter::default(),
        }
    }

    /// Sends records with many keys until every partition has `per_partition`, and returns their
    /// positions.
    pub(super) async fn fill(&self, per_partition: usize) -> StoredPositions {
        self.fill_with(per_partition, b"payload").await
    }

    /// Like [`fill`](Self::fill), with a payload.
    pub(super) async fn fill_with(
        &self,
        per_partition: usize,
        payload: &'static [u8],
    ) -> StoredPositions {
        let described = self.client.streams().describe(&self.stream).await;
        let described = described.expect("the stream is described");
        let partitions = described.partitions.into_iter();
        let mut stored: StoredPositions = partitions.map(|of| (of.partition, Vec::new())).collect();
        let producer = self.client.producer(self.stream.as_str()).open().await;
        let producer = producer.expect("the producer opens");
        let mut key = 0;
        while stored
            .values()
            .any(|positions| positions.len() < per_partition)
        {
            let mut receipts = Vec::new();
            for _ in 0..per_partition * stored.len() {
                let record = Record::new(payload).key(format!("key-{key}"));
                receipts.push(producer.send(record).await.expect("there is room"));
                key += 1;
            }
            for receipt in receipts {
                let place = receipt.await.expect("the record is stored");
                stored
                    .entry(place.partition)
                    .or_default()
                    .push(place.position);
            }
        }
        producer.close().await.expect("the producer closes");
        for positions in stored.values_mut() {
            positions.sort_unstable();
        }
        stored
    }

    /// Returns the stored progress of the group.
    pub(super) async fn progress(&self) -> BTreeMap<Partition, Checkpoint> {
        let read = self.checkpoints().read().await;
        let read = read.unwrap_or_else(|error| panic!("the progress cannot be read: {error:?}"));
        let by_partition = read.into_iter().map(|of| (of.partition.clone(), of));
        by_partition.collect()
    }

    /// Returns the stored last settled position of a partition.
    pub(super) async fn position(&self, partition: &Partition) -> Option<Position> {
        self.progress().await.get(partition)?.position
    }

    /// Returns the driver's handle to the group's progress.
    pub(super) fn checkpoints(&self) -> Arc<dyn driver::Checkpoints> {
        self.client.driver().checkpoints(&self.group)
    }
}
