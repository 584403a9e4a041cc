//! One call of the driver, with what it owes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::backlog::{self, Batch, Item};
use super::books::{Books, Room};
use super::intake::Parcel;
use super::receipt::Duty;
use crate::driver::{self, Rejected};
use crate::telemetry::tell;
use crate::{Error, ErrorKind, Placed, Record, Result};

/// A record that waits in the backlog, with the duty to answer it.
pub(super) type Waiting = Item<(Record, Duty)>;

/// Records for the driver, and what the call owes for them.
pub(super) struct Call {
    records: Vec<Record>,
    owed: Owed,
}

/// Duties in the order of the records, and the keys that the call binds.
pub(super) struct Owed {
    pub(super) debts: Vec<Debt>,
    pub(super) keys: Vec<u64>,
}

/// A duty for a whole parcel or for one record, and how long that is retried.
pub(super) struct Debt {
    pub(super) duty: Duty,
    pub(super) deadline: Instant,
    pub(super) attempts: u32,
    /// Whether an attempt ended in `Timeout`: it may be stored already.
    pub(super) unclear: bool,
}

/// A call that has ended. Without results, the driver has panicked.
pub(super) struct Ended {
    pub(super) owed: Owed,
    pub(super) results: Option<Vec<Result<Placed, Rejected>>>,
}

impl Call {
    /// Sends a parcel as it is. It binds no key.
    pub(super) fn whole(parcel: Parcel) -> Self {
        let debt = Debt {
            duty: parcel.duty,
            deadline: parcel.deadline,
            attempts: 0,
            unclear: false,
        };
        let owed = Owed {
            debts: vec![debt],
            keys: Vec::new(),
        };
        Self {
            records: parcel.records,
            owed,
        }
    }

    /// Sends what the backlog lets go.
    pub(super) fn each(batch: Batch<(Record, Duty)>) -> Self {
        let mut records = Vec::with_capacity(batch.items.len());
        let mut debts = Vec::with_capacity(batch.items.len());
        for item in batch.items {
            let (record, duty) = item.load;
            records.push(record);
            debts.push(Debt {
                duty,
                deadline: item.deadline,
                attempts: item.attempts,
                unclear: item.unclear,
            });
        }
        let keys = batch.keys;
        Self {
            records,
            owed: Owed { debts, keys },
        }
    }

    /// Asks the driver. A panic of it ends with this call: the task goes on, and what is owed is
    /// still there to be answered.
    pub(super) fn make(
        self,
        driver: Arc<dyn driver::Producer>,
        books: Arc<Books>,
    ) -> BoxFuture<'static, Ended> {
        let Self { records, owed } = self;
        let send = async move { driver.send(records).await };
        async move {
            let results = AssertUnwindSafe(send).catch_unwind().await.ok();
            if results.is_none() {
                tell!(
                    error, "millstream.producer.panicked", stream = %books.stream,
                    "the backend's driver panicked"
                );
            }
            Ended { owed, results }
        }
        .boxed()
    }
}

impl Debt {
    /// Makes a record wait that was handed back with `error`.
    pub(super) fn again(&self, record: Record, error: &Error, duty: Duty) -> Waiting {
        Item {
            key: key(&record),
            bytes: record.size(),
            deadline: self.deadline,
            attempts: self.attempts,
            unclear: self.unclear || error.kind() == ErrorKind::Timeout,
            load: (record, duty),
        }
    }
}

/// The records of a parcel one by one.
pub(super) fn unpack(parcel: Parcel, room: Room) -> impl Iterator<Item = Waiting> {
    let deadline = parcel.deadline;
    let mut costs = parcel.records.iter().map(|record| room.cost(record.size()));
    let duties = parcel
        .duty
        .split(|| costs.next().expect("a parcel owes for each of its records"));
    let records = parcel.records.into_iter().zip(duties);
    records.map(move |(record, duty)| Item {
        key: key(&record),
        bytes: record.size(),
        deadline,
        attempts: 0,
        unclear: false,
        load: (record, duty),
    })
}

/// What stands for the record's key, if it has one.
pub(super) fn key(record: &Record) -> Option<u64> {
    record.key.as_deref().map(backlog::hash)
}
