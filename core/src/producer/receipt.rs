//! Receipts: the results of the records of one batch, in one allocation.
//!
//! A record that was sent has two ends. The [`Receipt`] belongs to the user. The [`Completer`] belongs to
//! the task that will complete it, and moves with the record: from the open batch to the sender, into the
//! request, back into the queue. A completer that is dropped completes with an error. So no
//! receipt can hang, whatever happens to the task, the driver or the runtime, and no other code
//! must ensure that.
//!
//! Rejected: a channel per record. It costs an allocation and a wake per record, where a batch costs
//! these once.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::accounting::Accounting;
use super::flush::FlushGeneration;
use crate::sync::lock;
use crate::{Error, RecordMetadata, Result};

/// Future that resolves when the broker has acknowledged a record; see
/// [`Producer::send`](crate::Producer::send).
///
/// It can be dropped: if the record fails, `flush` and `close` report it.
///
/// # Errors
/// The error of the broker, or the last one when the producer's timeout for retries is over. `Timeout`,
/// with the last error as its source, if any attempt timed out. Also `Timeout` if `close` gave up, if
/// the backend's driver panicked, or if the runtime that the producer was opened on has ended. After a
/// `Timeout` the record may or may not be stored; after any other error it is not.
///
/// # Panics
/// If it is polled again after it has resolved, as any future.
///
/// # Cancel safety
/// It can be polled in a `select!` and polled again later.
#[must_use = "await the receipt, or drop it and let `flush` or `close` report failures"]
pub struct Receipt {
    batch: Arc<ReceiptBatch>,
    index: u32,
    read: bool,
}

