//! The records of one call while librdkafka has them, and the delivery report of each.
//!
//! Reports arrive on another thread, many at a time. Each report fills the slot of its record, without a lock.
//! The report that completes the batch wakes the call, so a call costs one wake.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use millstream_core::{Error, Record};

/// The delivery report of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The broker has stored it. The offset is negative where the broker did not report it again.
    Stored { partition: i32, offset: i64 },
    /// The record failed with librdkafka's error `code`. The partition is negative where none was chosen.
    Failed {
        partition: i32,
        code: i32,
        maybe_stored: bool,
    },
}

/// The effect of a report on the slot of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The slot was filled: the record has its result.
    Answered,
    /// The slot stays open.
    Open,
}

/// The result of a record.
#[derive(Debug)]
pub(crate) enum Answer<'a> {
    Reported(Report),
    /// An error that is not librdkafka's report on this very record.
    Refused(&'a Error),
    /// An earlier record of its key failed.
    HeldBack,
}

#[derive(Debug)]
pub(crate) struct Batch {
    records: Vec<Record>,
    slots: Box<[Slot]>,
    /// The number of open slots.
    open: AtomicUsize,
    /// Whether the call has its results, though librdkafka may still have records.
    abandoned: AtomicBool,
    waker: AtomicWaker,
    /// The batch itself, from the moment librdkafka first gets a record of it until all records have results: its
    /// reports refer to it by bare addresses, even after the caller is gone.
    itself: Mutex<Option<Arc<Batch>>>,
    /// Errors that slots refer to.
    refusals: Vec<Error>,
    /// Why records were given up that librdkafka no longer had, or did not have yet.
    given_up: OnceLock<Error>,
    /// The position of this call among all calls of the producer. Set when the call takes that position.
    turn: OnceLock<u64>,
    pub(crate) deadline: Instant,
}

/// The result of one record, and the pointer from the record to its batch.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Null until librdkafka gets the record.
    pub(crate) home: AtomicPtr<Batch>,
    /// Negative for a record that is in no queue.
    partition_queue: AtomicI32,
    state: AtomicI32,
    partition: AtomicI32,
    /// The offset at which the record was stored. For a failure, whether the record may be stored nevertheless.
    offset: AtomicI64,
}

/// States of a slot besides librdkafka's error codes, which are small.
const OPEN: i32 = i32::MIN;
const HELD_BACK: i32 = i32::MIN + 1;
const GIVEN_UP: i32 = i32::MIN + 2;
/// The first of `refusals`; the others follow.
const REFUSED: i32 = i32::MIN + 3;
const STORED: i32 = 0;

