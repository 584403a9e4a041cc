//! The leases of shards: which member of a group reads which shard, and its progress.
//!
//! The table is that of the Kinesis Client Library (KCL) 2.x, whose Java workers may share it at the
//! same time. Its protocol consists only of conditional changes of rows. An owner shows that it is
//! alive by incrementing the lease counter. If the counter does not change for the failover time, any worker may take
//! the lease. Clocks of different workers are never compared.

mod audit;
mod bootstrap;
mod change;
mod cleanup;
mod command;
mod coordinator;
mod dynamodb;
mod election;
mod form;
mod key;
mod options;
mod progress;
mod renewer;
mod reset;
mod row;
mod shards;
mod source;
mod store;
mod streams;
mod table;
mod taker;
mod view;
mod worker;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use dynamodb::DynamoDb;
pub(crate) use key::LeaseKey;
pub(crate) use options::{LeaseEvent, ResumePoint, WorkerOptions};
pub(crate) use progress::{Stored, read};
pub(crate) use reset::Reset;
pub(crate) use row::{Pin, Tip};
pub(crate) use source::ShardSource;
pub(crate) use store::LeaseStore;
pub(crate) use worker::Worker;
