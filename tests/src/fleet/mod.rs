//! A stream, a group that reads it, its members and its producers, all observed by one history.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_core::{Checkpoint, Client, ConsumerGroup, ErrorKind, Partition, Position};
use tokio::task::AbortHandle;

use crate::checker::{Rules, Summary, Verdict};
use crate::harness::{Fault, Harness, Timing, eventually, unique_stream};
use crate::history::{Event, History, Outcome};

mod member;
mod produce;

pub use member::{Failure, HandlerFn, Member, MemberSpec, handler_fn};
pub use produce::{BackgroundLoad, TestProducer};

/// A stream, a group, its members and producers, and their history. Most cases use one.
#[derive(Debug)]
pub struct Fleet {
    /// The broker.
    pub harness: Arc<dyn Harness>,
    /// A connection for everything but members.
    pub client: Client,
    /// The history.
    pub history: History,
    /// The stream.
    pub stream: String,
    /// The group.
    pub group: String,
    checkpoint_reader: AbortHandle,
}

impl Fleet {
    /// Creates a stream, names a group, and starts to read the group's checkpoints.
    pub async fn new(harness: Arc<dyn Harness>, partitions: usize) -> Self {
        let stream = unique_stream(&*harness, partitions).await;
        Self::on(harness, stream, History::new(), true).await
    }

    /// Uses an existing stream. The group must settle what was sent before if `everything`.
    pub async fn on(
        harness: Arc<dyn Harness>,
        stream: String,
        history: History,
        everything: bool,
    ) -> Self {
        let group = harness.unique("group");
        history.record(Event::Subscribed {
            group: group.as_str().into(),
            stream: stream.as_str().into(),
            everything,
        });
        if harness.hooks().reshard_repeats_sends {
            history.record(Event::Fault {
                group: None,
                member: None,
                what: "reshards may come".into(),
            });
        }
        let down = StoppedFleet {
            stream,
            group,
            history,
        };
        down.resume(harness).await
    }

    /// Closes every connection, and keeps the names.
    pub fn end(self) -> StoppedFleet {
        StoppedFleet {
            stream: self.stream.clone(),
            group: self.group.clone(),
            history: self.history.clone(),
        }
    }

    /// Returns the group with its stream, on a connection of its own.
    pub async fn handle(&self) -> ConsumerGroup {
        let client = self.harness.client().await;
        client
            .group(self.group.as_str())
            .stream(self.stream.as_str())
    }

