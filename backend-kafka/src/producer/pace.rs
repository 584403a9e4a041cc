//! Records that wait until a request of their partition is answered, outside librdkafka.
//!
//! An idempotent producer of librdkafka (2.12) has one request of a partition on its way at a time
//! ([librdkafka#4989](https://github.com/confluentinc/librdkafka/pull/4989)). If more records have
//! lingered behind it, its thread looks without a pause whether they may go out
//! ([librdkafka#2565](https://github.com/confluentinc/librdkafka/issues/2565)), and takes a core for
//! that. As long as answers come within the time for which records linger, there are none. Otherwise a
//! partition is *slow*: librdkafka gets what one request takes, and the next when that is answered.
//!
//! This is about speed alone. Which partition a record goes to is librdkafka's to say, and all
//! promises hold if it goes to another one than was thought here. Records without a key go anywhere,
//! and never wait.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Record;

use super::room::RECORD_OVERHEAD;
use crate::native::delivery::Batch;
use crate::native::partitioner;

/// Who lets records linger for less wants each as soon as possible, and a short spin costs less than
/// one more thread on the way.
const SHORTEST_LINGER: Duration = Duration::from_millis(5);

/// What one request takes of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Pace {
    request: Request,
    /// How long librdkafka lets records wait for others that share their request, or a little longer.
    linger: Duration,
    /// By what is taken for their partition.
    tracks: Vec<Track>,
    /// Those that have something to hand over.
    ready: Vec<usize>,
}

#[derive(Debug, Default)]
struct Track {
    slow: bool,
    waiting: VecDeque<Piece>,
    /// What librdkafka has, the oldest first.
    handed: VecDeque<Handed>,
}

#[derive(Debug)]
struct Handed {
    at: Instant,
    records: usize,
}

/// Records of one call that go together.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) batch: Arc<Batch>,
    pub(super) indexes: Vec<usize>,
    bytes: usize,
}

impl Pace {
    pub(super) fn new(request: Request, linger: Duration, partitions: usize) -> Self {
        Self {
            request,
            linger: linger.max(SHORTEST_LINGER),
            tracks: tracks(partitions),
            ready: Vec::new(),
        }
    }

    /// Takes the open records of a call in. Answers those that are to be handed over now.
    pub(super) fn take_in(&mut self, batch: &Arc<Batch>, now: Instant) -> Vec<usize> {
        let mut free = Vec::new();
        for (index, record) in batch.open_records() {
            let Some(key) = &record.key else {
                free.push(index);
                continue;
            };
            let number = self.number(key, batch, index);
            let track = &mut self.tracks[number];
            if track.is_free(now, self.linger) {
                track.hand(1, now);
                free.push(index);
            } else {
                track.push(batch, index, record, self.request);
            }
        }
        free
    }

    fn number(&self, key: &[u8], batch: &Batch, index: usize) -> usize {
        let partitions = NonZeroUsize::new(self.tracks.len());
        let partitions = partitions.expect("a topic has one partition at least");
        let number = partitioner::murmur2(key, partitions);
        batch.set_track(index, number);
        number
    }

    /// From now on a request takes less.
    pub(super) fn set_request(&mut self, request: Request) {
        self.request = request;
    }

