//! Accumulates sent records into batches for the sender task.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accounting::Accounting;
use super::flush::FlushGenerations;
use super::receipt::{Completer, Receipt};
use crate::Record;
use crate::driver::StreamLimits;
use crate::sync::lock;

/// Records for one call of the driver, with their completer.
pub(super) struct RecordBatch {
    pub(super) records: Vec<Record>,
    pub(super) completer: Completer,
    /// When its records stop being retried.
    pub(super) deadline: Instant,
}

/// The buffer between `send` and the sender task. It bounds the records in flight.
///
/// One short lock, never held across an await. The order in which sends pass it is the order of the
/// stream: a `send` returns after it has passed, hence a `send` that begins after another one
/// returned passes after it.
///
/// # Concurrency
///
/// A `send` that finds no room counts itself as waiting under the same lock. While any `send` waits, a
/// new one finds no room either, so it does not overtake. Waiting sends pass the semaphore one by one,
/// first in, first out. The one inside checks for room whenever results were counted, and leaves with
/// its record accepted, with `Closed`, or by being dropped. In each case the next one enters and checks
/// for itself first, so no wake is lost and no `send` waits forever.
///
/// Rejected: a semaphore for records and one for bytes. They cost two contended words for each record,
/// where the lock is taken anyway.
pub(super) struct RecordAccumulator {
    state: Mutex<AccumulatorState>,
    fifo: Semaphore,
    accounting: Arc<Accounting>,
    limits: StreamLimits,
    timeout: Duration,
}

/// Why a record was not accepted. The caller still has it.
pub(super) enum PushError {
    /// There is no room, or others wait for it. The caller must continue with
    /// [`RecordAccumulator::push_wait`].
    Full,
    /// The producer is closed.
    Closed,
}

struct AccumulatorState {
    /// Closed batches, oldest first.
    closed_batches: VecDeque<RecordBatch>,
    /// The newest batch, which still grows.
    open_batch: Option<OpenBatch>,
    /// The number of records in the last closed batch: the next one is expected to have as many.
    capacity_hint: usize,
    reader: Option<Waker>,
    /// Whether the reader wants to be woken by a record, or only by the close.
    wants_records: bool,
    /// Set once: no more records are accepted.
    closed: bool,
    generations: FlushGenerations,
    sent: u64,
    sent_bytes: u64,
    /// The completed amount when it was last read. It suffices to know that there is room, and is read
    /// again before a `send` is refused.
    completed: u64,
    completed_bytes: u64,
    /// The number of sends that wait for room.
    waiting: usize,
}

struct OpenBatch {
    records: Vec<Record>,
    bytes: usize,
    completer: Completer,
}

impl RecordAccumulator {
    pub(super) fn new(
        accounting: Arc<Accounting>,
        limits: StreamLimits,
        timeout: Duration,
    ) -> Self {
        let state = AccumulatorState {
            closed_batches: VecDeque::new(),
            open_batch: None,
            capacity_hint: 0,
            reader: None,
            wants_records: false,
            closed: false,
            generations: FlushGenerations::new(),
            sent: 0,
            sent_bytes: 0,
            completed: 0,
            completed_bytes: 0,
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            fifo: Semaphore::new(1),
            accounting,
            limits,
            timeout,
        }
    }

    /// Accepts a record if there is room and no other one waits. A record that is refused as `Full`
    /// counts as waiting.
    ///
    /// The record is passed by reference, and moved once: into its batch.
    pub(super) fn push(&self, record: &mut Record, size: usize) -> Result<Receipt, PushError> {
        let mut state = lock(&self.state);
        if state.waiting > 0 || !self.has_room(&mut state, size) {
            if state.closed {
                return Err(PushError::Closed);
            }
            state.waiting += 1;
            return Err(PushError::Full);
        }
        self.admit(state, record, size)
    }

    /// Accepts a record that was refused as `Full`, in its turn. If the future is dropped, the record was
    /// not accepted.
    pub(super) async fn push_wait(
        &self,
        record: &mut Record,
        size: usize,
    ) -> Result<Receipt, PushError> {
        let _waiting = WaiterGuard(&self.state);
        let _turn = self.fifo.acquire().await;
        loop {
            {
                let mut state = lock(&self.state);
                if state.closed || self.has_room(&mut state, size) {
                    return self.admit(state, record, size);
                }
            }
            self.accounting.capacity_freed.notified().await;
        }
    }

