//! Receipts: slots of a page, one page for each batch.
//!
//! A record that was sent has two ends. The [`Receipt`] is the user's; the [`Duty`] belongs to
//! whoever will answer, and moves with the record: from the open batch to the sender, into the
//! call, back into the backlog. A duty that is dropped unanswered answers with an error. So no
//! receipt can hang, whatever happens to the task, the driver or the runtime, and no other place
//! has to remember that.
//!
//! Why slots and not a channel for each record: a channel costs an allocation and a wake for each;
//! a page costs these once a batch.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::books::Books;
use super::era::Era;
use crate::lock::lock;
use crate::{Error, Placed, Result};

/// The broker's answer to one record, to be awaited; see [`Producer::send`](crate::Producer::send).
///
/// Dropping it unread is safe: a failure is then told by `flush` and `close`. Cancel safe.
///
/// # Errors
/// What the broker answered, or the last of its answers when the producer's time-out for retries
/// was over; but `Timeout`, with the last answer as its source, if any attempt timed out. `Timeout`
/// too when `close` gave up, and when nobody is left to answer: the backend's driver panicked, or
/// the runtime that the producer was opened on has ended. After a `Timeout` the record may or may
/// not be stored; after any other error it is not.
///
/// # Panics
/// When it is awaited again after it has answered, as with any future.
#[must_use = "await the receipt, or drop it and let `flush` or `close` tell of failures"]
pub struct Receipt {
    page: Arc<Page>,
    index: u32,
    read: bool,
}

impl Future for Receipt {
    type Output = Result<Placed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.read, "a receipt was awaited after it had answered");
        let mut slots = lock(&self.page.slots);
        let slot = slot(&mut slots, self.index);
        match slot {
            Slot::Answered(_) => {
                let Slot::Answered(answer) = mem::replace(slot, Slot::Gone) else {
                    unreachable!("it was answered a line before, under the same lock")
                };
                drop(slots);
                self.read = true;
                Poll::Ready(answer)
            }
            Slot::Awaited(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Slot::Open | Slot::Gone => {
                *slot = Slot::Awaited(cx.waker().clone());
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
        let left = mem::replace(slot(&mut lock(&self.page.slots), self.index), Slot::Gone);
        if let Slot::Answered(Err(error)) = left {
            self.page.books.note_unread(error, 1);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("stream", &self.page.books.stream)
            .finish_non_exhaustive()
    }
}

/// The slots of the records that went into one batch.
pub(super) struct Page {
    /// Grows when a slot is first touched, by its receipt or by its answer: a batch that is
    /// answered before anybody looks fills it once.
    slots: Mutex<Vec<Slot>>,
    books: Arc<Books>,
}

enum Slot {
    Open,
    Awaited(Waker),
    Answered(Result<Placed>),
    /// The receipt was read or dropped.
    Gone,
}

fn slot(slots: &mut Vec<Slot>, index: u32) -> &mut Slot {
    let index = index as usize;
    if slots.len() <= index {
        slots.resize_with(index + 1, || Slot::Open);
    }
    &mut slots[index]
}

/// The duty to answer the records `next..end` of a page, exactly once each.
pub(super) struct Duty {
    page: Arc<Page>,
    next: u32,
    end: u32,
    /// The room that these records take.
    cost: u64,
    /// Dropped with the duty, hence after its records are answered and counted.
    era: Era,
}

/// What becomes of one record of a duty.
pub(super) enum Answer<T> {
    /// It is answered.
    Final(Result<Placed>),
    /// It is tried again as `load`, and goes on taking room.
    Later { cost: u64, load: T },
}

impl Duty {
    /// Begins a page without records.
    pub(super) fn new(books: Arc<Books>, era: Era) -> Self {
        let page = Page {
            slots: Mutex::default(),
            books,
        };
        Self {
            page: Arc::new(page),
            next: 0,
            end: 0,
            cost: 0,
            era,
        }
    }

    /// Takes on one more record, at the end.
    pub(super) fn push(&mut self, cost: u64) -> Receipt {
        let index = self.end;
        self.end += 1;
        self.cost += cost;
        Receipt {
            page: self.page.clone(),
            index,
            read: false,
        }
    }

    /// Splits a duty into duties of one record each, whose costs are given.
    pub(super) fn split(mut self, mut cost: impl FnMut() -> u64) -> Vec<Self> {
        let mut parts = Vec::with_capacity((self.end - self.next) as usize);
        for index in mem::replace(&mut self.next, self.end)..self.end {
            parts.push(self.part(index, cost()));
        }
        parts
    }

    /// Asks `answer` for each record in order and fills the slots, under one lock. Returns what is
    /// to be tried again, each with a duty of its own. Nothing is left of this duty afterwards, but
    /// it still holds its flush back until it is dropped: let that be after the round is over.
    pub(super) fn settle<T>(
        &mut self,
        round: &mut Round,
        mut answer: impl FnMut() -> Answer<T>,
    ) -> Vec<(T, Self)> {
        let mut later = Vec::new();
        let (mut stored, mut failed) = (0, 0);
        let page = self.page.clone();
        let mut slots = lock(&page.slots);
        for index in mem::replace(&mut self.next, self.end)..self.end {
            let result = match answer() {
                Answer::Final(result) => result,
                Answer::Later { cost, load } => {
                    later.push((load, self.part(index, cost)));
                    continue;
                }
            };
            match &result {
                Ok(_) => stored += 1,
                Err(_) => failed += 1,
            }
            if slots.len() == index as usize {
                slots.push(Slot::Answered(result));
                continue;
            }
            let slot = slot(&mut slots, index);
            match (&mut *slot, result) {
                (Slot::Gone, Ok(_)) => {}
                (Slot::Gone, Err(error)) => round.unread(error),
                (_, result) => {
                    if let Slot::Awaited(waker) = mem::replace(slot, Slot::Answered(result)) {
                        round.wake(waker);
                    }
                }
            }
        }
        let cost = mem::take(&mut self.cost);
        let books = &page.books;
        books.stored.fetch_add(stored, Relaxed);
        books.failed.fetch_add(failed, Relaxed);
        books.answered_bytes.fetch_add(cost, Relaxed);
        drop(slots);
        later
    }

    fn part(&mut self, index: u32, cost: u64) -> Self {
        // A driver that hands back another record than it was given cannot unbalance the sum of the
        // room.
        let cost = self.cost.min(cost);
        self.cost -= cost;
        Self {
            page: self.page.clone(),
            next: index,
            end: index + 1,
            cost,
            era: self.era.clone(),
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.next == self.end {
            return;
        }
        let mut round = Round::new(self.page.books.clone());
        let error = round.books.last_word();
        self.settle(&mut round, || Answer::<()>::Final(Err(error.clone())));
    }
}

/// One batch of results on its way to the receipts: collects whom to wake, and wakes them once, at
/// its end.
pub(super) struct Round {
    books: Arc<Books>,
    wakers: Vec<Waker>,
    unread: Option<(Error, u64)>,
}

impl Round {
    pub(super) fn new(books: Arc<Books>) -> Self {
        Self {
            books,
            wakers: Vec::new(),
            unread: None,
        }
    }

    /// A task that waits for many receipts at once is woken once.
    fn wake(&mut self, waker: Waker) {
        if !self
            .wakers
            .last()
            .is_some_and(|last| last.will_wake(&waker))
        {
            self.wakers.push(waker);
        }
    }

    fn unread(&mut self, error: Error) {
        self.unread.get_or_insert((error, 0)).1 += 1;
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if let Some((error, count)) = self.unread.take() {
            self.books.note_unread(error, count);
        }
        self.books.freed.notify_one();
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
