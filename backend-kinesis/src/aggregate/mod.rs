//! The format of the Kinesis Producer Library (KPL): an *aggregate* is one Kinesis record with many user records.
//!
//! [The format][KPL] is a magic number, a protocol buffers message and the MD5 of that message.
//! Data without all three is a bare record. Headers and an explicit timestamp are stored in the
//! format's tags, which no reader of AWS shows and every reader skips. So a single record that has them
//! is sent as an aggregate, too.
//!
//! [KPL]: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

mod address;
mod admit;
mod builder;
mod deaggregate;
mod entry;
mod frame;
mod key_table;
mod keys;
mod message;
mod tags;
#[cfg(test)]
mod tests;

pub(crate) use address::Address;
pub(crate) use admit::admit;
pub(crate) use builder::{AggregateBuilder, PARTITION_KEY};
pub(crate) use deaggregate::{Deaggregated, UserRecord, deaggregate};
pub(crate) use entry::Entry;
pub(crate) use keys::{key_of, keyless};
