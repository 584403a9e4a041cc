//! The harness, fleet and members that the cases share.

use std::sync::Arc;
use std::time::Duration;

use conformance::Harness;
use conformance::checker::{Rules, Summary};
use conformance::fleet::{BackgroundLoad, Fleet, Member};
use conformance::history::Event;
use conformance::kinesis::{Faults, KinesisHarness};

/// The number of keys: enough for each partition to have some.
pub(crate) const KEYS: usize = 12;

/// How long a handler takes.
const WORK: Duration = Duration::from_millis(5);

/// A harness with faults, and the fleet that it injects them into.
pub(crate) struct Fixture {
    pub(crate) harness: Arc<KinesisHarness>,
    pub(crate) fleet: Fleet,
}

impl Fixture {
    /// Creates one with a stream.
    pub(crate) async fn new(harness: KinesisHarness, partitions: usize) -> Self {
        let harness = Arc::new(harness);
        let fleet = Fleet::new(harness.clone(), partitions).await;
        Self { harness, fleet }
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.harness.testbed().faults()
    }

    pub(crate) fn session(&self) -> Duration {
        self.harness.timing().session
    }

    /// Starts a steady load on both partitions.
    pub(crate) async fn load(&self) -> BackgroundLoad {
        let test_producer = self.fleet.test_producer().await;
        test_producer.send_in_background(KEYS, Duration::from_millis(8))
    }

    /// Returns a member that checkpoints often, so that faults hit its checkpoints.
    pub(crate) async fn member(&self, name: &str) -> Member {
        let often = Duration::from_millis(50);
        let spec = self.fleet.member(name).handler_delay(WORK);
        spec.with(move |group| group.checkpoint_interval(often))
            .start()
            .await
    }

    /// Starts two members, and waits until each owns one partition and handles records.
    pub(crate) async fn pair(&self) -> (Member, Member) {
        let (a, b) = (self.member("a").await, self.member("b").await);
        let each = || a.owns() == 1 && b.owns() == 1;
        self.fleet.until("each has one partition", each).await;
        let before = ["a", "b"].map(|name| self.began(name));
        let at_work = || self.began("a") > before[0] + 20 && self.began("b") > before[1] + 20;
        self.fleet.until("both are at work", at_work).await;
        (a, b)
    }

    /// Records a fault that is about to be injected into the group, or into one member.
    pub(crate) fn record(&self, member: Option<&str>, what: &str) {
        self.fleet.history.record(Event::Fault {
            group: Some(self.fleet.group.as_str().into()),
            member: member.map(Into::into),
            what: what.into(),
        });
    }

    /// Waits until the group has handled this many more records.
    pub(crate) async fn handles(&self, more: usize) {
        let goal = self.fleet.acked() + more;
        let handled = || self.fleet.acked() >= goal;
        self.fleet.until("records are handled", handled).await;
    }

    /// Returns the number of records that a member has begun to handle.
    pub(crate) fn began(&self, member: &str) -> usize {
        let of_it = |event: &Event| matches!(event, Event::Began(h) if &*h.by.member == member);
        self.fleet.history.count(of_it)
    }

    /// Returns the number of handovers of partitions so far.
    pub(crate) fn handovers(&self) -> u64 {
        self.fleet.verdict(Rules::default()).summary.handovers
    }

    /// Stops the load, checks the history, and waits until the checkpoint is at the end.
    pub(crate) async fn check(&self, load: BackgroundLoad) -> Summary {
        load.stop().await;
        let summary = self.fleet.check().await;
        self.fleet.caught_up().await;
        summary
    }
}
