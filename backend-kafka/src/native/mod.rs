//! Calls librdkafka directly, without rdkafka in between, where rdkafka costs too much or has no safe wrapper.
//!
//! This is the only module of this crate that contains `unsafe`. Each block says why it is sound. All exports
//! are safe to call.

#![allow(
    unsafe_code,
    reason = "librdkafka is written in C; all other modules go through this one"
)]

mod admin;
pub(crate) mod admin_queue;
pub(crate) mod bootstrap;
mod c_data;
mod code;
pub(crate) mod credentials;
pub(crate) mod data_queue;
pub(crate) mod delivery;
pub(crate) mod flush;
pub(crate) mod group_offsets;
mod header_name;
pub(crate) mod identity;
pub(crate) mod leader_epoch;
pub(crate) mod list_offsets;
mod message_headers;
pub(crate) mod messages;
pub(crate) mod partitioner;
pub(crate) mod produce;
pub(crate) mod record;
mod timestamp;
pub(crate) mod token;
pub(crate) mod topic_ids;