    fn has_room(&self, state: &mut AccumulatorState, size: usize) -> bool {
        let limits = self.accounting.limits;
        let charge = limits.charge(size);
        let fits = |state: &AccumulatorState| {
            state.sent - state.completed < limits.records
                && state.sent_bytes - state.completed_bytes <= limits.bytes - charge
        };
        if fits(state) {
            return true;
        }
        state.completed = self.accounting.completed();
        state.completed_bytes = self.accounting.completed_bytes.load(Relaxed);
        fits(state)
    }

    fn admit(
        &self,
        mut state: MutexGuard<'_, AccumulatorState>,
        record: &mut Record,
        size: usize,
    ) -> Result<Receipt, PushError> {
        if state.closed {
            return Err(PushError::Closed);
        }
        let charge = self.accounting.limits.charge(size);
        state.sent += 1;
        state.sent_bytes += charge;
        if state
            .open_batch
            .as_ref()
            .is_some_and(|open| !self.fits(open, size))
        {
            self.close_batch(&mut state);
        }
        let AccumulatorState {
            open_batch,
            generations,
            capacity_hint,
            ..
        } = &mut *state;
        let open = open_batch.get_or_insert_with(|| OpenBatch {
            records: Vec::with_capacity(*capacity_hint),
            bytes: 0,
            completer: Completer::new(self.accounting.clone(), generations.now().clone()),
        });
        open.records.push(mem::take(record));
        open.bytes += size;
        let receipt = open.completer.push(charge);
        let reader = state.wants_records.then(|| state.reader.take()).flatten();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(receipt)
    }

    fn fits(&self, open: &OpenBatch, size: usize) -> bool {
        open.records.len() < self.limits.batch_records
            && open.bytes.saturating_add(size) <= self.limits.batch_bytes
    }

    /// Closes the open batch. Its timeout starts here, so the clock is read once for each batch. The timeout starts
    /// late by at most the time that the batch was open. The sender could not have started the batch during that
    /// time.
    fn close_batch(&self, state: &mut AccumulatorState) {
        if let Some(OpenBatch {
            records, completer, ..
        }) = state.open_batch.take()
        {
            state.capacity_hint = records.len();
            state.closed_batches.push_back(RecordBatch {
                records,
                completer,
                deadline: Instant::now() + self.timeout,
            });
        }
    }

    /// Moves the closed batches to `batches`, or the open one if there are none. An open batch grows as
    /// long as others must be sent first.
    pub(super) fn take(&self, batches: &mut VecDeque<RecordBatch>) {
        let mut state = lock(&self.state);
        if state.closed_batches.is_empty() {
            self.close_batch(&mut state);
        }
        if batches.is_empty() {
            mem::swap(batches, &mut state.closed_batches);
        } else {
            batches.append(&mut state.closed_batches);
        }
    }

    /// Returns `Ready` when there is a record to take, if `wants_records`, or when the accumulator was closed.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        wants_records: bool,
        close_seen: bool,
    ) -> Poll<()> {
        let mut state = lock(&self.state);
        if wants_records && !state.is_empty() || state.closed && !close_seen {
            return Poll::Ready(());
        }
        state.wants_records = wants_records;
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Accepts no more records, and wakes the sender. Idempotent.
    pub(super) fn close(&self) {
        let reader = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        self.accounting.capacity_freed.notify_one();
    }

    /// Closes, and returns the batches that no sender will take any more.
    pub(super) fn abandon(&self) -> VecDeque<RecordBatch> {
        self.close();
        let mut batches = VecDeque::new();
        let mut state = lock(&self.state);
        self.close_batch(&mut state);
        mem::swap(&mut batches, &mut state.closed_batches);
        batches
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.state).is_empty()
    }

    /// Ends the generation of the records sent so far; see [`FlushGenerations::next`].
    pub(super) fn next_generation(&self) -> Vec<CancellationToken> {
        let mut state = lock(&self.state);
        self.close_batch(&mut state);
        state.generations.next()
    }

    /// Returns the records and bytes accepted so far.
    pub(super) fn sent(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.sent, state.sent_bytes)
    }
}

impl AccumulatorState {
    fn is_empty(&self) -> bool {
        self.closed_batches.is_empty() && self.open_batch.is_none()
    }
}

/// Counts a `send` as waiting for room, until it is accepted or dropped.
struct WaiterGuard<'a>(&'a Mutex<AccumulatorState>);

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        lock(self.0).waiting -= 1;
    }
}
