//! Where the cases take place.

use std::sync::Arc;
use std::time::Duration;

use conformance::Harness;
use conformance::checker::{Rules, Summary};
use conformance::fleet::{BackgroundLoad, Fleet, Member};
use conformance::history::Event;
use conformance::kinesis::{Faults, KinesisHarness};

/// Keys of which some go to each partition.
pub(crate) const KEYS: usize = 12;

/// How long a handler works.
const WORK: Duration = Duration::from_millis(5);

/// A harness with faults, and the fleet that it injects them into.
pub(crate) struct Fixture {
    pub(crate) harness: Arc<KinesisHarness>,
    pub(crate) fleet: Fleet,
}

impl Fixture {
    /// On a stream of two partitions.
    pub(crate) async fn new(harness: KinesisHarness) -> Self {
        let harness = Arc::new(harness);
        let fleet = Fleet::new(harness.clone(), 2).await;
        Self { harness, fleet }
    }

    pub(crate) fn faults(&self) -> &Faults {
        self.harness.testbed().faults()
    }

    pub(crate) fn session(&self) -> Duration {
        self.harness.timing().session
    }

    /// A steady load on both partitions.
    pub(crate) async fn load(&self) -> BackgroundLoad {
        let test_producer = self.fleet.test_producer().await;
        test_producer.send_in_background(KEYS, Duration::from_millis(8))
    }

    /// A member that stores its progress often, so that faults hit it.
    pub(crate) async fn member(&self, name: &str) -> Member {
        let often = Duration::from_millis(50);
        let spec = self.fleet.member(name).handler_delay(WORK);
        spec.with(move |group| group.checkpoint_interval(often))
            .start()
            .await
    }

    /// Two members at work, with one partition each.
    pub(crate) async fn pair(&self) -> (Member, Member) {
        let (a, b) = (self.member("a").await, self.member("b").await);
        let each = || a.owns() == 1 && b.owns() == 1;
        self.fleet.until("each has one partition", each).await;
        let before = ["a", "b"].map(|name| self.began(name));
        let at_work = || self.began("a") > before[0] + 20 && self.began("b") > before[1] + 20;
        self.fleet.until("both are at work", at_work).await;
        (a, b)
    }

    /// Records what is about to hit the group, or one member of it.
    pub(crate) fn record(&self, member: Option<&str>, what: &str) {
        self.fleet.history.record(Event::Fault {
            group: Some(self.fleet.group.as_str().into()),
            member: member.map(Into::into),
            what: what.into(),
        });
    }

    /// Waits until the group has handled so many records more.
    pub(crate) async fn handles(&self, more: usize) {
        let goal = self.fleet.acked() + more;
        let handled = || self.fleet.acked() >= goal;
        self.fleet.until("records are handled", handled).await;
    }

    /// How many handlings a member has begun.
    pub(crate) fn began(&self, member: &str) -> usize {
        let of_it = |event: &Event| matches!(event, Event::Began(h) if &*h.by.member == member);
        self.fleet.history.count(of_it)
    }

    /// How often a partition was given to a member after its first one, so far.
    pub(crate) fn handovers(&self) -> u64 {
        self.fleet.verdict(Rules::default()).summary.handovers
    }

    /// Ends the load, has the checker look at all of it, and waits until all progress is stored.
    pub(crate) async fn check(&self, load: BackgroundLoad) -> Summary {
        load.stop().await;
        let summary = self.fleet.check().await;
        self.fleet.caught_up().await;
        summary
    }
}