impl Batch {
    /// Creates a batch. `check` returns why a record cannot be sent at all.
    pub(crate) fn new(
        records: Vec<Record>,
        deadline: Instant,
        check: impl Fn(&Record) -> Result<(), Error>,
    ) -> Self {
        let slots: Box<[Slot]> = records.iter().map(|_| Slot::new()).collect();
        let mut batch = Self {
            open: AtomicUsize::new(slots.len()),
            abandoned: AtomicBool::new(false),
            slots,
            waker: AtomicWaker::new(),
            itself: Mutex::default(),
            refusals: Vec::new(),
            given_up: OnceLock::new(),
            turn: OnceLock::new(),
            deadline,
            records,
        };
        for index in 0..batch.records.len() {
            if let Err(error) = check(&batch.records[index]) {
                // A call has fewer records than this type has values.
                let state = REFUSED + batch.refusals.len() as i32;
                batch.refusals.push(error);
                batch.close(index, state);
            }
        }
        if !batch.refusals.is_empty() {
            batch.hold_back();
        }
        batch
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn record(&self, index: usize) -> &Record {
        &self.records[index]
    }

    /// Returns the records without a result, with their indices.
    pub(crate) fn open_records(&self) -> impl Iterator<Item = (usize, &Record)> {
        let slots = self.records.iter().zip(&self.slots).enumerate();
        slots
            .filter(|(_, (_, slot))| slot.state.load(Relaxed) == OPEN)
            .map(|(index, (record, _))| (index, record))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.open.load(Acquire) == 0 || self.abandoned.load(Acquire)
    }

    /// Returns the queue in which a record waits and is counted, if any.
    pub(crate) fn partition_queue(&self, index: usize) -> Option<usize> {
        usize::try_from(self.slots[index].partition_queue.load(Relaxed)).ok()
    }

    pub(crate) fn set_partition_queue(&self, index: usize, queue: usize) {
        let queue = i32::try_from(queue).expect("a topic has fewer partitions");
        self.slots[index].partition_queue.store(queue, Relaxed);
    }

    pub(crate) fn take_turn(&self, turn: u64) {
        let _ = self.turn.set(turn);
    }

    pub(crate) fn turn(&self) -> u64 {
        *self.turn.get().expect("it is taken before any report")
    }

    /// Fills a slot that was open. [`settle`](Self::settle) must be called afterwards.
    pub(crate) fn report(&self, index: usize, report: Report) {
        let slot = &self.slots[index];
        match report {
            Report::Stored { partition, offset } => {
                slot.partition.store(partition, Relaxed);
                slot.offset.store(offset, Relaxed);
                slot.state.store(STORED, Relaxed);
            }
            Report::Failed {
                partition,
                code,
                maybe_stored,
            } => {
                slot.partition.store(partition, Relaxed);
                slot.offset.store(maybe_stored.into(), Relaxed);
                slot.state.store(code, Relaxed);
            }
        }
    }

    /// Fills a slot like [`report`](Self::report), with one error for all records of this batch that are given up:
    /// the first one.
    pub(crate) fn give_up(&self, index: usize, error: &Error) {
        self.given_up.get_or_init(|| error.clone());
        self.slots[index].state.store(GIVEN_UP, Relaxed);
    }

    /// Keeps the batch alive until all its records have results. At least one record must be without a result.
    pub(crate) fn keep(self: &Arc<Self>) {
        let mut itself = self.itself.lock().unwrap_or_else(PoisonError::into_inner);
        if itself.is_none() {
            *itself = Some(self.clone());
            let home = Arc::as_ptr(self).cast_mut();
            for slot in &self.slots {
                slot.home.store(home, Release);
            }
        }
    }

    /// Counts filled slots. With the last ones, the batch is complete.
    ///
    /// The call that is woken sees everything that was written to the slots before.
    pub(crate) fn settle(&self, filled: usize) -> Option<Complete> {
        (filled > 0 && self.open.fetch_sub(filled, AcqRel) == filled).then(|| Complete {
            waker: self.waker.take(),
            itself: self
                .itself
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        })
    }

    /// Counts filled slots like [`settle`](Self::settle), for a caller that holds an `Arc` of the batch.
    pub(crate) fn settle_and_wake(&self, filled: usize) {
        if let Some(complete) = self.settle(filled) {
            complete.wake();
        }
    }

    /// Closes the open records that follow a failed record of the same key. Must only be called while librdkafka has
    /// no record of this batch.
    pub(crate) fn hold_back(&self) {
        let mut failed = HashSet::<&Bytes>::new();
        for index in 0..self.records.len() {
            let Some(key) = &self.records[index].key else {
                continue;
            };
            match self.slots[index].state.load(Relaxed) {
                STORED => {}
                OPEN if failed.contains(key) => self.close(index, HELD_BACK),
                OPEN => {}
                _ => _ = failed.insert(key),
            }
        }
    }

    /// Gives up all open records. Must only be called while librdkafka has no record of this batch.
    pub(crate) fn give_up_open(&self, error: &Error) {
        let open: Vec<_> = self.open_records().map(|(index, _)| index).collect();
        for &index in &open {
            self.give_up(index, error);
        }
        self.settle_and_wake(open.len());
    }

    /// Gives up all open records at once, including those that librdkafka has. No slot may be filled after this.
    ///
    /// librdkafka reads its records until it has reported them, so the batch still keeps itself alive until then. A
    /// batch is leaked if librdkafka never gets all its records.
    pub(crate) fn abandon(&self, error: &Error) {
        let open: Vec<_> = self.open_records().map(|(index, _)| index).collect();
        for index in open {
            self.give_up(index, error);
        }
        self.abandoned.store(true, Release);
        self.waker.wake();
    }

    fn close(&self, index: usize, state: i32) {
        self.slots[index].state.store(state, Relaxed);
        self.settle_and_wake(1);
    }

    /// Waits until all records have results.
    pub(crate) async fn answered(&self) {
        poll_fn(|cx| {
            if self.is_answered() {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            // The last report may have arrived in between.
            match self.is_answered() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Returns the results, in order. Must be called after [`answered`](Self::answered).
    pub(crate) fn answers(&self) -> impl Iterator<Item = (&Record, Answer<'_>)> {
        let slots = self.records.iter().zip(&self.slots);
        slots.map(|(record, slot)| (record, self.answer(slot)))
    }

    fn answer(&self, slot: &Slot) -> Answer<'_> {
        let partition = slot.partition.load(Relaxed);
        let offset = slot.offset.load(Relaxed);
        match slot.state.load(Relaxed) {
            STORED => Answer::Reported(Report::Stored { partition, offset }),
            HELD_BACK => Answer::HeldBack,
            GIVEN_UP => {
                let error = self.given_up.get();
                Answer::Refused(error.expect("it was set before the slot"))
            }
            state if (REFUSED..REFUSED + self.refusals.len() as i32).contains(&state) => {
                Answer::Refused(&self.refusals[(state - REFUSED) as usize])
            }
            code => Answer::Reported(Report::Failed {
                partition,
                code,
                maybe_stored: offset != 0,
            }),
        }
    }
}

/// A batch whose records all have results. This may be the last reference to it, so no borrow of it may last
/// until this has woken the call.
#[derive(Debug)]
#[must_use]
pub(crate) struct Complete {
    waker: Option<Waker>,
    itself: Option<Arc<Batch>>,
}

impl Complete {
    pub(crate) fn wake(self) {
        drop(self.itself);
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            home: AtomicPtr::default(),
            partition_queue: AtomicI32::new(-1),
            state: AtomicI32::new(OPEN),
            partition: AtomicI32::new(0),
            offset: AtomicI64::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use millstream_core::ErrorKind;

    use super::*;

    const GOOD: Report = Report::Stored {
        partition: 3,
        offset: 7,
    };
    const BAD: Report = Report::Failed {
        partition: 3,
        code: 10,
        maybe_stored: false,
    };

    /// Creates a batch of one record for each key; `-` is no key, `!` is refused.
    fn batch(keys: &str) -> Arc<Batch> {
        let record = |key: char| match key {
            '-' => Record::new(""),
            key => Record::new("").key(key.to_string()),
        };
        let records = keys.chars().map(record).collect();
        let refuse = || Err(Error::new(ErrorKind::TooLarge, "send", "no"));
        let check = |record: &Record| match record.key.as_deref() {
            Some(b"!") => refuse(),
            _ => Ok(()),
        };
        Arc::new(Batch::new(records, Instant::now(), check))
    }

    fn open(batch: &Batch) -> Vec<usize> {
        batch.open_records().map(|(index, _)| index).collect()
    }

    fn answers(batch: &Batch) -> String {
        let letter = |answer| match answer {
            Answer::Reported(Report::Stored { .. }) => 's',
            Answer::Reported(Report::Failed { .. }) => 'f',
            Answer::Refused(_) => 'r',
            Answer::HeldBack => 'h',
        };
        batch.answers().map(|(_, answer)| letter(answer)).collect()
    }

    #[test]
    fn it_is_answered_when_its_last_slot_is_settled() {
        let batch = batch("abc");
        batch.keep();
        let mut answered = Box::pin(batch.answered());
        assert!(answered.as_mut().now_or_never().is_none());
        for index in [2, 0] {
            batch.report(index, GOOD);
        }
        batch.settle_and_wake(2);
        assert!(answered.as_mut().now_or_never().is_none());
        batch.report(1, BAD);
        batch.settle_and_wake(1);
        assert!(answered.now_or_never().is_some());
        assert_eq!(answers(&batch), "sfs");
    }

    #[test]
    fn it_keeps_itself_until_it_is_complete() {
        let batch = batch("ab");
        let watch = Arc::downgrade(&batch);
        batch.keep();
        drop(batch);
        let batch = watch
            .upgrade()
            .expect("nobody has it, and it is not complete");
        batch.report(0, GOOD);
        batch.report(1, GOOD);
        batch.settle_and_wake(2);
        drop(batch);
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn a_key_is_held_back_behind_its_failure_and_no_other() {
        let batch = batch("!a!b-");
        assert_eq!(open(&batch), [1, 3, 4]);
        assert_eq!(answers(&batch).matches('r').count(), 2);

        let batch = self::batch("abab-ba");
        batch.report(0, GOOD);
        batch.report(1, BAD);
        batch.report(4, BAD);
        batch.settle_and_wake(3);
        batch.hold_back();
        assert_eq!(open(&batch), [2, 6]);
        batch.report(2, GOOD);
        batch.report(6, GOOD);
        batch.settle_and_wake(2);
        assert_eq!(answers(&batch), "sfshfhs");
    }

    #[test]
    fn an_abandoned_call_has_its_results_before_the_reports() {
        let batch = batch("ab");
        let watch = Arc::downgrade(&batch);
        batch.keep();
        batch.report(0, GOOD);
        batch.abandon(&Error::new(ErrorKind::Unavailable, "send", "no"));
        assert!(batch.answered().now_or_never().is_some());
        assert_eq!(answers(&batch), "sr");
        drop(batch);
        let batch = watch.upgrade().expect("librdkafka has records of it");
        batch.settle_and_wake(2);
        drop(batch);
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn what_is_given_up_has_one_reason() {
        let batch = batch("ab");
        let reason = |message: &'static str| Error::new(ErrorKind::Closed, "send", message);
        batch.give_up(0, &reason("first"));
        batch.settle_and_wake(1);
        batch.give_up_open(&reason("second"));
        assert!(batch.is_answered());
        for (_, answer) in batch.answers() {
            let Answer::Refused(error) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(error.message(), "first");
        }
    }
}
