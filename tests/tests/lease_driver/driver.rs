//! A driver over a lease table, built on the building blocks that the core has for such drivers.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use millstream_core::driver::{
    self, Assignments, CheckpointUpdate, Event, HeartbeatMember, HeartbeatResponse,
    HeartbeatThread, JoinOptions, PartitionEvent, Pipelining, Rejected, SessionOptions,
    StreamLimits,
};
use millstream_core::{
    Checkpoint, Epoch, Error, ErrorKind, Guarantee, Guarantees, Partition, Position, Record,
    RecordMetadata, Result, Start, StreamDescription, StreamSpec,
};
use tokio::select;
use tokio::time::{sleep, timeout};

use crate::table::{Connection, Lease, MemberRow, Table};

/// The interval at which the table is read if no record is stored.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) const LIMITS: StreamLimits = StreamLimits {
    record_bytes: 1 << 20,
    key_bytes: 256,
    key_chars: None,
    empty_key: true,
    text_key: false,
    batch_records: 1_000,
    batch_bytes: 1 << 20,
};

/// The backend: a connection to the table.
#[derive(Debug, Clone)]
pub(crate) struct LeaseBackend {
    pub(crate) store: Connection,
    pub(crate) session: SessionOptions,
}

impl LeaseBackend {
    fn group(&self, name: &str) -> Arc<Group> {
        Arc::new(Group {
            backend: self.clone(),
            name: name.to_owned(),
        })
    }
}

fn unsupported<T>(operation: &'static str) -> Result<T> {
    let message = "the driver has no such operation";
    Err(Error::new(ErrorKind::Unsupported, operation, message))
}

#[async_trait]
impl driver::Backend for LeaseBackend {
    fn name(&self) -> &'static str {
        "lease-table"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            add_partitions: true,
            key_order: true,
            ..Guarantees::default()
        }
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    /// Every stream keeps what is promised.
    async fn open_producer(
        &self,
        stream: &str,
        _required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        Ok(Arc::new(Producer {
            stream_id: self.store.table().stream("open", stream)?.id.clone(),
            backend: self.clone(),
            stream: stream.to_owned(),
        }))
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        self.group(group)
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        self.group(group)
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl driver::Streams for LeaseBackend {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        self.store.table().create(&spec.name, spec.partitions)
    }

    async fn list(&self) -> Result<Vec<String>> {
        Ok(self.store.table().streams.keys().cloned().collect())
    }

    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        let mut table = self.store.table();
        Ok(table.stream("describe stream", stream)?.describe(stream))
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        self.store.table().delete(stream)
    }

    async fn split(&self, _: &Partition) -> Result<()> {
        unsupported("split")
    }

    async fn merge(&self, _: &Partition, _: &Partition) -> Result<()> {
        unsupported("merge")
    }

    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        self.store.table().add_partitions(stream, partitions)
    }
}

#[derive(Debug)]
struct Producer {
    backend: LeaseBackend,
    stream: String,
    stream_id: Arc<str>,
}

#[async_trait]
impl driver::Producer for Producer {
    fn limits(&self) -> StreamLimits {
        LIMITS
    }

    fn pipelining(&self) -> Pipelining {
        Pipelining::ByKey { calls: 1 }
    }

    fn validate(&self, _: &Record) -> Result<()> {
        Ok(())
    }

