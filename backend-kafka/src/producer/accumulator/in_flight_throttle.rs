//! Keeps records out of librdkafka while a request of their partition has no response.
//!
//! An idempotent producer of librdkafka (2.12) has one request of a partition in flight at a time
//! ([librdkafka#4989](https://github.com/confluentinc/librdkafka/pull/4989)). If more records have
//! lingered behind it, its thread checks without a pause whether they may be sent
//! ([librdkafka#2565](https://github.com/confluentinc/librdkafka/issues/2565)), and uses a full core for
//! that. As long as responses arrive within the linger time, there are no such records. Otherwise a partition is
//! *slow*: librdkafka gets the records of one request, and more when that request has a response.
//!
//! The throttle only affects performance. librdkafka chooses the partition of a record, and all guarantees hold if it
//! chooses another one than is expected here. Records without a key may go to any partition, and never wait.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Record;

use crate::native::delivery::Batch;
use crate::native::partitioner;
use crate::producer::size_limits::RECORD_OVERHEAD;

/// The minimum of the linger time. A shorter linger asks for the lowest latency, and then a short spin costs less
/// than passing one more thread.
const SHORTEST_LINGER: Duration = Duration::from_millis(5);

/// The limits of one request for a partition.
#[derive(Debug, Clone, Copy)]
pub(in crate::producer) struct RequestLimit {
    pub(in crate::producer) records: usize,
    pub(in crate::producer) bytes: usize,
}

#[derive(Debug)]
pub(in crate::producer) struct InFlightThrottle {
    /// Whether any record ever waits.
    is_on: bool,
    request: RequestLimit,
    /// How long librdkafka lets records linger for others that share their request, or a little longer.
    linger: Duration,
    /// The queues by the expected partition of their records.
    queues: Vec<PartitionQueue>,
    /// The queues that have records to send.
    ready: Vec<usize>,
}

#[derive(Debug, Default)]
struct PartitionQueue {
    slow: bool,
    waiting: VecDeque<BatchSlice>,
    /// The records that librdkafka has, oldest first.
    in_flight: VecDeque<InFlightRecords>,
}

#[derive(Debug)]
struct InFlightRecords {
    at: Instant,
    records: usize,
}

/// Records of one call that are sent together.
#[derive(Debug)]
pub(in crate::producer) struct BatchSlice {
    pub(in crate::producer) batch: Arc<Batch>,
    pub(in crate::producer) indexes: Vec<usize>,
    bytes: usize,
}

impl InFlightThrottle {
    pub(in crate::producer) fn new(
        request: RequestLimit,
        linger: Duration,
        partitions: usize,
    ) -> Self {
        Self {
            is_on: true,
            request,
            linger: linger.max(SHORTEST_LINGER),
            queues: queues(partitions),
            ready: Vec::new(),
        }
    }

    /// Disables the throttle: all records pass.
    pub(in crate::producer) fn turned_off(mut self) -> Self {
        self.is_on = false;
        self
    }

    /// Handles the open records of a call. Returns the records to send now; the others wait.
    pub(super) fn admit(&mut self, batch: &Arc<Batch>, now: Instant) -> Vec<usize> {
        if !self.is_on {
            return batch.open_records().map(|(index, _)| index).collect();
        }
        let mut free = Vec::new();
        for (index, record) in batch.open_records() {
            let Some(key) = &record.key else {
                free.push(index);
                continue;
            };
            let number = self.number(key, batch, index);
            let queue = &mut self.queues[number];
            if queue.is_free(now, self.linger) {
                queue.hand_over(1, now);
                free.push(index);
            } else {
                queue.push(batch, index, record, self.request);
            }
        }
        free
    }

    fn number(&self, key: &[u8], batch: &Batch, index: usize) -> usize {
        let partitions = NonZeroUsize::new(self.queues.len());
        let partitions = partitions.expect("a topic has one partition at least");
        let number = partitioner::murmur2(key, partitions);
        batch.set_partition_queue(index, number);
        number
    }

    /// Sets the limits of one request from now on.
    pub(super) fn set_request_limit(&mut self, request: RequestLimit) {
        self.request = request;
    }

    /// Returns the records that have waited and can be sent now.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<BatchSlice> {
        let mut taken = Vec::new();
        for number in mem::take(&mut self.ready) {
            let queue = &mut self.queues[number];
            if queue.in_flight.is_empty() {
                queue.take(self.request, now, &mut taken);
            }
        }
        taken
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Subtracts records of a queue that librdkafka no longer has.
    pub(super) fn on_reported(&mut self, number: usize, records: usize, now: Instant) {
        let queue = &mut self.queues[number];
        queue.on_reported(records, now, self.linger);
        if queue.in_flight.is_empty() && !queue.waiting.is_empty() {
            self.ready.push(number);
        }
    }

