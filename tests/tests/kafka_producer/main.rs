//! Kafka's producer against real brokers: the stored records, their order, and their acknowledgements.
//!
//! Stored records are read back by rdkafka's own consumer, and topics are created by its own admin
//! client, without the tested driver.

#![allow(
    clippy::unwrap_used,
    reason = "what a helper cannot do ends the test that asked for it"
)]

mod added_partitions;
mod foreign_records;
mod open_transactions;
mod order;
mod raw_client;
mod refusals;
mod round_trip;
mod transactions;
