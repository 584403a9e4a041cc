//! Kafka's producer against real brokers: what is stored, in which order, and what is acknowledged.
//!
//! What was stored is read back by rdkafka's own consumer, and topics are made by its own admin
//! client: nothing of the tested driver is in between.

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