    /// Adds a partition, and all lower ones, unless they are known.
    pub(super) fn add_partition(&mut self, partition: i32) {
        let partitions = usize::try_from(partition).map_or(0, |partition| partition + 1);
        if partitions <= self.queues.len() {
            return;
        }
        let mut waiting = self.take_waiting();
        // A call is split into many slices, and its slices are in many queues.
        waiting.sort_by_key(|slice| slice.batch.turn());
        waiting.dedup_by(|slice, before| {
            let same = Arc::ptr_eq(&slice.batch, &before.batch);
            if same {
                before.indexes.append(&mut slice.indexes);
            }
            same
        });
        self.queues.resize_with(partitions, PartitionQueue::default);
        for BatchSlice {
            batch, mut indexes, ..
        } in waiting
        {
            indexes.sort_unstable();
            for index in indexes {
                let record = batch.record(index);
                if let Some(key) = &record.key {
                    let number = self.number(key, &batch, index);
                    self.queues[number].push(&batch, index, record, self.request);
                }
            }
        }
        let waits = |number: &usize| !self.queues[*number].waiting.is_empty();
        self.ready = (0..partitions).filter(waits).collect();
    }

    /// Removes the records that have waited beyond their deadline.
    ///
    /// Records that librdkafka has were handed over later than their call arrived, and fail later. So no record
    /// is sent behind a failed one of its call, if this is called before [`drain`](Self::drain).
    pub(super) fn expire(&mut self, now: Instant) -> Vec<BatchSlice> {
        let queues = self.queues.iter_mut();
        queues.flat_map(|queue| queue.expire(now)).collect()
    }

    /// Removes all waiting records, and forgets those that librdkafka has.
    pub(super) fn reset(&mut self) -> Vec<BatchSlice> {
        let waiting = self.take_waiting();
        self.queues = queues(self.queues.len());
        waiting
    }

    /// Returns how many records librdkafka has, as counted here.
    #[cfg(test)]
    pub(super) fn records_in_flight(&self) -> usize {
        let in_flight = self.queues.iter().flat_map(|queue| &queue.in_flight);
        in_flight.map(|records| records.records).sum()
    }

    fn take_waiting(&mut self) -> Vec<BatchSlice> {
        self.ready.clear();
        let queues = self.queues.iter_mut();
        let waiting = queues.flat_map(|queue| mem::take(&mut queue.waiting));
        waiting.collect()
    }
}

impl PartitionQueue {
    /// Returns whether a record may be handed to librdkafka at once.
    ///
    /// The oldest record there was sent after it had lingered. The later ones have not lingered until the oldest one
    /// has been there for twice as long.
    fn is_free(&mut self, now: Instant, linger: Duration) -> bool {
        let Some(oldest) = self.in_flight.front() else {
            return self.waiting.is_empty();
        };
        self.slow |= now.saturating_duration_since(oldest.at) >= linger * 2;
        !self.slow && self.waiting.is_empty()
    }

    fn hand_over(&mut self, records: usize, now: Instant) {
        match self.in_flight.back_mut() {
            Some(last) if last.at == now => last.records += records,
            _ => self
                .in_flight
                .push_back(InFlightRecords { at: now, records }),
        }
    }

    fn on_reported(&mut self, records: usize, now: Instant, linger: Duration) {
        let mut left = records;
        while let (Some(oldest), 1..) = (self.in_flight.front_mut(), left) {
            let these = left.min(oldest.records);
            left -= these;
            oldest.records -= these;
            if oldest.records == 0 {
                self.slow &= now.saturating_duration_since(oldest.at) >= linger;
                self.in_flight.pop_front();
            }
        }
        debug_assert!(left == 0, "they were handed over");
    }

    fn push(&mut self, batch: &Arc<Batch>, index: usize, record: &Record, request: RequestLimit) {
        let bytes = record.size() + RECORD_OVERHEAD;
        match self.waiting.back_mut() {
            Some(slice)
                if Arc::ptr_eq(&slice.batch, batch) && slice.bytes + bytes <= request.bytes =>
            {
                slice.indexes.push(index);
                slice.bytes += bytes;
            }
            _ => self.waiting.push_back(BatchSlice {
                batch: batch.clone(),
                indexes: vec![index],
                bytes,
            }),
        }
    }

