//! A member as the runtime holds it: leases on one side, the readers of their shards on the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::future::{FutureExt, join_all};
use millstream_core::driver::{self, CheckpointUpdate, Event};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Record, Result};
use tokio::select;
use tokio::sync::{Notify, mpsc};

use super::owned::{Owned, Said};
use crate::connection::Connection;
use crate::lease::{LeaseEvent, LeaseKey, ResumePoint, Tip, Worker};
use crate::retrieval::{self, Begin, ReadEvent, ReaderOptions, Way};
use crate::stream::HashRange;

/// Answers that may wait for the runtime, over all partitions; each reader has one more in hand.
const WAITING: usize = 4;

#[derive(Debug)]
pub(super) struct Membership {
    id: String,
    group: Arc<str>,
    worker: Worker,
    connection: Arc<Connection>,
    /// The streams that the member has joined.
    sources: HashMap<Arc<str>, StreamSource>,
    batch_records: usize,
    owned: Mutex<Owned>,
    /// Rung when something is ready that no lease and no reader has said just now.
    resumed: Notify,
    to_inbox: mpsc::Sender<Said>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Said>>,
}

/// A stream as the member found it when it joined.
#[derive(Debug)]
pub(super) struct StreamSource {
    /// Its id. The member ends when another stream is created under the name.
    pub(super) id: Arc<str>,
    /// How it is read.
    pub(super) way: Way,
}

/// When nothing was left to be read, and when the start was resolved, as the row of a lease has them.
struct LeaseTimes {
    tip: Option<SystemTime>,
    resolved: Option<SystemTime>,
}

/// What a membership is made of.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) group: Arc<str>,
    pub(super) worker: Worker,
    pub(super) connection: Arc<Connection>,
    pub(super) sources: HashMap<Arc<str>, StreamSource>,
    pub(super) batch_records: usize,
}

impl From<Parts> for Membership {
    fn from(parts: Parts) -> Self {
        let (to_inbox, inbox) = mpsc::channel(WAITING);
        Self {
            id: parts.id,
            group: parts.group,
            worker: parts.worker,
            connection: parts.connection,
            sources: parts.sources,
            batch_records: parts.batch_records,
            owned: Mutex::default(),
            resumed: Notify::new(),
            to_inbox,
            inbox: tokio::sync::Mutex::new(inbox),
        }
    }
}

impl Membership {
    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what became of a lease.
    fn hear(&self, event: LeaseEvent) -> Result<()> {
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
            LeaseEvent::Asked {
                lease,
                epoch,
                within,
            } => {
                let partition = partition(&lease);
                let mut owned = self.owned();
                if owned.stop(&partition, epoch) {
                    owned.tell(Event::Revoking {
                        partitions: vec![(partition, epoch)],
                        within,
                    });
                }
            }
            LeaseEvent::Lost { lease, epoch } => {
                let partition = partition(&lease);
                let mut owned = self.owned();
                if owned.remove(&partition, epoch) {
                    owned.tell(Event::Lost {
                        partitions: vec![(partition, epoch)],
                    });
                }
            }
            LeaseEvent::Failed(error) => return Err(error.with_group(self.group.clone())),
        }
        Ok(())
    }

    /// Takes in what a reader says.
    fn hear_reader(&self, said: Said) -> Result<()> {
        match said {
            ((partition, epoch), ReadEvent::AtTip { after, at }) => {
                let tip = Tip { after, at };
                self.worker.note_tip(&lease(&partition), epoch, tip);
                Ok(())
            }
            said => self.owned().hear(said),
        }
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
            begin: match from {
                ResumePoint::After(position) => Begin::After(position),
                ResumePoint::Earliest => Begin::Earliest,
                ResumePoint::Latest(pin) => Begin::Latest(Some((pin.iterator, pin.at))),
                ResumePoint::At(time) => Begin::At(time),
            },
            tip: times.tip,
            resolved: times.resolved,
            way: source.map_or(Way::Polling, |source| source.way.clone()),
            batch_records: self.batch_records,
        };
        let tag = (partition.clone(), epoch);
        let reader = retrieval::read(options, tag, self.to_inbox.clone());
        let mut owned = self.owned();
        owned.assign(partition.clone(), epoch, reader);
        owned.tell(Event::Assigned {
            partition,
            epoch,
            resume_after,
            stream_id: source.map(|source| source.id.clone()),
        });
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
        let mut inbox = self.inbox.lock().await;
        loop {
            // Nothing is awaited between what is taken in here and what is handed out, so that a
            // dropped call loses nothing.
            while let Some(event) = self.worker.next().now_or_never() {
                self.hear(event)?;
            }
            while !self.owned().has(self.batch_records) {
                let Ok(said) = inbox.try_recv() else { break };
                self.hear_reader(said)?;
            }
            let events = self.owned().take(self.batch_records);
            if !events.is_empty() {
                return Ok(events);
            }
            select! {
                biased;
                event = self.worker.next() => self.hear(event)?,
                Some(said) = inbox.recv() => self.hear_reader(said)?,
                () = self.resumed.notified() => {}
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
        self.owned().remove(partition, epoch);
        let released = self.worker.release(&lease(partition), epoch).await;
        released.map_err(|error| error.with_partition(partition))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let children = self.owned().children(partition, epoch);
        let Some(children) = children else {
            let message = "the partition is not this member's any more";
            return Err(
                Error::new(ErrorKind::Fenced, "complete", message).with_partition(partition)
            );
        };
        let lease = lease(partition);
        let completed = self.worker.complete(&lease, epoch, &children).await;
        if completed.is_ok() {
            self.owned().remove(partition, epoch);
        }
        completed.map_err(|error| error.with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.owned().pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.owned().resume(partition, epoch);
        self.resumed.notify_one();
    }

    async fn leave(&self) -> Result<()> {
        self.owned().clear();
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
