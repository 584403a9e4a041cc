//! Delivers records to the runtime, and holds them back while a partition is paused.
//!
//! librdkafka's own pause discards records that are already fetched, and fetches them again after the
//! resume. A window that fills and empties would make it fetch everything many times over. So a pause
//! first only holds back: records that were already taken wait in the
//! [`EventQueue`](crate::consumer::event_queue::EventQueue), the rest stays in librdkafka, within its
//! limits. librdkafka is only paused if the pause lasts, and then frees that memory.

use std::time::{Duration, Instant};

use millstream_core::driver::{Event, StoredRecord};

use super::assigned::{Assigned, Pause, Stage};
use super::assignment::Assignment;
use super::effect::{Effect, Effects};
use crate::offsets;

/// How long a pause only holds records back.
const SOFT: Duration = Duration::from_millis(250);

/// Records of one leader that were fetched from a partition.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<StoredRecord>,
    /// The epoch of the leader that wrote them.
    pub(crate) leader_epoch: Option<i32>,
    /// The end of the partition at the fetch.
    pub(crate) end: Option<u64>,
}

/// Delivers fetched records of a partition, except for those that were already delivered.
pub(crate) fn deliver(it: &mut Assigned, fetched: Fetched, group: &str) -> Option<Event> {
    if it.stage != Stage::Owned {
        return None;
    }
    let Fetched {
        mut records,
        leader_epoch,
        end,
    } = fetched;
    let again = drop_delivered(&mut records, it.delivered);
    if again > 0 {
        tracing::debug!(
            target: "librdkafka", partition = %it.partition, records = again,
            "records that came again were dropped"
        );
    }
    let last = records.last()?;
    it.forward_until = None;
    it.position_is_suspect = false;
    it.failed_fetches.on_success(&it.partition, group);
    it.leader_epochs.note(it.position, leader_epoch);
    it.delivered = offsets::next(last.position).unwrap_or(it.delivered);
    it.position = it.delivered;
    let lag = it.lagging.lag(it.position, end, Some(last.timestamp));
    Some(Event::Records {
        partition: it.partition.clone(),
        epoch: it.epoch,
        records,
        lag,
    })
}

/// Records that librdkafka has read on to an offset without a record: only markers of transactions, or records of
/// aborted ones, followed the last record. librdkafka does not report them, so a lag would stay forever. Returns
/// whether the position has changed.
pub(crate) fn pass(it: &mut Assigned, position: i64, leader_epoch: Option<i32>) -> bool {
    let is_news = position > it.position && !it.position_is_suspect && it.stage == Stage::Owned;
    if is_news {
        it.position = position;
        it.leader_epochs.note(position - 1, leader_epoch);
    }
    is_news
}

/// Holds back the records of a partition.
pub(crate) fn pause(it: &mut Assigned, now: Instant, effects: &mut Effects) {
    if it.pause.is_none() {
        it.pause = Some(Pause {
            since: now,
            is_hard: false,
        });
        effects.push(Effect::HoldBack(it.name.clone()));
    }
}

/// Resumes the delivery of a partition's records.
pub(crate) fn resume(it: &mut Assigned, effects: &mut Effects) {
    let Some(pause) = it.pause.take() else {
        return;
    };
    effects.push(Effect::Forward(it.name.clone()));
    if pause.is_hard {
        // librdkafka drops its reports about a paused partition, such as that its log was truncated.
        effects.push(Effect::SeekOrReassign(it.fetch_position()));
        effects.push(Effect::Resume(it.name.clone()));
        effects.push(Effect::WakeLeaders(vec![it.name.clone()]));
    }
}

/// Pauses partitions in librdkafka whose pause lasts.
pub(crate) fn harden_pauses(assignment: &mut Assignment, now: Instant, effects: &mut Effects) {
    let mut names = Vec::new();
    for it in assignment.iter_mut() {
        if let Some(pause) = &mut it.pause {
            if !pause.is_hard && now >= pause.since + SOFT {
                pause.is_hard = true;
                names.push(it.name.clone());
            }
        }
    }
    if !names.is_empty() {
        effects.push(Effect::Pause(names));
    }
}

/// Returns when the next pause must be passed on to librdkafka.
pub(crate) fn next_hardening(assignment: &Assignment) -> Option<Instant> {
    let pauses = assignment.iter().filter_map(|it| it.pause);
    let soft = pauses.filter(|pause| !pause.is_hard);
    soft.map(|pause| pause.since + SOFT).min()
}

/// Splits fetched records into parts of no more bytes than one collection may have, or of one record.
pub(crate) fn cut(records: Vec<StoredRecord>, most: usize) -> Vec<Vec<StoredRecord>> {
    if records.iter().map(StoredRecord::size).sum::<usize>() <= most {
        return vec![records];
    }
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for record in records {
        let size = record.size();
        let part = parts.last_mut().expect("one was there from the beginning");
        match part.is_empty() || bytes + size <= most {
            true => {
                part.push(record);
                bytes += size;
            }
            false => {
                parts.push(vec![record]);
                bytes = size;
            }
        }
    }
    parts
}

/// Drops the records before `next`, which were already delivered, and returns how many.
///
/// If librdkafka is paused in the middle of a batch call, it can fetch that batch again. If its records were
/// delivered twice, they would be handled twice, and their keys would go back in time.
fn drop_delivered(records: &mut Vec<StoredRecord>, next: i64) -> usize {
    let is_delivered =
        |record: &StoredRecord| offsets::next(record.position).is_some_and(|end| end <= next);
    let delivered = records.partition_point(is_delivered);
    records.drain(..delivered);
    delivered
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use millstream_core::{Headers, Position};

    use super::*;

    fn record(offset: u64, payload: usize) -> StoredRecord {
        StoredRecord {
            position: Position::from(offset),
            timestamp: UNIX_EPOCH,
            key: None,
            payload: Some(Bytes::from(vec![0; payload])),
            headers: Headers::new(),
        }
    }

    fn sizes(parts: &[Vec<StoredRecord>]) -> Vec<Vec<usize>> {
        let sizes = |part: &Vec<StoredRecord>| part.iter().map(StoredRecord::size).collect();
        parts.iter().map(sizes).collect()
    }

    #[test]
    fn what_comes_at_once_is_cut_by_bytes() {
        let records = |sizes: &[usize]| sizes.iter().map(|size| record(0, *size)).collect();
        let parts = |of: &[usize], most| sizes(&cut(records(of), most));
        assert_eq!(parts(&[1, 2, 3], 6), [vec![1, 2, 3]]);
        assert_eq!(parts(&[1, 2, 4], 6), [vec![1, 2], vec![4]]);
        assert_eq!(parts(&[1, 500, 1], 6), [[1], [500], [1]]);
    }

    #[test]
    fn records_that_come_again_are_dropped() {
        for (next, dropped) in [(0, 0), (5, 0), (6, 1), (7, 2), (9, 2), (10, 3), (20, 3)] {
            // Offsets have gaps where there were markers or compacted records.
            let mut records = [5, 6, 9].map(|offset| record(offset, 1)).to_vec();
            assert_eq!(drop_delivered(&mut records, next), dropped, "{next}");
            let left = records.iter().map(|record| offsets::next(record.position));
            assert!(left.clone().all(|end| end > Some(next)), "{next}");
            assert_eq!(left.count(), 3 - dropped, "{next}");
        }
    }
}
