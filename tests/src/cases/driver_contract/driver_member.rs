//! A member without a runtime: it applies the driver's events, and checks their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_core::driver::{CheckpointUpdate, Event, JoinOptions, Membership, StoredRecord};
use millstream_core::{Client, Epoch, Lag, Partition, Position, Result};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::dropped_call::dropped_at;
use crate::Timing;

/// A member that calls its driver directly.
pub(super) struct DriverMember {
    pub(super) membership: Arc<dyn Membership>,
    name: String,
    timing: Timing,
    drain: Duration,
    on_revoking: OnRevoking,
    polling: Polling,
    /// The largest number of bytes of one call of `next`, and of one record.
    pub(super) largest: Largest,
    /// The assignments so far of each partition, by epoch.
    assignments: BTreeMap<Partition, BTreeMap<Epoch, Assignment>>,
    /// It must outlive the membership, as an application's does.
    _client: Client,
}

/// The largest sizes that were seen, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Largest {
    pub(super) call: usize,
    pub(super) record: usize,
}

/// What a member does with partitions that it must release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnRevoking {
    /// It releases them at once.
    Release,
    /// It keeps them.
    Keep,
}

/// How a member calls `next`.
#[derive(Debug)]
enum Polling {
    /// It waits for the events.
    Patient,
    /// It drops the calls, each at another await.
    Dropping(Mutex<DropRound>),
}

/// Decides at which await a call of `next` is dropped: the first call at its first, the second at its second, and so
/// on, in rounds. Where the last call of a round had one more await, the next round is longer, so that every await is
/// tested, and a driver with many of them returns in the end.
#[derive(Debug)]
struct DropRound {
    /// The await at which the current call is dropped.
    at: usize,
    /// The number of calls in a round.
    length: usize,
    /// Whether the current call was dropped there. Otherwise it has returned, or waits for events.
    was_dropped: bool,
}

impl DropRound {
    fn new() -> Self {
        Self {
            at: 0,
            length: 4,
            was_dropped: false,
        }
    }

    /// Begins the next call, and returns the await at which it is dropped.
    fn begin(&mut self) -> usize {
        if self.at == self.length {
            self.length += usize::from(self.was_dropped);
            self.at = 0;
        }
        self.at += 1;
        self.was_dropped = false;
        self.at
    }
}

/// One assignment of a partition.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    pub(super) stage: Stage,
    pub(super) resume_after: Option<Position>,
    /// The positions of its records, in the order of their delivery.
    pub(super) records: Vec<Position>,
    /// The last reported lag, with records or without.
    pub(super) lag: Option<Lag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Owned,
    Revoking,
    Released,
    Lost,
}

impl DriverMember {
    /// Joins with `options`, which name the member.
    pub(super) async fn join(
        client: Client,
        group: &str,
        options: JoinOptions,
        timing: Timing,
    ) -> Self {
        let name = options.member.clone().unwrap_or_default();
        let drain = options.drain;
        let joined = client.driver().consumer_group(group).join(options).await;
        Self {
            membership: joined.unwrap_or_else(|error| panic!("{name} cannot join: {error:?}")),
            name,
            timing,
            drain,
            on_revoking: OnRevoking::Release,
            polling: Polling::Patient,
            largest: Largest::default(),
            assignments: BTreeMap::new(),
            _client: client,
        }
    }

    #[must_use]
    pub(super) fn on_revoking(mut self, on_revoking: OnRevoking) -> Self {
        self.on_revoking = on_revoking;
        self
    }

    /// Drops calls of `next` from now on, at each of its awaits in turn.
    #[must_use]
    pub(super) fn dropping_calls(mut self) -> Self {
        self.polling = Polling::Dropping(Mutex::new(DropRound::new()));
        self
    }

    /// Returns the partitions in a stage, each with its epoch.
    pub(super) fn partitions(&self, stage: Stage) -> BTreeMap<Partition, Epoch> {
        let last = self.last_assignments();
        let in_stage = last.filter(|(_, _, assignment)| assignment.stage == stage);
        let named = in_stage.map(|(partition, epoch, _)| (partition.clone(), epoch));
        named.collect()
    }

    /// Returns the partitions that it owns and that are not being revoked, each with its epoch.
    pub(super) fn owned(&self) -> BTreeMap<Partition, Epoch> {
        self.partitions(Stage::Owned)
    }

