//! A reader against a shard in memory, under a clock that stands still while there is work.

mod ends;
mod fake;
mod fan_out;
mod flow;
mod places;
mod storm;
mod unpacked;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::driver::StoredRecord;
use millstream_core::{Partition, Position};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Begin, ReadEvent, Reader, Settings, Way, read_from};
use crate::stream::HashRange;
use fake::Fake;

/// The channel's room in most tests.
const ROOM: usize = 1;

/// A reader of a fake shard, and what it says.
struct Run {
    reader: Reader,
    said: mpsc::Receiver<((), ReadEvent)>,
    /// Records that came with others and were not asked for yet.
    rest: VecDeque<StoredRecord>,
}

fn settings(begin: Begin) -> Settings {
    Settings {
        partition: Partition::new("s", "shard-1"),
        range: Some(HashRange {
            first: 0,
            last: u128::MAX,
        }),
        begin,
        tip: None,
        resolved: None,
        way: Way::Polling,
        batch_records: 3,
        batch_bytes: usize::MAX,
        poll_interval: Duration::from_millis(250),
        fallback: false,
        silence: Duration::from_secs(35),
    }
}

fn run(fake: &Arc<Fake>, begin: Begin) -> Run {
    run_with(fake, settings(begin))
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
    /// The next of what is told of a shard of which nothing is left: the last record, and when.
    async fn tip(&mut self) -> (Option<Position>, SystemTime) {
        loop {
            let said = self.said.recv().await;
            if let ReadEvent::AtTip { after, at } = said.expect("it goes on").1 {
                return (after, at);
            }
        }
    }

    /// The next event that is no lag and no tip.
    async fn next(&mut self) -> ReadEvent {
        let hour = Duration::from_secs(3_600);
        loop {
            let said = timeout(hour, self.said.recv()).await;
            match said.expect("it says something").expect("it goes on").1 {
                ReadEvent::Behind(_) | ReadEvent::AtTip { .. } => {}
                event => return event,
            }
        }
    }

    /// The next records, as many as that, by their positions.
    async fn records(&mut self, count: usize) -> Vec<StoredRecord> {
        while self.rest.len() < count {
            match self.next().await {
                ReadEvent::Records { records, .. } => self.rest.extend(records),
                event => panic!("{event:?} after {:?}", self.rest),
            }
        }
        self.rest.drain(..count).collect()
    }

    /// The next records are those of these numbers, each once and in order.
    async fn expect(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<_> = numbers.into_iter().map(Position::from).collect();
        let records = self.records(numbers.len()).await;
        let positions: Vec<_> = records.iter().map(|record| record.position).collect();
        assert_eq!(positions, numbers);
    }

    /// For so long there is nothing but lag.
    async fn expect_nothing(&mut self, time: Duration) {
        let event = timeout(time, self.next()).await;
        assert!(event.is_err(), "{event:?}");
    }
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