    /// What is to be handed over now of those that have waited.
    pub(super) fn take_ready(&mut self, now: Instant) -> Vec<Piece> {
        let mut taken = Vec::new();
        for number in mem::take(&mut self.ready) {
            let track = &mut self.tracks[number];
            if track.handed.is_empty() {
                track.take(self.request, now, &mut taken);
            }
        }
        taken
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Counts records that librdkafka has no more.
    pub(super) fn answered(&mut self, number: usize, records: usize, now: Instant) {
        let track = &mut self.tracks[number];
        track.answered(records, now, self.linger);
        if track.handed.is_empty() && !track.waiting.is_empty() {
            self.ready.push(number);
        }
    }

    /// Learns of a partition, and from then on reckons with it.
    pub(super) fn meet(&mut self, partition: i32) {
        let partitions = usize::try_from(partition).map_or(0, |partition| partition + 1);
        if partitions <= self.tracks.len() {
            return;
        }
        let mut waiting = self.take_back();
        // A call is in many pieces, and a piece of many tracks.
        waiting.sort_by_key(|piece| piece.batch.turn());
        waiting.dedup_by(|piece, before| {
            let same = Arc::ptr_eq(&piece.batch, &before.batch);
            if same {
                before.indexes.append(&mut piece.indexes);
            }
            same
        });
        self.tracks.resize_with(partitions, Track::default);
        for Piece {
            batch, mut indexes, ..
        } in waiting
        {
            indexes.sort_unstable();
            for index in indexes {
                let record = batch.record(index);
                if let Some(key) = &record.key {
                    let number = self.number(key, &batch, index);
                    self.tracks[number].push(&batch, index, record, self.request);
                }
            }
        }
        let waits = |number: &usize| !self.tracks[*number].waiting.is_empty();
        self.ready = (0..partitions).filter(waits).collect();
    }

    /// Takes out what has waited beyond its deadline.
    ///
    /// What is with librdkafka was handed over later than its call came, and fails later. So no record
    /// goes out behind a failed one of its call, where this is asked before [`take_ready`](Self::take_ready).
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Piece> {
        let tracks = self.tracks.iter_mut();
        tracks.flat_map(|track| track.take_overdue(now)).collect()
    }

    /// Takes out all that waits, and knows of nothing that librdkafka has any more.
    pub(super) fn end(&mut self) -> Vec<Piece> {
        let waiting = self.take_back();
        self.tracks = tracks(self.tracks.len());
        waiting
    }

    fn take_back(&mut self) -> Vec<Piece> {
        self.ready.clear();
        let tracks = self.tracks.iter_mut();
        let waiting = tracks.flat_map(|track| mem::take(&mut track.waiting));
        waiting.collect()
    }
}

impl Track {
    /// Whether a record may go to librdkafka at once.
    ///
    /// The oldest one there has gone out after it has lingered, and those that came since have not
    /// lingered until it is there for twice as long.
    fn is_free(&mut self, now: Instant, linger: Duration) -> bool {
        let Some(oldest) = self.handed.front() else {
            return self.waiting.is_empty();
        };
        self.slow |= now.saturating_duration_since(oldest.at) >= linger * 2;
        !self.slow && self.waiting.is_empty()
    }

    fn hand(&mut self, records: usize, now: Instant) {
        match self.handed.back_mut() {
            Some(last) if last.at == now => last.records += records,
            _ => self.handed.push_back(Handed { at: now, records }),
        }
    }

    fn answered(&mut self, records: usize, now: Instant, linger: Duration) {
        let mut left = records;
        while let (Some(oldest), 1..) = (self.handed.front_mut(), left) {
            let these = left.min(oldest.records);
            left -= these;
            oldest.records -= these;
            if oldest.records == 0 {
                self.slow &= now.saturating_duration_since(oldest.at) >= linger;
                self.handed.pop_front();
            }
        }
        debug_assert!(left == 0, "they were handed over");
    }

    fn push(&mut self, batch: &Arc<Batch>, index: usize, record: &Record, request: Request) {
        let bytes = record.size() + RECORD_OVERHEAD;
        match self.waiting.back_mut() {
            Some(piece)
                if Arc::ptr_eq(&piece.batch, batch) && piece.bytes + bytes <= request.bytes =>
            {
                piece.indexes.push(index);
                piece.bytes += bytes;
            }
            _ => self.waiting.push_back(Piece {
                batch: batch.clone(),
                indexes: vec![index],
                bytes,
            }),
        }
    }

