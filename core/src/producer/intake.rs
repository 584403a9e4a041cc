//! Where `send` leaves records and the sender task finds them: batches that are formed while they
//! wait.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::books::Books;
use super::era::Eras;
use super::receipt::{Duty, Receipt};
use crate::Record;
use crate::driver::Limits;
use crate::lock::lock;

/// Records on their way to one call of the driver, and the duty to answer them.
pub(super) struct Parcel {
    pub(super) records: Vec<Record>,
    pub(super) duty: Duty,
    /// When its records stop being retried.
    pub(super) deadline: Instant,
}

/// The buffer between `send` and the sender task, and the bound of what is in flight.
///
/// One short lock, never held across an await. The order in which sends pass it is the order of the
/// stream: a `send` returns after it has passed, hence a `send` that begins after another one
/// returned passes after it.
///
/// # Why nobody waits for ever, or out of turn
///
/// A `send` that finds no room counts itself as waiting under the same lock. As long as anyone
/// waits, a new `send` finds no room either, so it does not overtake. Those that wait pass the
/// turnstile one by one, first come, first served; the one inside looks for room whenever answers
/// were counted, and leaves with its record in, or with `Closed`, or by being dropped. Each way the
/// next one enters and first looks for itself, so no waking is lost.
///
/// Why not a semaphore for records and one for bytes: they cost two contended words for each
/// record, where the lock is taken anyway.
pub(super) struct Intake {
    state: Mutex<State>,
    turnstile: Semaphore,
    books: Arc<Books>,
    limits: Limits,
    timeout: Duration,
}

/// Why a record did not get in. It stays where it was.
pub(super) enum Refused {
    /// There is no room, or others wait for it. Take it to [`Intake::push_in_turn`].
    Full,
    /// The producer is closed.
    Closed,
}

struct State {
    /// Sealed parcels, oldest first.
    sealed: VecDeque<Parcel>,
    /// The newest one, which still grows.
    open: Option<Open>,
    /// How many records the last sealed parcel had: the next one will have as many.
    usual: usize,
    reader: Option<Waker>,
    /// Whether the reader wants to be woken by a record, or by the close only.
    hungry: bool,
    /// Set once: no record comes in any more.
    closed: bool,
    eras: Eras,
    sent: u64,
    sent_bytes: u64,
    /// What was answered when it was last looked up: enough to know that there is room, and looked
    /// up again before it is said that there is none.
    answered: u64,
    answered_bytes: u64,
    /// How many sends wait for room.
    waiting: usize,
}

struct Open {
    records: Vec<Record>,
    bytes: usize,
    duty: Duty,
}

impl Intake {
    pub(super) fn new(books: Arc<Books>, limits: Limits, timeout: Duration) -> Self {
        let state = State {
            sealed: VecDeque::new(),
            open: None,
            usual: 0,
            reader: None,
            hungry: false,
            closed: false,
            eras: Eras::new(),
            sent: 0,
            sent_bytes: 0,
            answered: 0,
            answered_bytes: 0,
            waiting: 0,
        };
        Self {
            state: Mutex::new(state),
            turnstile: Semaphore::new(1),
            books,
            limits,
            timeout,
        }
    }

    /// Takes a record in if there is room and nobody waits. A record that is refused as `Full` is
    /// waiting from now on.
    ///
    /// The record is passed by reference, and moved once: into its parcel.
    pub(super) fn push(&self, record: &mut Record, size: usize) -> Result<Receipt, Refused> {
        let mut state = lock(&self.state);
        if state.waiting > 0 || !self.has_room(&mut state, size) {
            if state.closed {
                return Err(Refused::Closed);
            }
            state.waiting += 1;
            return Err(Refused::Full);
        }
        self.admit(state, record, size)
    }

    /// Takes a record in that was refused as `Full`, in its turn. Dropped, it has not taken it in.
    pub(super) async fn push_in_turn(
        &self,
        record: &mut Record,
        size: usize,
    ) -> Result<Receipt, Refused> {
        let _waiting = Waiting(&self.state);
        let _turn = self.turnstile.acquire().await;
        loop {
            {
                let mut state = lock(&self.state);
                if state.closed || self.has_room(&mut state, size) {
                    return self.admit(state, record, size);
                }
            }
            self.books.freed.notified().await;
        }
    }

