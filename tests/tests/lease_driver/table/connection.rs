//! The client of the store, like one that its vendor would provide.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::sleep;

use super::Table;

/// How often a member that is cut off looks whether it still is.
const MOMENT: Duration = Duration::from_millis(10);

/// A connection to the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    table: Arc<Mutex<Table>>,
    /// Notified when records are stored.
    appended: Arc<Notify>,
}

impl Connection {
    /// Opens the table for one request.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        let table = self.table.lock();
        table.expect("nothing panics while it holds this")
    }

    /// Opens the table for one request of a member, by its name. A member that a fault has cut off waits.
    pub(crate) async fn table_of(&self, group: &str, member: &str) -> MutexGuard<'_, Table> {
        let key = (group.to_owned(), member.to_owned());
        let frozen_until = || self.table().frozen.get(&key).copied();
        // The fault may be ended early.
        while frozen_until().is_some_and(|until| until > Instant::now()) {
            sleep(MOMENT).await;
        }
        self.table()
    }

    /// Wakes all waits for records.
    pub(crate) fn notify_appended(&self) {
        self.appended.notify_waiters();
    }

    /// Returns a future that waits until records are stored after this call.
    pub(crate) fn appended(&self) -> Notified<'_> {
        self.appended.notified()
    }
}