    fn route(&self, _: &Record) -> Option<u64> {
        None
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let mut table = self.backend.store.table();
        let stream = match table.same_stream("send", &self.stream, &self.stream_id) {
            Ok(stream) => stream,
            Err(error) => return Rejected::all(records, &error),
        };
        self.backend.store.notify_appended();
        let append = |record| Ok(stream.append(&self.stream, &record));
        records.into_iter().map(append).collect()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// A group by its name.
#[derive(Debug)]
struct Group {
    backend: LeaseBackend,
    name: String,
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, options: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let joined = Membership::join(&self.backend, &self.name, options);
        Ok(Arc::new(joined.await?))
    }
}

#[async_trait]
impl driver::Checkpoints for Group {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let mut table = self.backend.store.table();
        let group = table.group("read checkpoints", &self.name)?;
        let leases: Vec<(Partition, Lease)> = group.leases().collect();
        let checkpoint = |(partition, lease): (Partition, Lease)| {
            Some(Checkpoint {
                lag: table.log(&partition)?.lag(lease.next_offset.unwrap_or(0)),
                partition,
                position: lease.settled_by.and(lease.resume_after()),
                epoch: lease.settled_by,
                completed: false,
            })
        };
        Ok(leases.into_iter().filter_map(checkpoint).collect())
    }

    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let store = &self.backend.store;
        store.table().begin_reset(&self.name, stream, to)?;
        while store.table().is_resetting(&self.name, stream)? {
            sleep(POLL_INTERVAL / 5).await;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Membership {
    member: Arc<Member>,
    heartbeats: HeartbeatThread,
}

#[derive(Debug)]
struct Member {
    backend: LeaseBackend,
    group: String,
    name: String,
    id: String,
    options: JoinOptions,
    /// The assignments, each with its next offset.
    assignments: Assignments<u64>,
}

impl Membership {
    async fn join(backend: &LeaseBackend, group: &str, options: JoinOptions) -> Result<Self> {
        let name = options.member.clone().unwrap_or_default();
        let id = backend.store.table().next_id();
        let member = Arc::new(Member {
            backend: backend.clone(),
            group: group.to_owned(),
            id: format!("{name}-{id}"),
            name,
            assignments: Assignments::new(&options),
            options,
        });
        let joined = Instant::now();
        member.rejoin().await?;
        let session = backend.session;
        let heartbeats = HeartbeatThread::spawn("heartbeats", session, joined, member.clone())?;
        Ok(Self { member, heartbeats })
    }
}

impl Member {
    async fn table(&self) -> MutexGuard<'_, Table> {
        self.backend.store.table_of(&self.group, &self.name).await
    }

    /// Reads until an error ends the membership.
    async fn read(&self) -> Error {
        loop {
            // Created before the table is read, so that no later record is missed.
            let appended = self.backend.store.appended();
            if let Err(error) = self.read_once(&*self.table().await) {
                return error;
            }
            // Notified or timed out: read again.
            let _ = timeout(POLL_INTERVAL, appended).await;
        }
    }

    /// Reads one batch of each partition, and the lag of paused partitions.
    fn read_once(&self, table: &Table) -> Result<()> {
        let (assignments, options) = (&self.assignments, &self.options);
        // A rejected event is of a partition that this member is losing.
        for (partition, epoch, offset) in assignments.readable() {
            let log = table.log(&partition).filter(|_| assignments.has_room());
            let Some(log) = log else { break };
            let mut next_offset = offset.max(log.first);
            if next_offset > offset {
                let event = PartitionEvent::DataLoss {
                    after: offset.checked_sub(1).map(Position::from),
                    earliest: next_offset.into(),
                };
                let _ = assignments.push(&partition, epoch, event, |next| *next = next_offset);
            }
            let records = log.read(next_offset, options.batch_records, options.batch_bytes)?;
            next_offset += records.len() as u64;
            let lag = log.lag(next_offset);
            let event = PartitionEvent::Records { records, lag };
            let _ = assignments.push(&partition, epoch, event, |next| *next = next_offset);
        }
        for (partition, epoch, offset) in assignments.lag_due() {
            if let Some(log) = table.log(&partition) {
                let event = PartitionEvent::Lag(log.lag(offset));
                let _ = assignments.push(&partition, epoch, event, |_| ());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl HeartbeatMember for Member {
    async fn heartbeat(&self) -> Result<HeartbeatResponse> {
        let mut table = self.table().await;
        let now = Instant::now();
        table.rebalance(&self.group, now);
        let expires = now + self.backend.session.timeout;
        let Some(assigned) = table.renew(&self.group, &self.id, expires)? else {
            return Ok(HeartbeatResponse::UnknownMember);
        };
        self.assignments.reconcile(assigned, |assigned| {
            let last = assigned.resume_after.and_then(Position::offset);
            last.map_or(0, |last| last + 1)
        });
        Ok(HeartbeatResponse::Renewed)
    }

    async fn rejoin(&self) -> Result<()> {
        let mut table = self.table().await;
        let mut streams = BTreeMap::new();
        for name in &self.options.streams {
            let id = table.start(&self.group, name, self.options.start)?;
            streams.insert(name.to_string(), id);
        }
        // All its partitions are lost.
        let now = Instant::now();
        table.remove_member(&self.group, &self.id, now);
        let row = MemberRow {
            streams,
            expires: now + self.backend.session.timeout,
            drain: self.options.drain,
        };
        let group = table.group("join", &self.group)?;
        group.members.insert(self.id.clone(), row);
        Ok(())
    }

    fn lost(&self) {
        self.assignments.mark_all_lost();
    }

    fn failed(&self, error: Error) {
        self.assignments.fail(error.with_group(&*self.group));
    }
}

#[async_trait]
impl driver::Membership for Membership {
    fn id(&self) -> &str {
        &self.member.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        select! {
            biased;
            events = self.member.assignments.next() => events,
            error = self.member.read() => Err(error),
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let mut table = self.member.table().await;
        let stored = updates.iter().map(|update| {
            let group = table.group("checkpoint", &self.member.group)?;
            let lease = group.lease(&self.member.id, &update.partition, update.epoch)?;
            lease.settle(update.position, update.epoch);
            Ok(())
        });
        stored.collect()
    }

    async fn publish(&self, _: &str, _: &[Record], _: &[CheckpointUpdate]) -> Result<()> {
        unsupported("publish")
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.member.assignments.close(partition, epoch);
        let mut table = self.member.table().await;
        let group = table.group("release", &self.member.group)?;
        group.lease(&self.member.id, partition, epoch)?.free();
        Ok(())
    }

    async fn complete(&self, _: &Partition, _: Epoch) -> Result<()> {
        unsupported("complete")
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.member.assignments.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.member.assignments.resume(partition, epoch);
    }

    async fn leave(&self) -> Result<()> {
        self.heartbeats.stop().await;
        self.member.assignments.close_all();
        let mut table = self.member.table().await;
        table.remove_member(&self.member.group, &self.member.id, Instant::now());
        Ok(())
    }
}