    /// Returns a member to start.
    pub fn member(&self, name: &str) -> MemberSpec<'_> {
        MemberSpec::new(self.handle(), &self.history, name)
    }

    /// Opens a producer to the stream whose records go into the history. Ids start at 1.
    pub async fn test_producer(&self) -> TestProducer {
        TestProducer::open(&self.client, &self.stream, &self.history, 1).await
    }

    /// Sends `per_key` records of each of `keys` keys, in turns, and waits for all receipts.
    pub async fn send(&self, keys: usize, per_key: usize) {
        let mut test_producer = self.test_producer().await;
        test_producer.send(keys, per_key).await;
        test_producer.close().await;
    }

    /// Records a fault, and injects it.
    pub async fn inject(&self, fault: Fault) {
        let (group, member) = match &fault {
            Fault::Freeze { group, member, .. } => (Some(group), Some(member)),
            Fault::FailCheckpoints { group, .. }
            | Fault::LoseCheckpoints { group, .. }
            | Fault::RefusePublishLate { group, .. }
            | Fault::Steal { group, .. } => (Some(group), None),
            Fault::Restart => (Some(&self.group), None),
            _ => (None, None),
        };
        self.history.record(Event::Fault {
            group: group.map(|group| group.as_str().into()),
            member: member.map(|member| member.as_str().into()),
            what: format!("{fault:?}"),
        });
        self.harness.inject(fault).await;
    }

    /// Waits until `met`.
    #[track_caller]
    pub fn until<'a>(
        &self,
        what: &'a str,
        met: impl Fn() -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        let met = move || std::future::ready(met().then_some(()));
        eventually(self.harness.timing(), what, met)
    }

    /// Waits until the group has settled every acknowledged record of the stream.
    pub async fn settled(&self) {
        self.until("every record is settled", || self.unsettled() == 0)
            .await;
    }

    /// Returns how many acknowledged records of the stream the group has not settled.
    pub fn unsettled(&self) -> usize {
        let mut open = BTreeSet::new();
        let mut settled = BTreeSet::new();
        self.history.each(|event| match event {
            Event::Subscribed {
                group,
                everything: false,
                ..
            } if **group == *self.group => open.clear(),
            Event::Acknowledged { id, partition, .. } if partition.stream() == self.stream => {
                open.insert(*id);
            }
            Event::Ended {
                handling,
                outcome: Outcome::Acked,
            } if *handling.by.group == *self.group => {
                settled.insert(handling.id);
            }
            Event::DeadLettered { group, id } | Event::Skipped { group, id }
                if **group == *self.group =>
            {
                settled.insert(*id);
            }
            _ => {}
        });
        open.difference(&settled).count()
    }

    /// Returns how many records the group's handlers have acked.
    pub fn acked(&self) -> usize {
        self.history.count(|event| {
            matches!(event, Event::Ended { handling, outcome: Outcome::Acked } if *handling.by.group == *self.group)
        })
    }

    /// Returns the group's checkpoints: none before its first member has partitions.
    ///
    /// # Panics
    /// If they cannot be read.
    pub async fn checkpoints(&self) -> Vec<Checkpoint> {
        let group = self.client.group(self.group.as_str());
        match group.checkpoints().await {
            Ok(checkpoints) => checkpoints,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("the checkpoints cannot be read: {error:?}"),
        }
    }

    /// Waits until the stored checkpoint has passed every record of the stream.
    pub async fn caught_up(&self) {
        let (streams, stream) = (self.client.streams(), self.stream.as_str());
        eventually(
            self.harness.timing(),
            "the checkpoint is at the end",
            || async {
                let checkpoints = self.checkpoints().await;
                let described = streams
                    .describe(stream)
                    .await
                    .expect("the stream is described");
                let done = |partition: &Partition, latest| {
                    let checkpoint = checkpoints.iter().find(|c| c.partition == *partition);
                    checkpoint.is_some_and(|c| {
                        c.completed || c.lag.records == Some(0) || c.position >= latest
                    })
                };
                let mut partitions = described.partitions.iter();
                partitions
                    .all(|p| done(&p.partition, p.latest))
                    .then_some(())
            },
        )
        .await;
    }

    /// Returns the open partitions of the stream.
    pub async fn open_partitions(&self) -> Vec<Partition> {
        let described = self.client.streams().describe(&self.stream).await;
        let partitions = described.expect("the stream is described").partitions;
        let open = partitions.into_iter().filter(|partition| partition.open);
        open.map(|partition| partition.partition).collect()
    }

    /// Waits until everything is settled, and checks the history.
    pub async fn check(&self) -> Summary {
        self.check_with(Rules::default()).await
    }

    /// As [`check`](Self::check), with additional rules.
    pub async fn check_with(&self, rules: Rules) -> Summary {
        self.settled().await;
        self.verdict(rules).assert_clean()
    }

    /// Checks the history so far.
    pub fn verdict(&self, rules: Rules) -> Verdict {
        rules.check(&self.history.entries())
    }
}

/// A fleet without connections, from [`Fleet::end`].
#[derive(Debug)]
pub struct StoppedFleet {
    stream: String,
    group: String,
    history: History,
}

impl StoppedFleet {
    /// Connects again.
    pub async fn resume(self, harness: Arc<dyn Harness>) -> Fleet {
        let Self {
            stream,
            group,
            history,
        } = self;
        let client = harness.client().await;
        let handle = client.group(group.as_str());
        let reading = checkpoint_reader(handle, history.clone(), harness.timing());
        Fleet {
            checkpoint_reader: tokio::spawn(reading).abort_handle(),
            harness,
            client,
            history,
            stream,
            group,
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.checkpoint_reader.abort();
    }
}

/// Up to where all is settled. A backend need not keep the position in what is completed, which then is
/// behind every record.
fn settled(checkpoint: &Checkpoint) -> Option<Position> {
    const LAST: &str = "6277101735386680763835789423207666416102355444464034512895";
    let last = || LAST.parse().expect("the largest position there is");
    let position = checkpoint.position;
    position.or_else(|| checkpoint.completed.then(last))
}

async fn checkpoint_reader(group: ConsumerGroup, history: History, timing: Timing) {
    let name: Arc<str> = group.name().into();
    loop {
        match group.checkpoints().await {
            Ok(checkpoints) => {
                for checkpoint in checkpoints {
                    history.record(Event::Checkpointed {
                        group: name.clone(),
                        position: settled(&checkpoint),
                        partition: checkpoint.partition,
                        epoch: checkpoint.epoch,
                    });
                }
            }
            // No member has joined yet, or the broker is down for a while; the next poll decides.
            Err(error) if error.kind() == ErrorKind::NotFound || error.is_retryable() => {}
            // The test is over, and its runtime ends.
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => panic!("the checkpoint cannot be read: {error:?}"),
        }
        tokio::time::sleep(timing.poll_interval * 5).await;
    }
}
