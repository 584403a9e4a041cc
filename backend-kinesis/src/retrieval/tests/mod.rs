//! A reader against a shard in memory, under a clock that is paused while there is work.

mod contended;
mod cursor;
mod ends;
mod fake;
mod fall_back;
mod fan_out;
mod flow;
mod registry;
mod retention;
mod storm;
mod unpacked;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::driver::{FilteredCounter, StoredRecord};
use millstream_core::{Partition, Position};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{
    Budget, Distribution, ReadEvent, Reader, ResumePoint, RetrievalMode, Settings, read_from,
};
use crate::config::ForeignAggregates;
use crate::lease::Pin;
use crate::stream::HashRange;
use fake::Fake;

/// The channel's capacity in most tests.
const ROOM: usize = 1;

/// A reader of a fake shard, and its events.
struct Run {
    reader: Reader,
    said: mpsc::Receiver<((), ReadEvent)>,
    /// Records that arrived with others and were not taken yet.
    rest: VecDeque<StoredRecord>,
}

fn settings(begin: ResumePoint) -> Settings {
    Settings {
        partition: Partition::new("s", "shard-1"),
        range: Some(HashRange {
            first: 0,
            last: u128::MAX,
        }),
        distribution: Distribution::default(),
        foreign: ForeignAggregates::default(),
        filtered: FilteredCounter::default(),
        begin,
        caught_up: None,
        resolved: None,
        mode: RetrievalMode::Polling,
        budget: Budget::new(64 << 20),
        batch_records: 3,
        batch_bytes: usize::MAX,
        poll_interval: Duration::from_millis(250),
        poll_records: 10_000,
        silence: Duration::from_secs(35),
    }
}

fn run(fake: &Arc<Fake>, begin: ResumePoint) -> Run {
    run_with(fake, settings(begin))
}

/// Starts a reader by enhanced fan-out, of a member of its own.
fn run_in_fan_out(fake: &Arc<Fake>, begin: ResumePoint) -> Run {
    run_in(registry::fan_out(), fake, begin)
}

/// Starts a reader by this mode.
fn run_in(mode: RetrievalMode, fake: &Arc<Fake>, begin: ResumePoint) -> Run {
    let settings = settings(begin);
    run_with(fake, Settings { mode, ..settings })
}

/// Runs a scenario with 100 seeds, each on a runtime of its own with a paused clock.
fn for_each_seed(scenario: impl AsyncFn(u64) + std::panic::RefUnwindSafe) {
    for seed in 0..100 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("it is made");
        let ended = std::panic::catch_unwind(|| runtime.block_on(scenario(seed)));
        assert!(ended.is_ok(), "with seed {seed}");
    }
}

fn run_with(fake: &Arc<Fake>, settings: Settings) -> Run {
    let (to, said) = mpsc::channel(ROOM);
    Run {
        reader: read_from(Arc::new(fake.clone()), settings, (), to),
        said,
        rest: VecDeque::new(),
    }
}

impl Run {
    /// Returns the next report that nothing is left of a shard: the last record, and the time.
    async fn caught_up(&mut self) -> (Option<Position>, SystemTime) {
        loop {
            let said = self.said.recv().await;
            if let ReadEvent::CaughtUp { after, at } = said.expect("it goes on").1 {
                return (after, at);
            }
        }
    }

    /// Returns the next event that is neither a lag nor a tip.
    async fn next(&mut self) -> ReadEvent {
        let hour = Duration::from_secs(3_600);
        loop {
            let said = timeout(hour, self.said.recv()).await;
            match said.expect("it says something").expect("it goes on").1 {
                ReadEvent::Behind(_) | ReadEvent::CaughtUp { .. } => {}
                event => return event,
            }
        }
    }

    /// Returns the next `count` records.
    async fn records(&mut self, count: usize) -> Vec<StoredRecord> {
        while self.rest.len() < count {
            match self.next().await {
                ReadEvent::Records { records, .. } => self.rest.extend(records),
                event => panic!("{event:?} after {:?}", self.rest),
            }
        }
        self.rest.drain(..count).collect()
    }

    /// Asserts that the next records have these numbers, each once and in order.
    async fn expect(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<_> = numbers.into_iter().map(Position::from).collect();
        let records = self.records(numbers.len()).await;
        let positions: Vec<_> = records.iter().map(|record| record.position).collect();
        assert_eq!(positions, numbers);
    }

    /// Asserts that there is nothing but lag for this time.
    async fn expect_nothing(&mut self, time: Duration) {
        let event = timeout(time, self.next()).await;
        assert!(event.is_err(), "{event:?}");
    }
}

/// Returns the tip of a shard as it was pinned.
fn latest(iterator: String, at: SystemTime) -> ResumePoint {
    ResumePoint::Latest(Pin { iterator, at })
}

fn position(text: &str) -> Position {
    text.parse().expect("it is a position")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ago(secs: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(secs)
}
