//! The format of the Kinesis Producer Library (KPL): many user records in one record of Kinesis, a
//! *carrier*.
//!
//! [The format][KPL] is a magic number, a protocol buffers message and the MD5 of that message.
//! Data without all three is a bare record. Headers and an explicit timestamp are stored in the
//! format's tags, which no reader of AWS shows and every reader skips. So a single record that has them
//! is sent as a carrier, too.
//!
//! [KPL]: https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

mod address;
mod admit;
mod carrier;
mod frame;
mod keys;
mod message;
mod open;
mod tags;
#[cfg(test)]
mod tests;
mod texts;

pub(crate) use address::Address;
pub(crate) use admit::admit;
pub(crate) use carrier::{Carrier, Entry, PARTITION_KEY};
pub(crate) use keys::{key_of, keyless};
pub(crate) use open::{Opened, UserRecord, open};
