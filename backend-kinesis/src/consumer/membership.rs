//! A member as the runtime sees it: leases on one side, the readers of their shards on the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::future::join_all;
use millstream_core::driver::{
    self, AssignedPartition, Assignments, CheckpointUpdate, Event, FilteredCounter, JoinOptions,
    PartitionEvent,
};
use millstream_core::{Epoch, Error, ErrorKind, Guarantee, Lag, Partition, Record, Result};
use tokio::select;
use tokio::sync::mpsc;

use crate::connection::Connection;
use crate::lease::{LeaseEvent, LeaseKey, ResumePoint, Tip, Worker};
use crate::retrieval::{
    self, Budget, Distribution, ReadEvent, Reader, ReaderOptions, RetrievalMode,
};
use crate::stream::{HashRange, Shard};

#[cfg(test)]
mod tests;

/// The number of responses that may wait for the runtime, over all partitions. Each reader holds one more.
const WAITING: usize = 4;

#[derive(Debug)]
pub(super) struct Membership {
    id: String,
    group: Arc<str>,
    worker: Worker,
    connection: Arc<Connection>,
    /// The streams that the member has joined.
    sources: HashMap<Arc<str>, StreamSource>,
    budget: Budget,
    batch_records: usize,
    batch_bytes: usize,
    filtered: FilteredCounter,
    required: Vec<Guarantee>,
    assignments: Assignments<AssignedShard>,
    event_sender: mpsc::Sender<TaggedReadEvent>,
    read_events: tokio::sync::Mutex<mpsc::Receiver<TaggedReadEvent>>,
}

/// A reader's event, after the assignment for which it reads.
type TaggedReadEvent = ((Partition, Epoch), ReadEvent);

/// The state of a shard that the member owns.
#[derive(Debug)]
struct AssignedShard {
    /// `None` when no more records must be delivered.
    reader: Option<Reader>,
    /// The child shards that continue it, once it has ended.
    children: Vec<Shard>,
}

/// A stream that the member has joined.
#[derive(Debug)]
pub(super) struct StreamSource {
    /// Its id. The member ends when another stream is created under the name.
    pub(super) id: Arc<str>,
    /// The retrieval mode.
    pub(super) mode: RetrievalMode,
    /// How it places records.
    pub(super) distribution: Distribution,
}

/// When nothing was left to be read, and when the start was resolved, as stored in the lease.
struct LeaseTimes {
    tip: Option<SystemTime>,
    resolved: Option<SystemTime>,
}

/// The parts of a membership.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) group: Arc<str>,
    pub(super) worker: Worker,
    pub(super) connection: Arc<Connection>,
    pub(super) sources: HashMap<Arc<str>, StreamSource>,
    pub(super) options: JoinOptions,
}

impl From<Parts> for Membership {
    fn from(parts: Parts) -> Self {
        let (event_sender, read_events) = mpsc::channel(WAITING);
        Self {
            id: parts.id,
            group: parts.group,
            worker: parts.worker,
            connection: parts.connection,
            sources: parts.sources,
            budget: Budget::new(parts.options.buffer_bytes),
            batch_records: parts.options.batch_records,
            batch_bytes: parts.options.batch_bytes,
            filtered: parts.options.filtered.clone(),
            assignments: Assignments::new(&parts.options),
            required: parts.options.required,
            event_sender,
            read_events: tokio::sync::Mutex::new(read_events),
        }
    }
}

impl Membership {
    /// Handles an event of a lease.
    fn on_lease_event(&self, event: LeaseEvent) -> Result<()> {
        match event {
            LeaseEvent::Taken {
                lease,
                epoch,
                from,
                tip,
                resolved,
                range,
            } => {
                let times = LeaseTimes { tip, resolved };
                self.assign(&lease, epoch, from, times, range);
            }
            LeaseEvent::HandoffRequested {
                lease,
                epoch,
                within,
            } => {
                let partition = partition(&lease);
                self.assignments
                    .with(&partition, epoch, |shard| shard.reader = None);
                self.assignments.revoke(&partition, epoch, within);
            }
            LeaseEvent::Lost { lease, epoch } => {
                self.assignments.mark_lost(&partition(&lease), epoch)
            }
            LeaseEvent::Unordered(info) => {
                if let Some(source) = self.sources.get(&info.name) {
                    source.distribution.set_automatic();
                }
                let checked = info.check_required(&self.required, "read");
                return checked.map_err(|error| error.with_group(self.group.clone()));
            }
            LeaseEvent::Failed(error) => return Err(error.with_group(self.group.clone())),
        }
        Ok(())
    }

