use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Checkpoints, ConsumerGroup, Producer, Streams};
use crate::{Guarantee, Guarantees, Result};

/// A connected backend. A [`Client`](crate::Client) holds it and opens everything else from it.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Returns the backend's name in errors and logs: `"memory"`, `"kafka"`, `"kinesis"`.
    fn name(&self) -> &'static str;

    /// Returns what the backend guarantees beyond the common promises. A guarantee that single streams do not keep is
    /// promised only by a driver that [refuses those](super#what-programs-require).
    fn guarantees(&self) -> Guarantees;

    /// Checks the name of a stream that exists, before it is used.
    ///
    /// A backend that names streams in a way of its own, as by an address, accepts that too. It uses the name as it is, in
    /// [`Partition`](crate::Partition)s and errors. Others use [`check_stream_name`](super::check_stream_name).
    ///
    /// # Errors
    /// The rule for valid names, as the end of a sentence that begins with the refused name.
    fn check_stream_name(&self, name: &str) -> Result<(), String>;

    /// Opens a producer to an existing stream. The caller has [checked](Self::check_stream_name) the name.
    ///
    /// Returns `NotFound` for an unknown stream and `Denied` where writing is not allowed, as far as
    /// the broker reports that before the first record, and `Unsupported` if the stream does not keep one of the
    /// `required` guarantees, see [the rules](super#what-programs-require). A dropped call leaves nothing behind.
    async fn open_producer(
        &self,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn Producer>>;

    /// Checks the name of a group.
    ///
    /// A backend whose groups are shared with other clients accepts every name that those may use. Others use
    /// [`check_group_name`](super::check_group_name).
    ///
    /// # Errors
    /// The rule for valid names, as the end of a sentence that begins with the refused name.
    fn check_group_name(&self, name: &str) -> Result<(), String>;

    /// Returns a handle to a group, without a request to the broker. The caller has
    /// [checked](Self::check_group_name) the name.
    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup>;

    /// Returns a handle to the stored progress of a group, without a request to the broker. The caller has
    /// [checked](Self::check_group_name) the name.
    fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints>;

    /// Returns the administration of streams.
    fn streams(&self) -> Arc<dyn Streams>;
}
