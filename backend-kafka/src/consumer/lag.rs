//! How far a member is behind, and who says so.
//!
//! A lag is the end of a partition less the place of the next record to hand over. That place is
//! known here at any time; three sources tell the end, each where the one before does not:
//!
//! * **The fetch that brought a batch**, for the lag that goes with the batch. It costs nothing
//!   (librdkafka keeps the high watermark) and is as new as the records. But it comes with records
//!   only, and counts those of open transactions, which are no lag: nobody may read them yet.
//! * **The statistics**, each `statistics_interval`: the *last stable offset* of every partition that
//!   is fetched, so also of one in which nothing is stored, or in which a transaction is open. Without
//!   them a member that has joined at the end of a partition would not know that it is not behind.
//! * **The leader, asked**, at the same interval, for partitions whose pause was told to librdkafka. It
//!   does not fetch these, so its statistics stay as they were at the pause, just where a lag grows:
//!   behind a stuck handler. One request to each leader, by the [`aide`](super::aide).

use std::time::{Duration, SystemTime};

use millstream_core::Lag;
use millstream_core::driver::Event;

use super::context::Name;
use super::poller::Poller;
use super::questions::Question;
use super::slots::{Slot, Stage};
use crate::connection::statistics::Bounds;

/// What is known of the records of a partition that are not handed over.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The oldest offset that is left: a group that begins there may have a place before it.
    low: i64,
    /// From when on records wait.
    since: Option<SystemTime>,
}

impl Slot {
    /// What is left now. `last` is the broker's timestamp of a record that is being handed over.
    pub(super) fn lag(&mut self, end: Option<u64>, last: Option<SystemTime>) -> Lag {
        let next = u64::try_from(self.next.max(self.behind.low)).unwrap_or(0);
        let records = end.map(|end| end.saturating_sub(next));
        let now = SystemTime::now();
        let since = &mut self.behind.since;
        *since = match (records, last) {
            (None | Some(0), _) => None,
            // The next one is a little younger than the last one, and not known.
            (_, Some(last)) => Some(last),
            // It came after nothing was left, and that was not seen before now.
            (_, None) => Some(since.unwrap_or(now)),
        };
        let age = |since| now.duration_since(since).ok();
        Lag {
            records,
            time: match records {
                Some(0) => Some(Duration::ZERO),
                _ => since.and_then(age),
            },
        }
    }
}

impl Poller {
    /// Tells what is left in a partition of which nothing is handed over now.
    pub(super) fn tell_lag(&mut self, index: usize, end: Option<u64>) {
        let slot = self.slots.get_mut(index);
        let lag = slot.lag(end, None);
        let (partition, epoch) = (slot.partition.clone(), slot.epoch);
        self.put(Event::Lag {
            partition,
            epoch,
            lag,
        });
    }

    pub(super) fn on_statistics(&mut self, partitions: Vec<(Name, Bounds)>) {
        let mut not_fetched = Vec::new();
        for (name, bounds) in partitions {
            let Some(index) = self.slots.find(&name.0, name.1) else {
                continue;
            };
            let slot = self.slots.get_mut(index);
            slot.behind.low = bounds.low;
            match slot.paused {
                Some(pause) if pause.hard => not_fetched.push(name),
                _ => self.on_end(index, bounds.end),
            }
        }
        if !not_fetched.is_empty() {
            self.aide.ask(Question::Ends(not_fetched));
        }
    }

    pub(super) fn on_ends(&mut self, ends: Vec<(Name, i64)>) {
        for ((topic, partition), end) in ends {
            if let Some(index) = self.slots.find(&topic, partition) {
                self.on_end(index, end);
            }
        }
    }

    fn on_end(&mut self, index: usize, end: i64) {
        let slot = self.slots.get(index);
        // An end before the place was looked up before the last records came, which knew better.
        if slot.stage == Stage::Owned && end >= slot.next {
            self.tell_lag(index, u64::try_from(end).ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use millstream_core::{Epoch, Partition};

    use super::*;
    use crate::consumer::leader_epochs::LeaderEpochs;

    fn slot(next: i64) -> Slot {
        Slot {
            name: ("s".into(), 0),
            partition: Partition::new("s", "0"),
            epoch: Epoch(1),
            handed: next,
            next,
            stored: next,
            topic_id: None,
            stream_id: None,
            leader_epochs: LeaderEpochs::default(),
            reset: None,
            assignment: 1,
            checkpointed: false,
            stage: Stage::Owned,
            paused: None,
            strayed: false,
            position_is_suspect: false,
            out_of_range: None,
            failing: None,
            behind: Behind::default(),
        }
    }

    const NONE: Lag = Lag {
        records: Some(0),
        time: Some(Duration::ZERO),
    };

    #[test]
    fn an_unknown_end_is_no_lag_of_zero() {
        assert_eq!(slot(7).lag(None, None), Lag::default());
        assert_eq!(slot(7).lag(Some(7), None), NONE);
    }

    #[test]
    fn a_lag_ages_from_the_last_record_handed_over() {
        let mut slot = slot(7);
        let hour = Duration::from_secs(3_600);
        let last = SystemTime::now() - hour;
        for last in [Some(last), None] {
            let lag = slot.lag(Some(10), last);
            assert_eq!(lag.records, Some(3));
            assert!(lag.time >= Some(hour), "{lag:?}");
        }
        slot.next = 10;
        assert_eq!(slot.lag(Some(10), None), NONE);
        // What comes now is not as old as what came an hour ago.
        let lag = slot.lag(Some(11), None);
        assert_eq!(lag.records, Some(1));
        assert!(lag.time < Some(hour), "{lag:?}");
    }

    #[test]
    fn a_lag_that_stays_grows_older() {
        let mut slot = slot(0);
        let begun = Instant::now();
        let first = slot.lag(Some(1), None).time.unwrap();
        let deadline = begun + Duration::from_secs(10);
        while slot.lag(Some(1), None).time.unwrap() <= first {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn what_is_gone_by_retention_is_not_left() {
        let mut slot = slot(0);
        slot.behind.low = 95;
        assert_eq!(slot.lag(Some(100), None).records, Some(5));
    }
}