    /// Returns the last assignment of a partition.
    pub(super) fn assignment(&self, partition: &Partition) -> Option<&Assignment> {
        let of = self.assignments.get(partition)?;
        of.last_key_value().map(|(_, assignment)| assignment)
    }

    /// Returns whether it has reported the loss of all these assignments. It may own the same
    /// partitions again, each in a later epoch.
    pub(super) fn has_lost(&self, assignments: &BTreeMap<Partition, Epoch>) -> bool {
        let is_lost = |(partition, epoch)| {
            let assignment = self.assignments.get(partition)?.get(epoch)?;
            Some(assignment.stage == Stage::Lost)
        };
        assignments.iter().all(|of| is_lost(of).unwrap_or(false))
    }

    /// Returns the positions that the last assignment of a partition has delivered.
    pub(super) fn records(&self, partition: &Partition) -> &[Position] {
        self.assignment(partition)
            .map_or(&[], |assignment| &assignment.records)
    }

    fn last_assignments(&self) -> impl Iterator<Item = (&Partition, Epoch, &Assignment)> {
        self.assignments.iter().filter_map(|(partition, of)| {
            let (epoch, assignment) = of.last_key_value()?;
            Some((partition, *epoch, assignment))
        })
    }

    /// Handles events until `met`.
    ///
    /// # Panics
    /// After the harness's timeout, with the awaited condition.
    pub(super) async fn until(&mut self, what: &str, met: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + self.timing.timeout;
        while !met(self) {
            let received = timeout_at(deadline, self.receive()).await;
            let Ok(received) = received else {
                panic!("timed out waiting for: {what}; {}", self.describe());
            };
            self.take(received).await;
        }
    }

    /// Handles events for a while.
    pub(super) async fn run_for(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        while let Ok(received) = timeout_at(deadline, self.receive()).await {
            self.take(received).await;
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Returns the events of one call of `next`; none if the call was dropped. This call itself may be
    /// dropped, and loses nothing if the driver loses nothing.
    async fn receive(&self) -> Option<Result<Vec<Event>>> {
        match &self.polling {
            Polling::Patient => Some(self.membership.next().await),
            Polling::Dropping(round) => {
                let awaits = lock(round).begin();
                let pause = self.timing.poll_interval;
                // The next await of a driver that has nothing to report may never come.
                let call = timeout(pause, dropped_at(awaits, self.membership.next())).await;
                if let Ok(Some(received)) = call {
                    return Some(received);
                }
                lock(round).was_dropped = call.is_ok();
                sleep(pause).await;
                None
            }
        }
    }

    /// Handles the result of a call of `next`, and releases partitions that it must release.
    async fn take(&mut self, received: Option<Result<Vec<Event>>>) {
        let Some(events) = received else {
            return;
        };
        let events = events
            .unwrap_or_else(|error| panic!("the membership of {} ended: {error:?}", self.name));
        assert!(
            !events.is_empty(),
            "next() of {} returned no event, it must return at least one",
            self.name
        );
        self.largest.note(&events);
        for event in events {
            self.take_one(event);
        }
        if self.on_revoking == OnRevoking::Release {
            self.release_all().await;
        }
    }

    fn take_one(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition,
                epoch,
                resume_after,
                ..
            } => {
                let of = self.assignments.entry(partition.clone()).or_default();
                let newest = of.last_key_value().map(|(epoch, _)| *epoch);
                assert!(
                    newest < Some(epoch),
                    "{partition} is assigned in epoch {epoch} after epoch {newest:?}"
                );
                let assignment = Assignment {
                    resume_after,
                    ..Assignment::default()
                };
                of.insert(epoch, assignment);
            }
            Event::Records {
                partition,
                epoch,
                records,
                lag,
            } => {
                let name = self.name.clone();
                let Some(assignment) = self.current(&partition, epoch) else {
                    return;
                };
                assert_eq!(
                    assignment.stage,
                    Stage::Owned,
                    "{} records of {partition} in epoch {epoch} came to {name} after its end",
                    records.len()
                );
                assert!(!records.is_empty(), "Records of {partition} has none");
                for record in records {
                    let last = assignment.records.last().copied();
                    assert!(
                        last.max(assignment.resume_after) < Some(record.position),
                        "{} of {partition} came after {last:?}",
                        record.position
                    );
                    assignment.records.push(record.position);
                }
                assignment.lag = Some(lag);
            }
            Event::Lag {
                partition,
                epoch,
                lag,
            } => {
                if let Some(assignment) = self.current(&partition, epoch) {
                    assignment.lag = Some(lag);
                }
            }
            Event::Revoking { partitions, within } => {
                let drain = self.drain;
                assert!(
                    within <= drain,
                    "Revoking leaves {within:?}, the drain of JoinOptions is {drain:?}"
                );
                self.end(&partitions, Stage::Revoking);
            }
            Event::Lost { partitions } => self.end(&partitions, Stage::Lost),
            Event::DataLoss { .. } | Event::Ended { .. } => {
                panic!("nothing was removed, and no partition was closed: {event:?}")
            }
        }
    }

