//! Where leases are stored: one table of DynamoDB, or what stands for it in tests.
//!
//! Rows are items as DynamoDB has them, and changes are data: what a change of a lease is stands in
//! [`change`](super::change), once for all stores.

use std::collections::HashMap;
use std::fmt::Debug;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use millstream_core::Result;

/// A row as it is stored.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// What has to hold for a change to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// The row is there.
    Exists,
    Is(&'static str, AttributeValue),
    Absent(&'static str),
}

/// A change of some attributes of one row. The others stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) set: Vec<(&'static str, AttributeValue)>,
    pub(crate) remove: Vec<&'static str>,
    /// All have to hold; at least one, so that no row is made by a change.
    pub(crate) given: Vec<Condition>,
}

/// What became of a conditional change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Made; the row as it is now.
    Applied(Item),
    /// Not made; the row as it is, if there is one.
    Refused(Option<Item>),
}

/// The table of leases.
///
/// All methods may be called concurrently. Each asks once: who calls knows what a request that is
/// made twice may do. `NotFound` says that there is no table. After `Timeout` or `Unavailable` it is
/// not known whether a change was made. Dropping a future leaves the change made or not.
#[async_trait]
pub(crate) trait LeaseStore: Debug + Send + Sync + 'static {
    /// The table's name, for messages.
    fn table(&self) -> &str;

    /// Makes sure that there is a table that can be used: creates it, where that is allowed, and
    /// waits until it is ready. It tries again by itself.
    async fn open(&self) -> Result<()>;

    /// Reads all rows. Without `consistent` a row may be a moment old.
    async fn scan(&self, consistent: bool) -> Result<Vec<Item>>;

    /// Reads one row as it is now.
    async fn get(&self, key: &str) -> Result<Option<Item>>;

    /// Stores a new row; false if there is one of that key.
    async fn create(&self, item: Item) -> Result<bool>;

    /// Changes a row.
    async fn update(&self, key: &str, update: &Update) -> Result<Outcome>;

    /// Deletes a row if all of `given` holds. False if it does not, or if there is no row.
    async fn delete(&self, key: &str, given: &[Condition]) -> Result<bool>;

    /// What the fleet's Java workers have agreed on, if they ever did: `cv` of the item
    /// `Migration3.0`, in this table or in the one beside it that the KCL before 3.5 had.
    async fn client_version(&self) -> Result<Option<String>>;
}
