//! The storage of leases: a DynamoDB table, or its replacement in tests.
//!
//! Rows are DynamoDB items, and changes are data: [`change`](super::change) defines each change of a lease
//! once for all stores.

use std::collections::HashMap;
use std::fmt::Debug;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use millstream_core::Result;

/// A row as it is stored.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A condition of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// The row exists.
    Exists,
    Is(&'static str, AttributeValue),
    Absent(&'static str),
}

/// A change of some attributes of one row. The others are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) set: Vec<(&'static str, AttributeValue)>,
    pub(crate) remove: Vec<&'static str>,
    /// All must hold. There is at least one, so that no change creates a row.
    pub(crate) given: Vec<Condition>,
}

/// The result of a conditional change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Applied; the row as it is now.
    Applied(Item),
    /// Not applied; the current row, if there is one.
    Refused(Option<Item>),
}

/// The lease table.
///
/// All methods may be called concurrently. Each sends one request: only the caller knows the effect of a request that
/// is sent twice. `NotFound` means that there is no table. After `Timeout` or `Unavailable` it is
/// not known whether a change was applied. Dropping a future leaves the change applied or not.
#[async_trait]
pub(crate) trait LeaseStore: Debug + Send + Sync + 'static {
    /// Returns the table's name, for messages.
    fn table(&self) -> &str;

    /// Makes sure that the table exists and is active: creates it, if that is allowed, and
    /// waits until it is ready. It retries by itself.
    async fn open(&self) -> Result<()>;

    /// Reads all rows. Without `consistent`, a row may be a moment old.
    async fn scan(&self, consistent: bool) -> Result<Vec<Item>>;

    /// Reads one row as it is now.
    async fn get(&self, key: &str) -> Result<Option<Item>>;

    /// Stores a new row. Returns false if the key exists.
    async fn create(&self, item: Item) -> Result<bool>;

    /// Changes a row.
    async fn update(&self, key: &str, update: &Update) -> Result<Outcome>;

    /// Deletes a row if all of `given` hold. Returns false if they do not, or if there is no row.
    async fn delete(&self, key: &str, given: &[Condition]) -> Result<bool>;

    /// Returns the protocol version of the fleet's Java workers, if they have stored one: `cv` of the item
    /// `Migration3.0`, in this table or in the additional one that the KCL before 3.5 had.
    async fn client_version(&self) -> Result<Option<String>>;
}