    /// Returns the assignment of an epoch, unless it is not the last of its partition: events of an
    /// older one are ignored.
    fn current(&mut self, partition: &Partition, epoch: Epoch) -> Option<&mut Assignment> {
        let last = self.assignments.get_mut(partition)?.last_entry()?;
        (*last.key() == epoch).then(|| last.into_mut())
    }

    fn end(&mut self, partitions: &[(Partition, Epoch)], stage: Stage) {
        for (partition, epoch) in partitions {
            if let Some(assignment) = self.current(partition, *epoch) {
                assignment.stage = stage;
            }
        }
    }

    /// Releases every partition that is revoked.
    pub(super) async fn release_all(&mut self) {
        for (partition, epoch) in self.partitions(Stage::Revoking) {
            let released = self.membership.release(&partition, epoch).await;
            released.unwrap_or_else(|error| panic!("{} cannot release: {error:?}", self.name));
            self.end(&[(partition, epoch)], Stage::Released);
        }
    }

    /// Stores progress as the runtime does: it retries after a retryable error. Returns the final
    /// results.
    ///
    /// # Panics
    /// If a result is retryable until the harness's timeout.
    pub(super) async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let deadline = Instant::now() + self.timing.timeout;
        loop {
            let results = timeout_at(deadline, self.membership.checkpoint(updates)).await;
            let results = results.unwrap_or_else(|_| panic!("{} got no results", self.name));
            assert_eq!(
                results.len(),
                updates.len(),
                "a checkpoint must have one result per update: {results:?}"
            );
            let is_retryable = |result: &Result<()>| {
                let error = result.as_ref().err();
                error.is_some_and(millstream_core::Error::is_retryable)
            };
            if !results.iter().any(is_retryable) {
                return results;
            }
            assert!(
                Instant::now() < deadline,
                "a checkpoint gets no certain result: {results:?}"
            );
            sleep(self.timing.poll_interval).await;
        }
    }

    /// Leaves the group.
    pub(super) async fn leave(self) {
        let left = self.membership.leave().await;
        left.unwrap_or_else(|error| panic!("{} cannot leave: {error:?}", self.name));
    }

    fn describe(&self) -> String {
        let last = self.last_assignments().map(|(partition, epoch, of)| {
            let (stage, records) = (of.stage, of.records.len());
            format!(
                "{partition} in epoch {epoch}: {stage:?}, {records} records, {:?}",
                of.lag
            )
        });
        let last: Vec<String> = last.collect();
        format!("{} has [{}]", self.name, last.join("; "))
    }
}

impl Largest {
    fn note(&mut self, events: &[Event]) {
        let records = events.iter().filter_map(|event| match event {
            Event::Records { records, .. } => Some(records),
            _ => None,
        });
        let sizes = records.flatten().map(StoredRecord::size);
        let mut call = 0;
        for size in sizes {
            call += size;
            self.record = self.record.max(size);
        }
        self.call = self.call.max(call);
    }
}

fn lock(round: &Mutex<DropRound>) -> MutexGuard<'_, DropRound> {
    round.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles events of two members until `met`.
///
/// # Panics
/// After the harness's timeout, with the awaited condition.
pub(super) async fn until_both(
    a: &mut DriverMember,
    b: &mut DriverMember,
    what: &str,
    met: impl Fn(&DriverMember, &DriverMember) -> bool,
) {
    let deadline = Instant::now() + a.timing.timeout;
    while !met(a, b) {
        // The call of the other member is dropped, as the runtime does too.
        let received = tokio::select! {
            received = a.receive() => (received, None),
            received = b.receive() => (None, received),
            () = tokio::time::sleep_until(deadline) => {
                panic!("timed out waiting for: {what}; {}; {}", a.describe(), b.describe())
            }
        };
        a.take(received.0).await;
        b.take(received.1).await;
    }
}