    /// Handles an event of a reader.
    fn on_read_event(&self, ((partition, epoch), read_event): TaggedReadEvent) -> Result<()> {
        let (event, children) = match read_event {
            ReadEvent::Records { records, behind } => {
                let lag = lag(behind);
                (PartitionEvent::Records { records, lag }, Vec::new())
            }
            ReadEvent::Behind(behind) => (PartitionEvent::Lag(lag(Some(behind))), Vec::new()),
            ReadEvent::DataLoss { after, earliest } => {
                (PartitionEvent::DataLoss { after, earliest }, Vec::new())
            }
            ReadEvent::Ended { children } => (PartitionEvent::Ended, children),
            ReadEvent::CaughtUp { after, at } => {
                let tip = Tip { after, at };
                self.worker.note_tip(&lease(&partition), epoch, tip);
                return Ok(());
            }
            ReadEvent::Failed(error) => {
                let is_read = |shard: &mut AssignedShard| shard.reader.is_some();
                return match self.assignments.with(&partition, epoch, is_read) {
                    Some(true) => Err(error.with_partition(&partition)),
                    _ => Ok(()),
                };
            }
        };
        // A rejected event belongs to a shard that is no longer read.
        let _ = self.assignments.push(&partition, epoch, event, |shard| {
            shard.children.extend(children)
        });
        Ok(())
    }

    fn assign(
        &self,
        lease: &LeaseKey,
        epoch: Epoch,
        from: ResumePoint,
        times: LeaseTimes,
        range: Option<HashRange>,
    ) {
        let partition = partition(lease);
        let resume_after = match &from {
            ResumePoint::After(position) => Some(*position),
            _ => None,
        };
        let source = self.sources.get(&lease.stream);
        let options = ReaderOptions {
            connection: self.connection.clone(),
            partition: partition.clone(),
            range,
            distribution: source
                .map_or_else(Distribution::default, |source| source.distribution.clone()),
            filtered: self.filtered.clone(),
            begin: from,
            caught_up: times.tip,
            resolved: times.resolved,
            mode: source.map_or(RetrievalMode::Polling, |source| source.mode.clone()),
            budget: self.budget.clone(),
            batch_records: self.batch_records,
            batch_bytes: self.batch_bytes,
        };
        let tag = (partition.clone(), epoch);
        let reader = retrieval::read(options, tag, self.event_sender.clone());
        let assigned = AssignedPartition {
            partition,
            epoch,
            resume_after,
            stream_id: source.map(|source| source.id.clone()),
            revoke_within: None,
        };
        let shard = AssignedShard {
            reader: Some(reader),
            children: Vec::new(),
        };
        self.assignments.assign(assigned, shard);
    }
}

fn partition(lease: &LeaseKey) -> Partition {
    Partition::new(lease.stream.clone(), lease.shard.to_string())
}

#[async_trait]
impl driver::Membership for Membership {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        let mut read_events = self.read_events.lock().await;
        loop {
            select! {
                biased;
                event = self.worker.next() => self.on_lease_event(event)?,
                Some(read_event) = read_events.recv(), if self.assignments.has_room() => self.on_read_event(read_event)?,
                events = self.assignments.next() => return events,
            }
        }
    }

    async fn checkpoint(&self, marks: &[CheckpointUpdate]) -> Vec<Result<()>> {
        join_all(marks.iter().map(async |mark| {
            let lease = lease(&mark.partition);
            let stored = self.worker.checkpoint(&lease, mark.epoch, mark.position);
            let stored = stored.await;
            stored.map_err(|error| error.with_partition(&mark.partition))
        }))
        .await
    }

    async fn publish(
        &self,
        stream: &str,
        _records: &[Record],
        _marks: &[CheckpointUpdate],
    ) -> Result<()> {
        let message = "Kinesis and DynamoDB cannot store records and progress in one step";
        Err(Error::new(ErrorKind::Unsupported, "publish", message).with_stream(stream))
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.assignments.close(partition, epoch);
        let released = self.worker.release(&lease(partition), epoch).await;
        released.map_err(|error| error.with_partition(partition))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let children = self
            .assignments
            .with(partition, epoch, |shard| shard.children.clone());
        let Some(children) = children else {
            let message = "the partition is not this member's any more";
            return Err(
                Error::new(ErrorKind::Fenced, "complete", message).with_partition(partition)
            );
        };
        let lease = lease(partition);
        let completed = self.worker.complete(&lease, epoch, &children).await;
        if completed.is_ok() {
            self.assignments.close(partition, epoch);
        }
        completed.map_err(|error| error.with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        let pause = |shard: &mut AssignedShard| shard.reader.iter().for_each(Reader::pause);
        self.assignments.with(partition, epoch, pause);
        self.assignments.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        let resume = |shard: &mut AssignedShard| shard.reader.iter().for_each(Reader::resume);
        self.assignments.with(partition, epoch, resume);
        self.assignments.resume(partition, epoch);
    }

    async fn leave(&self) -> Result<()> {
        self.assignments.close_all();
        let left = self.worker.leave().await;
        left.map_err(|error| error.with_group(self.group.clone()))
    }
}

fn lease(partition: &Partition) -> LeaseKey {
    LeaseKey {
        stream: partition.stream().into(),
        shard: partition.id().into(),
    }
}

/// Kinesis reports the age of the remaining records, and so whether there are any.
fn lag(behind: Option<Duration>) -> Lag {
    Lag {
        records: behind.filter(Duration::is_zero).map(|_| 0),
        time: behind,
    }
}