    /// Takes the records of one request, and at least one slice.
    fn take(&mut self, request: RequestLimit, now: Instant, taken: &mut Vec<BatchSlice>) {
        let (mut records, mut bytes) = (0, 0);
        while let Some(slice) = self.waiting.pop_front() {
            let more = (records + slice.indexes.len(), bytes + slice.bytes);
            if records > 0 && (more.0 > request.records || more.1 > request.bytes) {
                self.waiting.push_front(slice);
                break;
            }
            (records, bytes) = more;
            taken.push(slice);
        }
        if records > 0 {
            self.hand_over(records, now);
        }
    }

    fn expire(&mut self, now: Instant) -> Vec<BatchSlice> {
        let mut taken = Vec::new();
        // Calls arrive in the order of their deadlines.
        let is_overdue = |slice: &BatchSlice| slice.batch.deadline <= now;
        while self.waiting.front().is_some_and(is_overdue) {
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

fn queues(count: usize) -> Vec<PartitionQueue> {
    // A topic has at least one partition.
    (0..count.max(1))
        .map(|_| PartitionQueue::default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);
    const ROOMY: RequestLimit = RequestLimit {
        records: 100,
        bytes: 1 << 20,
    };

    /// Creates a call of records with these keys; `-` is no key.
    fn call(keys: &str, turn: u64, deadline: Instant) -> Arc<Batch> {
        let record = |key: char| match key {
            '-' => Record::new("x"),
            key => Record::new("x").key(key.to_string()),
        };
        let records = keys.chars().map(record).collect();
        let batch = Arc::new(Batch::new(records, deadline, |_| Ok(())));
        batch.take_turn(turn);
        batch
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Returns the turns of the calls and the indexes of the records.
    fn order_of(slices: &[BatchSlice]) -> Vec<(u64, &[usize])> {
        let slices = slices.iter();
        slices
            .map(|slice| (slice.batch.turn(), &*slice.indexes))
            .collect()
    }

    /// Creates a throttle with one slow partition, which has one record in flight.
    fn slow(request: RequestLimit, now: Instant) -> InFlightThrottle {
        let mut throttle = InFlightThrottle::new(request, LINGER, 1);
        let before = now - LINGER * 2;
        assert_eq!(throttle.admit(&call("a", 1, later()), before), [0]);
        assert!(throttle.admit(&call("a", 2, later()), now).is_empty());
        throttle
    }

    #[test]
    fn nothing_waits_when_it_is_off() {
        let begun = Instant::now();
        let mut throttle = InFlightThrottle::new(ROOMY, LINGER, 1).turned_off();
        for milli in 0..100 {
            let now = begun + Duration::from_millis(milli);
            let admitted = throttle.admit(&call("a-b", milli, later()), now);
            assert_eq!(admitted, [0, 1, 2], "{milli} ms");
        }
        assert_eq!(throttle.records_in_flight(), 0);
    }

    #[test]
    fn nothing_waits_while_answers_come_in_time() {
        let mut now = Instant::now();
        let mut throttle = InFlightThrottle::new(ROOMY, LINGER, 1);
        for turn in 1..10 {
            assert_eq!(throttle.admit(&call("a-b", turn, later()), now), [0, 1, 2]);
            now += LINGER;
            if turn > 1 {
                throttle.on_reported(0, 2, now);
            }
            assert!(!throttle.is_ready());
        }
    }

    #[test]
    fn the_next_records_go_when_the_last_are_answered() {
        let now = Instant::now();
        let mut throttle = slow(ROOMY, now);
        assert_eq!(throttle.admit(&call("-b", 3, later()), now), [0]);
        assert!(!throttle.is_ready());
        throttle.on_reported(0, 1, now);
        assert!(throttle.is_ready());
        let taken = throttle.drain(now);
        assert_eq!(order_of(&taken), [(2, &[0][..]), (3, &[1])]);

        // The partition is slow until a response arrives in time.
        assert!(throttle.admit(&call("a", 4, later()), now).is_empty());
        throttle.on_reported(0, 1, now + LINGER);
        assert!(!throttle.is_ready(), "one of two is answered");
        throttle.on_reported(0, 1, now + LINGER / 2);
        assert_eq!(order_of(&throttle.drain(now)), [(4, &[0][..])]);
        assert_eq!(throttle.admit(&call("a", 5, later()), now), [0]);
    }

    #[test]
    fn no_record_overtakes_those_that_wait() {
        let now = Instant::now();
        let few = RequestLimit {
            records: 1,
            ..ROOMY
        };
        let mut throttle = slow(few, now);
        assert!(throttle.admit(&call("a", 3, later()), now).is_empty());
        // The response is in time, but not all records can go.
        throttle.queues[0].slow = false;
        throttle.on_reported(0, 1, now);
        assert!(throttle.admit(&call("a", 4, later()), now).is_empty());
        for turn in 2..=4 {
            assert_eq!(order_of(&throttle.drain(now)), [(turn, &[0][..])]);
            throttle.on_reported(0, 1, now);
        }
        assert!(!throttle.is_ready());
    }

    #[test]
    fn a_request_takes_so_many_records_and_bytes() {
        let now = Instant::now();
        let each = 2 + RECORD_OVERHEAD;
        for request in [
            RequestLimit {
                records: 4,
                ..ROOMY
            },
            RequestLimit {
                bytes: 4 * each,
                ..ROOMY
            },
        ] {
            let mut throttle = slow(request, now);
            for turn in 3..=5 {
                throttle.admit(&call("ab", turn, later()), now);
            }
            throttle.admit(&call("abcabc", 6, later()), now);
            throttle.on_reported(0, 1, now);
            let mut taken = Vec::new();
            while throttle.is_ready() {
                let slices = throttle.drain(now);
                let records: usize = slices.iter().map(|slice| slice.indexes.len()).sum();
                assert!(!slices.is_empty());
                // A call is only divided by its bytes.
                assert!(records <= 4 || slices.len() == 1, "{records}");
                throttle.on_reported(0, records, now);
                taken.extend(slices);
            }
            let order = taken.iter().flat_map(|slice| {
                let turn = slice.batch.turn();
                slice.indexes.iter().map(move |index| (turn, *index))
            });
            let order: Vec<_> = order.collect();
            assert_eq!(order.len(), 13);
            assert!(order.is_sorted(), "{order:?}");
        }
    }

    #[test]
    fn partitions_are_met_in_any_order_and_keys_keep_theirs() {
        let now = Instant::now();
        let mut throttle = InFlightThrottle::new(ROOMY, LINGER, 2);
        let before = now - LINGER * 2;
        assert_eq!(
            throttle.admit(&call("abcdefg", 1, later()), before).len(),
            7
        );
        for turn in 2..=4 {
            let free = throttle.admit(&call("abcdefgabcdefg", turn, later()), now);
            assert!(free.is_empty());
        }
        for partition in [6, 3, -1] {
            throttle.add_partition(partition);
        }
        let on_their_way: Vec<usize> = throttle
            .queues
            .iter()
            .map(|queue| queue.in_flight.len())
            .collect();
        assert_eq!(on_their_way, [1, 1, 0, 0, 0, 0, 0]);
        let mut keys = std::collections::BTreeMap::<_, Vec<_>>::new();
        let mut take = |slices: Vec<BatchSlice>| {
            for BatchSlice { batch, indexes, .. } in slices {
                for index in indexes {
                    let key = batch.record(index).key.clone();
                    keys.entry(key).or_default().push((batch.turn(), index));
                }
            }
        };
        take(throttle.drain(now));
        for queue in 0..2 {
            let records = throttle.queues[queue].in_flight.iter();
            let records = records.map(|handed| handed.records).sum();
            throttle.on_reported(queue, records, now);
        }
        take(throttle.drain(now));
        assert_eq!(keys.len(), 7);
        for (key, order) in keys {
            assert_eq!(order.len(), 6, "{key:?}");
            assert!(order.is_sorted(), "{key:?}: {order:?}");
        }
    }

    #[test]
    fn what_waits_beyond_its_deadline_is_taken_out() {
        let now = Instant::now();
        let mut throttle = slow(ROOMY, now);
        throttle.admit(&call("aa", 3, now + LINGER), now);
        throttle.expire(later());
        throttle.admit(&call("aa", 4, now + LINGER), now);
        throttle.admit(&call("a", 5, later()), now);
        assert!(throttle.expire(now).is_empty());
        let overdue = throttle.expire(now + LINGER);
        assert_eq!(order_of(&overdue), [(4, &[0, 1][..])]);
        throttle.on_reported(0, 1, now);
        assert_eq!(order_of(&throttle.drain(now)), [(5, &[0][..])]);
    }

    #[test]
    fn the_end_takes_all_out() {
        let now = Instant::now();
        let mut throttle = slow(ROOMY, now);
        assert_eq!(order_of(&throttle.reset()), [(2, &[0][..])]);
        assert!(!throttle.is_ready());
        // The response to the first record is not awaited.
        assert_eq!(throttle.admit(&call("a", 3, later()), now), [0]);
    }
}
