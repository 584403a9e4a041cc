//! A broker, and members that record the events they get.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::driver::{
    Backend, CheckpointUpdate, Checkpoints, Event, FilteredCounter, JoinOptions, Membership,
    Producer, StoredRecord, Streams,
};
use millstream_core::{
    Checkpoint, Epoch, ErrorKind, Lag, Partition, Position, Record, Result, Start, StreamSpec,
};
use millstream_memory::{Config, Memory};

pub(crate) const DRAIN: Duration = Duration::from_secs(5);
pub(crate) const SESSION: Duration = Duration::from_secs(10);

pub(crate) struct Fixture {
    pub(crate) memory: Memory,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.start_time = Some(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000));
        set(&mut config);
        Self {
            memory: Memory::new(config).unwrap(),
        }
    }

    pub(crate) async fn with_stream(partitions: usize) -> Self {
        let fixture = Self::new();
        fixture.create("s", partitions).await;
        fixture
    }

    pub(crate) async fn create(&self, stream: &str, partitions: usize) {
        let spec = StreamSpec::new(stream).partitions(partitions);
        self.streams().create(&spec).await.unwrap();
    }

    pub(crate) fn streams(&self) -> Arc<dyn Streams> {
        Backend::streams(&self.memory)
    }

    pub(crate) async fn producer(&self, stream: &str) -> Arc<dyn Producer> {
        self.memory.open_producer(stream, &[]).await.unwrap()
    }

    /// Sends records `key=value` to stream `s` and expects them stored.
    pub(crate) async fn send(&self, records: &[&str]) {
        let records = records.iter().map(|text| record(text)).collect();
        for result in self.producer("s").await.send(records).await {
            result.unwrap();
        }
    }

    /// Sends `count` records to each open partition of stream `s`, without keys.
    pub(crate) async fn fill(&self, partitions: usize, count: usize) {
        let records = (0..count * partitions).map(|n| Record::new(n.to_string()));
        for result in self.producer("s").await.send(records.collect()).await {
            result.unwrap();
        }
    }

    pub(crate) fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints> {
        Backend::checkpoints(&self.memory, group)
    }

    pub(crate) async fn progress(&self, group: &str) -> Vec<Checkpoint> {
        self.checkpoints(group).read().await.unwrap()
    }

    /// Joins group `g` on stream `s`.
    pub(crate) async fn join(&self, name: &str) -> Member {
        self.join_with("g", name, |_| {}).await
    }

    pub(crate) async fn join_with(
        &self,
        group: &str,
        name: &str,
        set: impl FnOnce(&mut JoinOptions),
    ) -> Member {
        self.try_join(group, name, set).await.unwrap()
    }

    pub(crate) async fn try_join(
        &self,
        group: &str,
        name: &str,
        set: impl FnOnce(&mut JoinOptions),
    ) -> Result<Member> {
        let mut join = JoinOptions {
            streams: vec!["s".into()],
            start: Start::Earliest,
            member: Some(name.to_owned()),
            batch_records: 100,
            batch_bytes: 1 << 20,
            buffer_bytes: 16 << 20,
            drain: DRAIN,
            required: Vec::new(),
            filtered: FilteredCounter::default(),
        };
        set(&mut join);
        let membership = self.memory.consumer_group(group).join(join).await?;
        Ok(Member {
            membership,
            owned: BTreeMap::new(),
            records: BTreeMap::new(),
            payloads: Vec::new(),
            revoking: Vec::new(),
            lost: Vec::new(),
            ended: Vec::new(),
            assigned: Vec::new(),
            stream_ids: Vec::new(),
            data_loss: Vec::new(),
            lags: Vec::new(),
        })
    }
}

pub(crate) fn record(text: &str) -> Record {
    match text.split_once('=') {
        Some((key, value)) => Record::new(value.to_owned()).key(key.to_owned()),
        None => Record::new(text.to_owned()),
    }
}

pub(crate) fn partition(id: u32) -> Partition {
    Partition::new("s", id.to_string())
}

