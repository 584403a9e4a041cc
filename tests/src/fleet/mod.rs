//! A stream, a group that reads it, its members and its producers, all observed by one history.

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_core::{Checkpoint, Client, ConsumerGroup, ErrorKind, Partition, Position};
use tokio::task::{AbortHandle, JoinHandle};

use crate::checker::{Rules, Summary, Verdict};
use crate::harness::{Disturbed, Fault, Harness, OwnFault, Timing, eventually_or, unique_stream};
use crate::history::{Event, History, Outcome};

mod member;
mod produce;
mod report;

pub use member::{Failure, HandlerFn, Member, MemberSpec, handler_fn};
pub use produce::{BackgroundLoad, TestProducer};
use report::Report;

/// A stream, a group, its members and producers, and their history. Most cases use one.
#[derive(Debug)]
pub struct Fleet {
    /// The broker.
    pub harness: Arc<dyn Harness>,
    /// A connection for everything except members.
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

    /// Uses an existing stream. The group must settle records that were sent before if `everything`.
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
        let down = StoppedFleet {
            stream,
            group,
            history,
        };
        let fleet = down.resume(harness).await;
        if fleet.harness.hooks().reshard_repeats_sends {
            fleet.own_fault(OwnFault {
                disturbs: Disturbed::Sends,
                what: "reshards may come".into(),
            });
        }
        for fault in fleet.harness.own_faults() {
            fleet.own_fault(fault);
        }
        fleet
    }

    /// Closes every connection, and keeps the names.
    pub fn end(self) -> StoppedFleet {
        StoppedFleet {
            stream: self.stream.clone(),
            group: self.group.clone(),
            history: self.history.clone(),
        }
    }

    /// Returns the group with its stream, on a separate connection.
    pub async fn handle(&self) -> ConsumerGroup {
        self.handle_on(&self.harness.client().await)
    }

    /// Like [`handle`](Self::handle), on this connection.
    pub fn handle_on(&self, client: &Client) -> ConsumerGroup {
        client
            .group(self.group.as_str())
            .stream(self.stream.as_str())
    }

    /// Returns a member to start, on this connection.
    pub fn member_on(&self, client: &Client, name: &str) -> MemberSpec<'_> {
        let group = self.handle_on(client);
        MemberSpec::new(async move { group }, &self.history, name)
    }

    /// Returns a member to start, on a separate connection with the member's name, which faults refer to.
    pub fn member(&self, name: &str) -> MemberSpec<'_> {
        let client = name.to_owned();
        let group = async move { self.handle_on(&self.harness.named_client(&client).await) };
        MemberSpec::new(group, &self.history, name)
    }

    /// Opens a producer to the stream whose records are recorded in the history. Ids start at 1.
    pub async fn test_producer(&self) -> TestProducer {
        TestProducer::open(&self.client, &self.stream, &self.history, 1).await
    }

    /// Sends `per_key` records of each of `keys` keys, round robin, and waits for all receipts.
    pub async fn send(&self, keys: usize, per_key: usize) {
        let mut test_producer = self.test_producer().await;
        test_producer.send(keys, per_key).await;
        test_producer.close().await;
    }

    /// Records a fault, and injects it.
    pub async fn inject(&self, fault: Fault) {
        let (group, member) = match &fault {
            Fault::DelayJoin { group, member, .. } | Fault::Freeze { group, member, .. } => {
                (Some(group), Some(member))
            }
            Fault::FailCheckpoints { group, .. }
            | Fault::LoseCheckpoints { group, .. }
            | Fault::RefusePublishLate { group, .. }
            | Fault::LosePublishResponses { group, .. }
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

    /// Cuts off a member until [`thaw`](Self::thaw). What a case waits for meanwhile may take any time on a
    /// busy machine.
    pub async fn freeze(&self, member: &str) {
        let forever = self.harness.timing().case_limit();
        self.inject(self.freeze_for(member, forever)).await;
    }

    /// Ends the freeze of a member. This is no fault of its own.
    pub async fn thaw(&self, member: &str) {
        let end = self.freeze_for(member, Duration::ZERO);
        self.harness.inject(end).await;
    }

    /// Returns the fault that cuts off a member for a while.
    pub fn freeze_for(&self, member: &str, duration: Duration) -> Fault {
        Fault::Freeze {
            group: self.group.clone(),
            member: member.to_owned(),
            duration,
        }
    }

    /// Records a fault that the caller injects itself. Call it before the fault takes effect.
    pub fn own_fault(&self, fault: OwnFault) {
        let OwnFault { disturbs, what } = fault;
        let (group, member) = match disturbs {
            Disturbed::Sends => (None, None),
            Disturbed::Group => (Some(self.group.as_str().into()), None),
            Disturbed::Member(member) => (Some(self.group.as_str().into()), Some(member.into())),
        };
        self.history.record(Event::Fault {
            group,
            member,
            what,
        });
    }

    /// Waits until `met`.
    ///
    /// # Panics
    /// After the harness's timeout, with the awaited condition `what`, the caller's line, the findings of the checker,
    /// and the records that are not settled. This also holds for the other waits of a fleet.
    #[track_caller]
    pub fn until<'a>(
        &'a self,
        what: &'a str,
        met: impl Fn() -> bool + 'a,
    ) -> impl Future<Output = ()> + 'a {
        self.eventually(what, move || std::future::ready(met().then_some(())))
    }

    /// Waits until `met` returns a value, and returns it.
    #[track_caller]
    pub fn eventually<'a, T, F>(
        &'a self,
        what: &'a str,
        met: impl FnMut() -> F + 'a,
    ) -> impl Future<Output = T> + 'a
    where
        F: Future<Output = Option<T>> + 'a,
        T: 'a,
    {
        let report = || self.report().to_string();
        eventually_or(Location::caller(), self.harness.timing(), what, met, report)
    }

    fn report(&self) -> Report {
        Report::new(&self.history, &self.group, &self.unsettled_ids())
    }

    /// Waits until the group has settled every acknowledged record of the stream.
    #[track_caller]
    pub fn settled(&self) -> impl Future<Output = ()> {
        self.until("every record is settled", || self.unsettled() == 0)
    }

    /// Returns the number of acknowledged records of the stream that the group has not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled_ids().len()
    }

    fn unsettled_ids(&self) -> BTreeSet<u64> {
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
        open.difference(&settled).copied().collect()
    }

    /// Returns the number of records that the group's handlers have acked.
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
    #[track_caller]
    pub fn caught_up(&self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let behind = Mutex::new(Vec::new());
            let lock = || behind.lock().unwrap_or_else(PoisonError::into_inner);
            let met = || async {
                let now = self.behind().await;
                let done = now.is_empty();
                *lock() = now;
                done.then_some(())
            };
            let report = || format!("behind: {}\n{}", lock().join("; "), self.report());
            let what = "the checkpoint is at the end";
            eventually_or(caller, self.harness.timing(), what, met, report).await;
        }
    }

    /// Describes the partitions whose checkpoint is not at the end.
    async fn behind(&self) -> Vec<String> {
        let checkpoints = self.checkpoints().await;
        let described = self.client.streams().describe(&self.stream).await;
        let partitions = described.expect("the stream is described").partitions;
        let behind = partitions.into_iter().filter_map(|at| {
            let stored = checkpoints.iter().find(|c| c.partition == at.partition);
            let done = stored.is_some_and(|c| {
                c.completed || c.lag.records == Some(0) || c.position >= at.latest
            });
            let position = stored.and_then(|c| c.position);
            let (partition, latest) = (at.partition, at.latest);
            (!done).then(|| format!("{partition} at {position:?}, which ends at {latest:?}"))
        });
        behind.collect()
    }

    /// Returns the open partitions of the stream, at least one.
    pub async fn open_partitions(&self) -> Vec<Partition> {
        let described = self.client.streams().describe(&self.stream).await;
        let partitions = described.expect("the stream is described").partitions;
        let open = partitions.into_iter().filter(|partition| partition.open);
        let open: Vec<_> = open.map(|partition| partition.partition).collect();
        assert!(!open.is_empty(), "{} has no open partition", self.stream);
        open
    }

    /// Waits until everything is settled, and checks the history.
    #[track_caller]
    pub fn check(&self) -> impl Future<Output = Summary> {
        self.check_with(Rules::default())
    }

    /// Like [`check`](Self::check), with additional rules.
    #[track_caller]
    pub fn check_with(&self, rules: Rules) -> impl Future<Output = Summary> {
        let (caller, settled) = (Location::caller(), self.settled());
        async move {
            settled.await;
            let verdict = self.verdict(rules);
            assert!(verdict.is_clean(), "({caller}) {verdict}");
            verdict.summary
        }
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

/// Waits for a task of a case. A panic of the task becomes a panic of the case, with its own message.
pub(crate) async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await.map_err(|error| error.try_into_panic()) {
        Ok(result) => result,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(error)) => panic!("a task of the case does not end: {error}"),
    }
}

/// Returns the position up to which everything is settled. A backend need not keep the position of a completed
/// partition, which then is after every record.
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
            // No member has joined yet, or the broker is down for a while; the next poll shows.
            Err(error) if error.kind() == ErrorKind::NotFound || error.is_retryable() => {}
            // The test has ended, and its runtime is shutting down.
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => panic!("the checkpoint cannot be read: {error:?}"),
        }
        tokio::time::sleep(timing.poll_interval * 5).await;
    }
}