impl Future for Receipt {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.read, "a receipt was polled after it had resolved");
        let mut states = lock(&self.batch.states);
        let state = state_of(&mut states, self.index);
        match state {
            ReceiptState::Completed(_) => {
                let ReceiptState::Completed(result) = mem::replace(state, ReceiptState::Gone)
                else {
                    unreachable!("it was completed a line before, under the same lock")
                };
                drop(states);
                self.read = true;
                Poll::Ready(result)
            }
            ReceiptState::Awaited(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            ReceiptState::Unpolled | ReceiptState::Gone => {
                *state = ReceiptState::Awaited(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.read {
            return;
        }
        let left = mem::replace(
            state_of(&mut lock(&self.batch.states), self.index),
            ReceiptState::Gone,
        );
        if let ReceiptState::Completed(Err(error)) = left {
            self.batch.accounting.record_unobserved_error(error, 1);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("stream", &self.batch.accounting.stream)
            .finish_non_exhaustive()
    }
}

/// The receipts of the records that went into one batch.
pub(super) struct ReceiptBatch {
    /// Grows when a state is first used, by its receipt or by its result: a batch that is completed
    /// before any receipt is polled fills it once.
    states: Mutex<Vec<ReceiptState>>,
    accounting: Arc<Accounting>,
}

enum ReceiptState {
    /// Neither polled nor completed.
    Unpolled,
    Awaited(Waker),
    Completed(Result<RecordMetadata>),
    /// The receipt was read or dropped.
    Gone,
}

fn state_of(states: &mut Vec<ReceiptState>, index: u32) -> &mut ReceiptState {
    let index = index as usize;
    if states.len() <= index {
        states.resize_with(index + 1, || ReceiptState::Unpolled);
    }
    &mut states[index]
}

/// Completes the records `next..end` of a batch, exactly once each.
pub(super) struct Completer {
    batch: Arc<ReceiptBatch>,
    next: u32,
    end: u32,
    /// The room that these records take.
    charge: u64,
    /// Dropped with the completer, hence after its records are completed and counted.
    generation: FlushGeneration,
}

/// The outcome of one record of a completer.
pub(super) enum Outcome<T> {
    /// The record is completed.
    Final(Result<RecordMetadata>),
    /// The record is retried as `load`, and still counts as in flight.
    Retry { charge: u64, load: T },
}

impl Completer {
    /// Begins a batch without records.
    pub(super) fn new(accounting: Arc<Accounting>, generation: FlushGeneration) -> Self {
        let batch = ReceiptBatch {
            states: Mutex::default(),
            accounting,
        };
        Self {
            batch: Arc::new(batch),
            next: 0,
            end: 0,
            charge: 0,
            generation,
        }
    }

    /// Adds a record at the end, and returns its receipt.
    pub(super) fn push(&mut self, charge: u64) -> Receipt {
        let index = self.end;
        self.end += 1;
        self.charge += charge;
        Receipt {
            batch: self.batch.clone(),
            index,
            read: false,
        }
    }

    /// Splits a completer into completers of one record each, with the given charges.
    pub(super) fn split(mut self, mut charge: impl FnMut() -> u64) -> Vec<Self> {
        let mut parts = Vec::with_capacity((self.end - self.next) as usize);
        for index in mem::replace(&mut self.next, self.end)..self.end {
            parts.push(self.part(index, charge()));
        }
        parts
    }

    /// Calls `outcome` for each record in order and fills the states, under one lock. Returns the records to
    /// retry, each with a completer of its own. This completer is empty then, but it still delays its
    /// flush until it is dropped, which must be after `wakes` was dropped.
    pub(super) fn settle<T>(
        &mut self,
        wakes: &mut WakeBatch,
        mut outcome: impl FnMut() -> Outcome<T>,
    ) -> Vec<(T, Self)> {
        let mut later = Vec::new();
        let (mut stored, mut failed) = (0, 0);
        let batch = self.batch.clone();
        let mut states = lock(&batch.states);
        for index in mem::replace(&mut self.next, self.end)..self.end {
            let result = match outcome() {
                Outcome::Final(result) => result,
                Outcome::Retry { charge, load } => {
                    later.push((load, self.part(index, charge)));
                    continue;
                }
            };
            match &result {
                Ok(_) => stored += 1,
                Err(_) => failed += 1,
            }
            if states.len() == index as usize {
                states.push(ReceiptState::Completed(result));
                continue;
            }
            let state = state_of(&mut states, index);
            match (&mut *state, result) {
                (ReceiptState::Gone, Ok(_)) => {}
                (ReceiptState::Gone, Err(error)) => wakes.unobserved(error),
                (_, result) => {
                    if let ReceiptState::Awaited(waker) =
                        mem::replace(state, ReceiptState::Completed(result))
                    {
                        wakes.wake(waker);
                    }
                }
            }
        }
        let charge = mem::take(&mut self.charge);
        let accounting = &batch.accounting;
        accounting.stored.fetch_add(stored, Relaxed);
        accounting.failed.fetch_add(failed, Relaxed);
        accounting.completed_bytes.fetch_add(charge, Relaxed);
        drop(states);
        later
    }

    fn part(&mut self, index: u32, charge: u64) -> Self {
        // A driver that returns another record than it was given cannot unbalance the accounting of the
        // room.
        let charge = self.charge.min(charge);
        self.charge -= charge;
        Self {
            batch: self.batch.clone(),
            next: index,
            end: index + 1,
            charge,
            generation: self.generation.clone(),
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if self.next == self.end {
            return;
        }
        let mut wakes = WakeBatch::new(self.batch.accounting.clone());
        let error = wakes.accounting.terminal_error();
        self.settle(&mut wakes, || Outcome::<()>::Final(Err(error.clone())));
    }
}

/// One batch of results for the receipts. Collects the tasks to wake, and wakes each once when it is
/// dropped.
pub(super) struct WakeBatch {
    accounting: Arc<Accounting>,
    wakers: Vec<Waker>,
    unobserved: Option<(Error, u64)>,
}

impl WakeBatch {
    pub(super) fn new(accounting: Arc<Accounting>) -> Self {
        Self {
            accounting,
            wakers: Vec::new(),
            unobserved: None,
        }
    }

    /// Adds a task to wake. A task that waits for many receipts at once is woken once.
    fn wake(&mut self, waker: Waker) {
        if !self
            .wakers
            .last()
            .is_some_and(|last| last.will_wake(&waker))
        {
            self.wakers.push(waker);
        }
    }

    fn unobserved(&mut self, error: Error) {
        self.unobserved.get_or_insert((error, 0)).1 += 1;
    }
}

impl Drop for WakeBatch {
    fn drop(&mut self) {
        if let Some((error, count)) = self.unobserved.take() {
            self.accounting.record_unobserved_error(error, count);
        }
        self.accounting.capacity_freed.notify_one();
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
