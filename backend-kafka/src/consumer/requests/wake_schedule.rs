//! Decides when to wake the connections to brokers that librdkafka (2.12) lets sleep.
//!
//! While a rebalance event is not acknowledged, librdkafka fetches nothing for the whole member. Neither
//! the acknowledgement nor a resume wakes the thread of a broker that had nothing to fetch meanwhile: it sleeps
//! for up to a second (`rd_kafka_max_block_ms`). Any request to the broker wakes it. No event reports when
//! the partitions can be fetched, which is some milliseconds later. So several requests are sent, at growing
//! intervals.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::consumer::types::TopicPartition;

/// The times between the requests.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(130),
    Duration::from_millis(300),
];

/// The partitions whose leaders must be woken, and the time to do so.
#[derive(Debug, Default)]
pub(super) struct WakeSchedule {
    partitions: BTreeSet<TopicPartition>,
    next: Option<Instant>,
    /// The number of requests that were sent.
    sent: usize,
}

impl WakeSchedule {
    /// Schedules requests to the leaders of these partitions, now and at the intervals of [`PAUSES`].
    pub(super) fn wake(&mut self, partitions: Vec<TopicPartition>, now: Instant) {
        if partitions.is_empty() {
            return;
        }
        self.partitions.extend(partitions);
        self.next = Some(now);
        self.sent = 0;
    }

    /// Returns the partitions whose leaders must be woken now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<TopicPartition>> {
        self.next.take_if(|next| *next <= now)?;
        let partitions = self.partitions.iter().cloned().collect();
        match PAUSES.get(self.sent) {
            Some(pause) => self.next = Some(now + *pause),
            None => self.partitions.clear(),
        }
        self.sent += 1;
        Some(partitions)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next
    }
}

/// Returns partitions that cover all leaders. A request has an entry for each partition, and a member may have
/// thousands. All partitions without a known leader are included.
pub(super) fn one_per_leader(
    mut partitions: Vec<TopicPartition>,
    leaders: &HashMap<TopicPartition, Option<i32>>,
) -> Vec<TopicPartition> {
    let mut met = HashSet::new();
    partitions.retain(|name| match leaders.get(name) {
        Some(Some(leader)) => met.insert(*leader),
        _ => true,
    });
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_are_woken_ever_further_apart_and_then_no_more() {
        let mut now = Instant::now();
        let mut schedule = WakeSchedule::default();
        assert_eq!(schedule.next_due(), None);
        schedule.wake(vec![("s".into(), 0)], now);
        let mut woken = 0;
        while let Some(due) = schedule.next_due() {
            now = due;
            assert_eq!(schedule.take_due(now), Some(vec![("s".into(), 0)]));
            assert_eq!(schedule.take_due(now), None);
            woken += 1;
        }
        assert_eq!(woken, PAUSES.len() + 1);
        schedule.wake(vec![("s".into(), 1)], now);
        let next = schedule.take_due(now);
        assert_eq!(
            next,
            Some(vec![("s".into(), 1)]),
            "the earlier ones are forgotten"
        );
    }

    #[test]
    fn each_leader_is_met_once() {
        let partition = |number| (std::sync::Arc::from("t"), number);
        let leader = |number: i32| match number {
            0..3 => Some(None),
            3..1_000 => Some(Some(number % 3)),
            _ => None,
        };
        let partitions: Vec<TopicPartition> = (0..1_002).map(partition).collect();
        let leaders = (0..1_002).filter_map(|number| Some((partition(number), leader(number)?)));
        let met = one_per_leader(partitions, &leaders.collect());
        let numbers: Vec<i32> = met.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 1_000, 1_001]);
    }
}
