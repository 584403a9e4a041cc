//! The interface through which the runtime stores dead letters.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{Delivery, Failure, Result};

/// A record that has failed permanently, with the failure.
#[derive(Debug)]
pub(crate) struct DeadRecord {
    pub(crate) group: Arc<str>,
    pub(crate) delivery: Delivery,
    pub(crate) failure: Failure,
}

/// Stores dead letters. Implemented outside of the runtime, which does not depend on the producer.
pub(crate) trait DeadLetterSink: Debug + Send + Sync {
    /// Stores a record, however long that takes. Returns what was changed in it, if anything.
    ///
    /// An error means that it can never be stored. A dropped call may have stored it.
    fn store<'a>(&'a self, record: &'a DeadRecord) -> BoxFuture<'a, Result<Option<String>>>;

    /// Closes the sink. No call is in flight, and none follows.
    fn close(&self) -> BoxFuture<'_, ()>;
}