    /// Hands over what one request takes, and a piece at least.
    fn take(&mut self, request: Request, now: Instant, taken: &mut Vec<Piece>) {
        let (mut records, mut bytes) = (0, 0);
        while let Some(piece) = self.waiting.pop_front() {
            let more = (records + piece.indexes.len(), bytes + piece.bytes);
            if records > 0 && (more.0 > request.records || more.1 > request.bytes) {
                self.waiting.push_front(piece);
                break;
            }
            (records, bytes) = more;
            taken.push(piece);
        }
        if records > 0 {
            self.hand(records, now);
        }
    }

    fn take_overdue(&mut self, now: Instant) -> Vec<Piece> {
        let mut taken = Vec::new();
        // Calls come in the order of their deadlines.
        let is_overdue = |piece: &Piece| piece.batch.deadline <= now;
        while self.waiting.front().is_some_and(is_overdue) {
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}

fn tracks(count: usize) -> Vec<Track> {
    // A topic has one partition at least.
    (0..count.max(1)).map(|_| Track::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);
    const ROOMY: Request = Request {
        records: 100,
        bytes: 1 << 20,
    };

    /// A call of records of these keys; `-` is none.
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

    /// The calls' turns and the records' places.
    fn told(pieces: &[Piece]) -> Vec<(u64, &[usize])> {
        let pieces = pieces.iter();
        pieces
            .map(|piece| (piece.batch.turn(), &*piece.indexes))
            .collect()
    }

    /// One partition that was found to be slow, with one record on its way.
    fn slow(request: Request, now: Instant) -> Pace {
        let mut pace = Pace::new(request, LINGER, 1);
        let before = now - LINGER * 2;
        assert_eq!(pace.take_in(&call("a", 1, later()), before), [0]);
        assert!(pace.take_in(&call("a", 2, later()), now).is_empty());
        pace
    }

    #[test]
    fn nothing_waits_while_answers_come_in_time() {
        let mut now = Instant::now();
        let mut pace = Pace::new(ROOMY, LINGER, 1);
        for turn in 1..10 {
            assert_eq!(pace.take_in(&call("a-b", turn, later()), now), [0, 1, 2]);
            now += LINGER;
            if turn > 1 {
                pace.answered(0, 2, now);
            }
            assert!(!pace.is_ready());
        }
    }

    #[test]
    fn the_next_records_go_when_the_last_are_answered() {
        let now = Instant::now();
        let mut pace = slow(ROOMY, now);
        assert_eq!(pace.take_in(&call("-b", 3, later()), now), [0]);
        assert!(!pace.is_ready());
        pace.answered(0, 1, now);
        assert!(pace.is_ready());
        let taken = pace.take_ready(now);
        assert_eq!(told(&taken), [(2, &[0][..]), (3, &[1])]);

        // It is slow until an answer comes in time.
        assert!(pace.take_in(&call("a", 4, later()), now).is_empty());
        pace.answered(0, 1, now + LINGER);
        assert!(!pace.is_ready(), "one of two is answered");
        pace.answered(0, 1, now + LINGER / 2);
        assert_eq!(told(&pace.take_ready(now)), [(4, &[0][..])]);
        assert_eq!(pace.take_in(&call("a", 5, later()), now), [0]);
    }

    #[test]
    fn no_record_overtakes_those_that_wait() {
        let now = Instant::now();
        let few = Request {
            records: 1,
            ..ROOMY
        };
        let mut pace = slow(few, now);
        assert!(pace.take_in(&call("a", 3, later()), now).is_empty());
        // In time, but not all can go.
        pace.tracks[0].slow = false;
        pace.answered(0, 1, now);
        assert!(pace.take_in(&call("a", 4, later()), now).is_empty());
        for turn in 2..=4 {
            assert_eq!(told(&pace.take_ready(now)), [(turn, &[0][..])]);
            pace.answered(0, 1, now);
        }
        assert!(!pace.is_ready());
    }

    #[test]
    fn a_request_takes_so_many_records_and_bytes() {
        let now = Instant::now();
        let each = 2 + RECORD_OVERHEAD;
        for request in [
            Request {
                records: 4,
                ..ROOMY
            },
            Request {
                bytes: 4 * each,
                ..ROOMY
            },
        ] {
            let mut pace = slow(request, now);
            for turn in 3..=5 {
                pace.take_in(&call("ab", turn, later()), now);
            }
            pace.take_in(&call("abcabc", 6, later()), now);
            pace.answered(0, 1, now);
            let mut taken = Vec::new();
            while pace.is_ready() {
                let pieces = pace.take_ready(now);
                let records: usize = pieces.iter().map(|piece| piece.indexes.len()).sum();
                assert!(!pieces.is_empty());
                // A call is divided by its bytes alone.
                assert!(records <= 4 || pieces.len() == 1, "{records}");
                pace.answered(0, records, now);
                taken.extend(pieces);
            }
            let order = taken.iter().flat_map(|piece| {
                let turn = piece.batch.turn();
                piece.indexes.iter().map(move |index| (turn, *index))
            });
            let order: Vec<_> = order.collect();
            assert_eq!(order.len(), 13);
            assert!(order.is_sorted(), "{order:?}");
        }
    }

    #[test]
    fn partitions_are_met_in_any_order_and_keys_keep_theirs() {
        let now = Instant::now();
        let mut pace = Pace::new(ROOMY, LINGER, 2);
        let before = now - LINGER * 2;
        assert_eq!(pace.take_in(&call("abcdefg", 1, later()), before).len(), 7);
        for turn in 2..=4 {
            let free = pace.take_in(&call("abcdefgabcdefg", turn, later()), now);
            assert!(free.is_empty());
        }
        for partition in [6, 3, -1] {
            pace.meet(partition);
        }
        let on_their_way: Vec<usize> = pace.tracks.iter().map(|track| track.handed.len()).collect();
        assert_eq!(on_their_way, [1, 1, 0, 0, 0, 0, 0]);
        let mut keys = std::collections::BTreeMap::<_, Vec<_>>::new();
        let mut take = |pieces: Vec<Piece>| {
            for Piece { batch, indexes, .. } in pieces {
                for index in indexes {
                    let key = batch.record(index).key.clone();
                    keys.entry(key).or_default().push((batch.turn(), index));
                }
            }
        };
        take(pace.take_ready(now));
        for track in 0..2 {
            let handed = pace.tracks[track].handed.iter();
            let handed = handed.map(|handed| handed.records).sum();
            pace.answered(track, handed, now);
        }
        take(pace.take_ready(now));
        assert_eq!(keys.len(), 7);
        for (key, order) in keys {
            assert_eq!(order.len(), 6, "{key:?}");
            assert!(order.is_sorted(), "{key:?}: {order:?}");
        }
    }

    #[test]
    fn what_waits_beyond_its_deadline_is_taken_out() {
        let now = Instant::now();
        let mut pace = slow(ROOMY, now);
        pace.take_in(&call("aa", 3, now + LINGER), now);
        pace.take_overdue(later());
        pace.take_in(&call("aa", 4, now + LINGER), now);
        pace.take_in(&call("a", 5, later()), now);
        assert!(pace.take_overdue(now).is_empty());
        let overdue = pace.take_overdue(now + LINGER);
        assert_eq!(told(&overdue), [(4, &[0, 1][..])]);
        pace.answered(0, 1, now);
        assert_eq!(told(&pace.take_ready(now)), [(5, &[0][..])]);
    }

    #[test]
    fn the_end_takes_all_out() {
        let now = Instant::now();
        let mut pace = slow(ROOMY, now);
        assert_eq!(told(&pace.end()), [(2, &[0][..])]);
        assert!(!pace.is_ready());
        // The answer to the first is not waited for.
        assert_eq!(pace.take_in(&call("a", 3, later()), now), [0]);
    }
}