pub(crate) struct Member {
    pub(crate) membership: Arc<dyn Membership>,
    /// The owned partitions with their epochs. Revoked ones stay until they are released.
    pub(crate) owned: BTreeMap<Partition, Epoch>,
    pub(crate) records: BTreeMap<Partition, Vec<StoredRecord>>,
    pub(crate) payloads: Vec<String>,
    pub(crate) revoking: Vec<(Partition, Epoch)>,
    pub(crate) lost: Vec<(Partition, Epoch)>,
    pub(crate) ended: Vec<(Partition, Epoch)>,
    pub(crate) assigned: Vec<(Partition, Epoch, Option<Position>)>,
    /// The stream id of each assignment.
    pub(crate) stream_ids: Vec<String>,
    pub(crate) data_loss: Vec<(Option<Position>, Position)>,
    pub(crate) lags: Vec<(Partition, Lag)>,
}

impl Member {
    /// Handles pending events, or returns false if none arrives within 10 ms of the paused clock.
    pub(crate) async fn step(&mut self) -> Result<bool> {
        let wait = Duration::from_millis(10);
        let Ok(events) = tokio::time::timeout(wait, self.membership.next()).await else {
            return Ok(false);
        };
        let events = events?;
        assert!(!events.is_empty());
        events.into_iter().for_each(|event| self.on_event(event));
        Ok(true)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition,
                epoch,
                resume_after,
                stream_id,
            } => {
                self.stream_ids.push(stream_id.unwrap().to_string());
                self.owned.insert(partition.clone(), epoch);
                self.assigned.push((partition, epoch, resume_after));
            }
            Event::Records {
                partition,
                epoch,
                records,
                ..
            } => {
                assert_eq!(self.owned.get(&partition), Some(&epoch));
                assert!(!records.is_empty());
                let text = |stored: &StoredRecord| {
                    let payload = stored.payload.as_deref().unwrap_or_default();
                    String::from_utf8_lossy(payload).into_owned()
                };
                self.payloads.extend(records.iter().map(text));
                self.records.entry(partition).or_default().extend(records);
            }
            Event::Lag {
                partition,
                epoch,
                lag,
            } => {
                assert_eq!(self.owned.get(&partition), Some(&epoch));
                self.lags.push((partition, lag));
            }
            Event::DataLoss {
                after, earliest, ..
            } => self.data_loss.push((after, earliest)),
            Event::Revoking { partitions, within } => {
                assert!(within <= DRAIN);
                self.revoking.extend(partitions);
            }
            Event::Lost { partitions } => {
                for (partition, epoch) in partitions {
                    if self.owned.get(&partition) == Some(&epoch) {
                        self.owned.remove(&partition);
                    }
                    self.lost.push((partition, epoch));
                }
            }
            Event::Ended { partition, epoch } => self.ended.push((partition, epoch)),
        }
    }

    /// Handles all pending events.
    pub(crate) async fn settle(&mut self) {
        while self.step().await.unwrap() {}
    }

    pub(crate) fn partitions(&self) -> Vec<String> {
        self.owned.keys().map(|p| p.id().to_owned()).collect()
    }

    pub(crate) fn epoch(&self, id: u32) -> Epoch {
        self.owned[&partition(id)]
    }

    /// Checkpoints the last record received of each owned partition.
    pub(crate) async fn checkpoint_all(&self) {
        for (partition, epoch) in &self.owned {
            let last = self
                .records
                .get(partition)
                .and_then(|records| records.last());
            if let Some(last) = last {
                let update = CheckpointUpdate {
                    partition: partition.clone(),
                    epoch: *epoch,
                    position: last.position,
                };
                assert!(self.membership.checkpoint(&[update]).await[0].is_ok());
            }
        }
    }

    pub(crate) async fn checkpoint(
        &self,
        id: u32,
        epoch: Epoch,
        position: u64,
    ) -> Result<(), ErrorKind> {
        let update = CheckpointUpdate {
            partition: partition(id),
            epoch,
            position: Position::from(position),
        };
        let mut results = self.membership.checkpoint(&[update]).await;
        results.remove(0).map_err(|error| error.kind())
    }

    /// Checkpoints and releases all revoked partitions.
    pub(crate) async fn release_all(&mut self) {
        self.checkpoint_all().await;
        for (partition, epoch) in std::mem::take(&mut self.revoking) {
            self.membership.release(&partition, epoch).await.unwrap();
            self.owned.remove(&partition);
        }
    }

    /// Completes all ended partitions.
    pub(crate) async fn complete(&mut self) {
        self.checkpoint_all().await;
        for (partition, epoch) in std::mem::take(&mut self.ended) {
            self.membership.complete(&partition, epoch).await.unwrap();
            self.owned.remove(&partition);
        }
    }
}
