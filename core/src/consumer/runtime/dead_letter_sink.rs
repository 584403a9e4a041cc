//! Where the runtime leaves records that have failed for good.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{Delivery, Failure, Result};

/// A record that has failed for good, and why.
#[derive(Debug)]
pub(crate) struct DeadRecord {
    pub(crate) group: Arc<str>,
    pub(crate) delivery: Delivery,
    pub(crate) failure: Failure,
}

/// Stores dead letters. It is implemented above the runtime, which knows no producer.
pub(crate) trait DeadLetterSink: Debug + Send + Sync {
    /// Stores a record, however long it takes. Returns what had to be changed in it, if anything.
    ///
    /// An error means that it can never be stored. A dropped call may have stored it.
    fn store<'a>(&'a self, record: &'a DeadRecord) -> BoxFuture<'a, Result<Option<String>>>;

    /// Closes the sink. No call is under way, and none follows.
    fn close(&self) -> BoxFuture<'_, ()>;
}
