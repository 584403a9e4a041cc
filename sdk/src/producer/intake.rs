//! Where `send` leaves records and the sender task finds them: batches that are formed while they
//! wait.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::books::{Books, Closed, lock};
use super::receipt::{Duty, Era, Receipt};
use crate::Record;
use crate::driver::Limits;

/// Records on their way to one call of the driver, and the duty to answer them.
pub(super) struct Parcel {
    pub(super) records: Vec<Record>,
    pub(super) duty: Duty,
    /// When its records stop being retried.
    pub(super) deadline: Instant,
}

/// The buffer between `send` and the sender task.
///
/// One short lock, never held across an await. The order in which sends pass it is the order of the
/// stream: a `send` returns after it has passed, hence a `send` that begins after another one
/// returned passes after it.
pub(super) struct Intake {
    state: Mutex<State>,
    books: Arc<Books>,
    limits: Limits,
    timeout: Duration,
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
    era: Era,
    era_over: CancellationToken,
    /// The eras that are closed and perhaps not over.
    flushing: Vec<CancellationToken>,
    sent: u64,
    sent_bytes: u64,
}

struct Open {
    records: Vec<Record>,
    bytes: usize,
    duty: Duty,
}

impl Intake {
    pub(super) fn new(books: Arc<Books>, limits: Limits, timeout: Duration) -> Self {
        let era_over = CancellationToken::new();
        let state = State {
            sealed: VecDeque::new(),
            open: None,
            usual: 0,
            reader: None,
            hungry: false,
            closed: false,
            era: Arc::new(era_over.clone().drop_guard()),
            era_over,
            flushing: Vec::new(),
            sent: 0,
            sent_bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            books,
            limits,
            timeout,
        }
    }

    /// Takes a record in. Room was taken for it.
    pub(super) fn push(&self, record: Record, size: usize, cost: u32) -> Result<Receipt, Closed> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Closed);
        }
        if state
            .open
            .as_ref()
            .is_some_and(|open| !self.fits(open, size))
        {
            self.seal(&mut state);
        }
        state.sent += 1;
        state.sent_bytes += u64::from(cost);
        let State {
            open, era, usual, ..
        } = &mut *state;
        let open = open.get_or_insert_with(|| Open {
            records: Vec::with_capacity(*usual),
            bytes: 0,
            duty: Duty::new(self.books.clone(), era.clone()),
        });
        open.records.push(record);
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
        self.books.room.close();
        let reader = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
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

    /// Begins a new era and answers what to wait for until all that was sent before is answered.
    pub(super) fn turn_era(&self) -> Vec<CancellationToken> {
        let mut state = lock(&self.state);
        self.seal(&mut state);
        let over = CancellationToken::new();
        let before = mem::replace(&mut state.era, Arc::new(over.clone().drop_guard()));
        let before_over = mem::replace(&mut state.era_over, over);
        drop(before);
        state.flushing.push(before_over);
        state.flushing.retain(|era| !era.is_cancelled());
        state.flushing.clone()
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