    fn has_room(&self, state: &mut State, size: usize) -> bool {
        let room = self.books.room;
        let cost = room.cost(size);
        let fits = |state: &State| {
            state.sent - state.answered < room.records
                && state.sent_bytes - state.answered_bytes <= room.bytes - cost
        };
        if fits(state) {
            return true;
        }
        state.answered = self.books.answered();
        state.answered_bytes = self.books.answered_bytes.load(Relaxed);
        fits(state)
    }

    fn admit(
        &self,
        mut state: MutexGuard<'_, State>,
        record: &mut Record,
        size: usize,
    ) -> Result<Receipt, Refused> {
        if state.closed {
            return Err(Refused::Closed);
        }
        let cost = self.books.room.cost(size);
        state.sent += 1;
        state.sent_bytes += cost;
        if state
            .open
            .as_ref()
            .is_some_and(|open| !self.fits(open, size))
        {
            self.seal(&mut state);
        }
        let State {
            open, eras, usual, ..
        } = &mut *state;
        let open = open.get_or_insert_with(|| Open {
            records: Vec::with_capacity(*usual),
            bytes: 0,
            duty: Duty::new(self.books.clone(), eras.now().clone()),
        });
        open.records.push(mem::take(record));
        open.bytes += size;
        let receipt = open.duty.push(cost);
        let reader = state.hungry.then(|| state.reader.take()).flatten();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(receipt)
    }

    fn fits(&self, open: &Open, size: usize) -> bool {
        open.records.len() < self.limits.batch_records
            && open.bytes.saturating_add(size) <= self.limits.batch_bytes
    }

    /// Ends the open parcel. Its time-out runs from here: one look at the clock for each parcel,
    /// and at most as late as the parcel was open, which is while the sender could not have started
    /// it.
    fn seal(&self, state: &mut State) {
        if let Some(Open { records, duty, .. }) = state.open.take() {
            state.usual = records.len();
            state.sealed.push_back(Parcel {
                records,
                duty,
                deadline: Instant::now() + self.timeout,
            });
        }
    }

    /// Moves what is there to `parcels`: the sealed ones, or if there is none, the open one. An
    /// open parcel is left to grow as long as others are to go first.
    pub(super) fn take(&self, parcels: &mut VecDeque<Parcel>) {
        let mut state = lock(&self.state);
        if state.sealed.is_empty() {
            self.seal(&mut state);
        }
        if parcels.is_empty() {
            mem::swap(parcels, &mut state.sealed);
        } else {
            parcels.append(&mut state.sealed);
        }
    }

    /// Ready when there is a record to take, if `hungry`, or when the intake was closed.
    pub(super) fn poll(&self, cx: &mut Context<'_>, hungry: bool, knows_closed: bool) -> Poll<()> {
        let mut state = lock(&self.state);
        if hungry && !state.is_empty() || state.closed && !knows_closed {
            return Poll::Ready(());
        }
        state.hungry = hungry;
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            None => state.reader = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Lets no record in any more and wakes the sender. Doing it again is the same.
    pub(super) fn close(&self) {
        let reader = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        self.books.freed.notify_one();
    }

    /// Closes, and hands over what nobody will take any more.
    pub(super) fn abandon(&self) -> VecDeque<Parcel> {
        self.close();
        let mut parcels = VecDeque::new();
        let mut state = lock(&self.state);
        self.seal(&mut state);
        mem::swap(&mut parcels, &mut state.sealed);
        parcels
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.state).is_empty()
    }

    /// Ends the era of what was sent so far; see [`Eras::turn`].
    pub(super) fn turn_era(&self) -> Vec<CancellationToken> {
        let mut state = lock(&self.state);
        self.seal(&mut state);
        state.eras.turn()
    }

    /// Records and bytes taken in so far.
    pub(super) fn sent(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.sent, state.sent_bytes)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.is_none()
    }
}

/// A `send` that waits for room, until it is in or dropped.
struct Waiting<'a>(&'a Mutex<State>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.0).waiting -= 1;
    }
}
